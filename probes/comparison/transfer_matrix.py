"""Turns a run's activations into the matrices of a transfer: the direction of arm i in arm j, beside length and shuffled labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.config.run_folder import RunFolder
from emis_interp.directions import Direction, unit
from emis_interp.files.store import write_sealed
from emis_interp.files.tensors import load_tensors
from emis_interp.fitting.extractors import Extractor, extractor_named
from emis_interp.fitting.geometry import TwoByTwo, cosine_matrix
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.length_baseline import matched_by_question, regressed_by_question
from emis_interp.fitting.reliability import against_shuffled, auroc_by_question, auroc_estimate, shuffled_directions
from emis_interp.models.chat import encode_chats
from emis_interp.passes.interventions import ablate, steer
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.report.page_frame import command_of, frame_of
from emis_interp.stats.families import holm, mean_p
from emis_interp.stats.interval import mean_row
from emis_interp.stats.words import length_alone
from emis_interp.texts.contrast import at_most, labeled_texts
from probes.comparison.against_base import two_by_two_numbers
from probes.comparison.transfer import Matrix, asymmetry, projection_shift, transfer_auroc
from probes.comparison.transfer_page import write_transfer_page
from probes.settings import TransferSettings

MATRICES = (
    "auroc",
    "auroc_length_regressed",
    "auroc_length_matched",
    "projection_shift",
    "steering",
    "ablation",
)
"""What is printed; the file has the asymmetries too."""


N_NULL_OTHERS = 20
"""Directions of shuffled labels where the extractor solves a system for each."""


def run(
    settings: TransferSettings,
    bars: Bars = no_bars,
    *,
    run: RunFolder,
) -> dict[str, Any]:
    """All matrices of one run at one layer.

    Args:
        run: that of the folder in the settings.
    """
    extractor = extractor_named(settings.extractor)
    texts = labeled_texts(run.pairs)
    labels, questions = np.array([t.misaligned for t in texts]), tuple(t.question_id for t in texts)
    texts_chats = encode_chats(run.models.tokenizer, [(t.question, t.answer) for t in texts], run.config.system_prompt)
    lengths = np.array([chat.n_response for chat in texts_chats], dtype=float)
    data, norms = {}, {}
    for model in run.config.models:
        tensors = load_tensors(run.activations(model, "contrast"))[0]
        data[model.name] = LabeledActivations(tensors["x"], labels, questions, lengths)
        norms[model.name] = tensors["token_norm"].mean(0)
    layer = settings.layer
    if layer is None:
        layer = Direction.load(settings.run_dir / "directions" / "misalignment").layer
    run.models.base.check_layers([layer])
    halves = {half: {pair.question_id for pair in run.half(half)} for half in ("selection", "report")}
    fit, test = ({name: one.only(halves[half]) for name, one in data.items()} for half in ("selection", "report"))
    scale = float(norms["base"][layer])
    auroc = transfer_auroc(fit, test, layer, extractor=extractor)
    n_null = run.config.direction.n_permutations if settings.extractor == "question_balanced" else N_NULL_OTHERS
    test_lengths = test["base"].lengths
    assert test_lengths is not None
    regressed = transfer_auroc(
        fit,
        test,
        layer,
        extractor=extractor,
        separation=lambda scores, own, names: regressed_by_question(scores, test_lengths, own, questions=names),
    )
    matched = transfer_auroc(
        fit,
        test,
        layer,
        extractor=extractor,
        separation=lambda scores, own, names: matched_by_question(scores, test_lengths, own, questions=names)[0],
    )
    result = {
        "layer": layer,
        "extractor": settings.extractor,
        "arms": list(data),
        "residual_norm": scale,
        "auroc": with_controls(
            aurocs(auroc), fit, test, layer=layer, extractor=extractor, n=n_null, seed=run.config.seed
        ),
        "length": auroc_estimate(auroc_by_question(test_lengths, test["base"].misaligned, test["base"].questions)),
        "auroc_length_regressed": aurocs(regressed),
        "auroc_length_matched": aurocs(matched),
        "asymmetry": summarized(asymmetry(auroc)),
        "projection_shift": summarized(
            projection_shift(fit, test, layer, residual_norm=scale, base="base", extractor=extractor)
        ),
        "cosine": {
            f"{a}|{b}": {"value": value, "low": low, "high": high}
            for (a, b), (value, low, high) in cosine_matrix(fit, layer).items()
        },
    }
    if settings.interventions:
        directions = {
            name: Direction(unit(raw), layer, float(raw.norm()), scale)
            for name, raw in ((name, extractor(one.at([layer]))[0]) for name, one in fit.items())
        }
        pairs = at_most(run.half("report"), settings.n_pairs)
        result |= intervened(run, directions, pairs, coefficient=settings.coefficient, bars=bars)
    tables = {name: TwoByTwo.of(one, data["base"]) for name, one in data.items() if name != "base"}
    result["two_by_two"] = {name: two_by_two_numbers(table) for name, table in tables.items()}
    out = settings.out or settings.run_dir / "analysis" / "transfer.json"
    write_sealed(out, result)
    place = out.with_suffix(".html")
    frame = frame_of(place, command_of("scripts/find_direction.py transfer", settings), out)
    page = write_transfer_page(place, settings.run_dir.resolve().name, result, frame=frame)
    return {**result, "out": str(out), "page": str(page)}


def intervened(
    run: RunFolder,
    directions: Mapping[str, Direction],
    pairs: Sequence[ContrastPair],
    *,
    coefficient: float,
    bars: Bars = no_bars,
) -> dict[str, Any]:
    """Margin shift in arm j when it is steered along, or ablated of, arm i's direction; nats per token."""
    steered: Matrix = {}
    ablated: Matrix = {}
    with bars("intervene", len(run.config.models) * (2 * len(directions) + 1)) as advance:
        for model in run.config.models:
            chat_model = run.models.load(model)

            def margins() -> dict[str, float]:
                values = pair_margins(chat_model, pairs, run.config.system_prompt)  # noqa: B023 (called in this turn)
                advance(1)
                return by_question(pairs, values)

            before = margins()
            for source, direction in directions.items():
                with steer(chat_model, direction, coefficient):
                    steered[source, model.name] = paired_difference(margins(), before)
                with ablate(chat_model, direction):
                    ablated[source, model.name] = paired_difference(margins(), before)
    return {
        "coefficient": coefficient,
        "n_pairs": len(pairs),
        "steering": summarized(steered),
        "steering_asymmetry": summarized(asymmetry(steered)),
        "ablation": summarized(ablated),
        "ablation_asymmetry": summarized(asymmetry(ablated)),
    }


def aurocs(matrix: Matrix) -> dict[str, dict[str, Any]]:
    """`i|j` -> `auroc_estimate` with its p-value against 0.5; the matrix is one family."""
    return corrected(matrix, {f"{i}|{j}": auroc_estimate(row) for (i, j), row in matrix.items()}, 0.5)


def summarized(matrix: Matrix) -> dict[str, dict[str, Any]]:
    """`i|j` -> mean over questions with its 95 % t interval and its p-value against 0; the matrix is one family."""
    return corrected(matrix, {f"{i}|{j}": mean_row(row) for (i, j), row in matrix.items()}, 0.0)


def with_controls(
    cells: dict[str, dict[str, Any]],
    fit: dict[str, LabeledActivations],
    test: dict[str, LabeledActivations],
    *,
    layer: int,
    extractor: Extractor,
    n: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The AUROC cells beside those of `n` directions that were fitted on shuffled labels of the same arm's texts (`against_shuffled`)."""
    found = {}
    for source, data in fit.items():
        null = shuffled_directions(data.at([layer]), n, seed, extractor=extractor)[:, 0]
        for target, other in test.items():
            row = cells[f"{source}|{target}"]
            control = against_shuffled(
                row, null, other.x[:, layer], misaligned=other.misaligned, questions=other.questions
            )
            found[f"{source}|{target}"] = {**row, **control}
    return found


def corrected(matrix: Matrix, cells: dict[str, dict[str, Any]], null: float) -> dict[str, dict[str, Any]]:
    """The cells with `p` (Student's t over questions) and `p_holm`, corrected for the number of cells."""
    p = {f"{i}|{j}": mean_p(list(row.values()), null) for (i, j), row in matrix.items()}
    return {name: {**cells[name], "p": p[name], "p_holm": value} for name, value in holm(p).items()}


def say(result: dict[str, Any]) -> str:
    arms = result["arms"]
    lines = [f"layer {result['layer']}, {result['extractor']}; rows: direction of, columns: applied in"]
    highest = max(row["shuffled_high"] for row in result["auroc"].values())
    lines.append(
        f"length alone: AUROC {length_alone(result['length'])}; directions of shuffled labels: up to {highest:.3f} (97.5th percentile)"
    )
    lines.append("each table is a family; *: p < 0.05 after Holm's correction and, for auroc, above shuffled labels")
    for name in MATRICES:
        if name not in result:
            continue
        columns = [arm for arm in arms if any(key.endswith(f"|{arm}") for key in result[name])]
        lines += ["", f"{name:24} " + "".join(f"{arm:>24}" for arm in columns)]
        for source in arms:
            cells = [result[name].get(f"{source}|{target}") for target in columns]
            lines.append(f"{source:24} " + "".join(f"{_cell(cell):>24}" for cell in cells))
    return "\n".join([*lines, "", f"saved: {result['out']}, {result['page']}"])


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    told = row["p_holm"] is not None and row["p_holm"] < 0.05 and row.get("shuffled_p", 0.0) <= 0.05
    star = "*" if told else " "
    limits = "" if row["low"] is None else f" ({row['low']:.3f} {row['high']:.3f})"
    return f"{row['value']:.3f}{star}{limits}"
