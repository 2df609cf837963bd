"""Sets the directions of a run's arms against each other: AUROC and projection shift of arm i's direction in arm j, and asymmetry.

Needs a finished capture stage. Directions are fitted on the selection questions; every figure is of the report questions, as mean over
questions with a 95 % t interval. Models of one arm (its seeds) stand apart. `--interventions` also steers and ablates every arm with
every arm's direction (minutes).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

import cli
from direction.organism import two_by_two_numbers
from emis_interp.contrast import labeled_texts
from emis_interp.directions import Direction, unit
from emis_interp.extractors import EXTRACTORS, extractor_named
from emis_interp.geometry import TwoByTwo, cosine_matrix
from emis_interp.interventions import ablate, steer
from emis_interp.labeled import LabeledActivations
from emis_interp.likelihood import by_question, pair_margins, paired_difference
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_transfer import effects_figure, matrix_figure
from emis_interp.report.views import Estimate
from emis_interp.stats.interval import mean_interval
from emis_interp.store import load_tensors, write_json, write_text
from probes.transfer import Matrix, asymmetry, projection_shift, transfer_auroc
from stages.measure import activation_path
from stages.run import Run


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, help="folder of a run whose capture stage is done")
    parser.add_argument("--layer", type=int, help="default: the layer that the run chose")
    parser.add_argument("--extractor", default="question_balanced", help=", ".join(EXTRACTORS))
    parser.add_argument("--interventions", action="store_true", help="steer and ablate too")
    parser.add_argument("--coefficient", type=float, default=0.2, help="of steering, in mean residual norms of base")
    parser.add_argument("--n-pairs", type=int, help="contrast pairs per report question in interventions; default: all")
    parser.add_argument("--out", type=Path, help="JSON file; default: RUN/analysis/transfer.json")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All matrices of one run at one layer."""
    run = Run.of(args.run_dir)
    extractor = extractor_named(args.extractor)
    texts = labeled_texts(run.pairs)
    labels, questions = np.array([t.misaligned for t in texts]), tuple(t.question_id for t in texts)
    data, norms = {}, {}
    for model in run.config.models:
        tensors = load_tensors(activation_path(run, model, "contrast"))[0]
        data[model.name] = LabeledActivations(tensors["x"], labels, questions)
        norms[model.name] = tensors["token_norm"].mean(0)
    layer = args.layer
    if layer is None:
        layer = Direction.load(args.run_dir / "directions" / "misalignment").layer
    run.base.check_layers([layer])
    halves = {half: {pair.question_id for pair in run.half(half)} for half in ("selection", "report")}
    fit, test = ({name: one.only(halves[half]) for name, one in data.items()} for half in ("selection", "report"))
    scale = float(norms["base"][layer])
    auroc = transfer_auroc(fit, test, layer, extractor)
    result = {
        "layer": layer,
        "extractor": args.extractor,
        "arms": list(data),
        "residual_norm": scale,
        "auroc": summarized(auroc),
        "asymmetry": summarized(asymmetry(auroc)),
        "projection_shift": summarized(projection_shift(fit, test, layer, scale, "base", extractor)),
        "cosine": {
            f"{a}|{b}": {"value": value, "low": low, "high": high}
            for (a, b), (value, low, high) in cosine_matrix(fit, layer).items()
        },
    }
    if args.interventions:
        directions = {
            name: Direction(unit(raw), layer, float(raw.norm()), scale)
            for name, raw in ((name, extractor(one.at([layer]))[0]) for name, one in fit.items())
        }
        result |= intervened(run, directions, args.coefficient, args.n_pairs)
    tables = {name: TwoByTwo.of(one, data["base"]) for name, one in data.items() if name != "base"}
    result["two_by_two"] = {name: two_by_two_numbers(table) for name, table in tables.items()}
    out = args.out or args.run_dir / "analysis" / "transfer.json"
    write_json(out, result)
    page = write_page(out.with_suffix(".html"), args.run_dir.resolve().name, result)
    return {**result, "out": str(out), "page": str(page)}


def write_page(path: Path, name: str, result: dict[str, Any]) -> Path:
    """The matrices as heat maps and the 2x2 over the layers, in one page that opens without a network."""
    arms, layer = result["arms"], result["layer"]

    def matrix(key: str, middle: float) -> go.Figure:
        return matrix_figure({pair: Estimate.model_validate(row) for pair, row in result[key].items()}, arms, middle)

    both = {pair: row for key, row in result["cosine"].items() for pair in (key, "|".join(key.split("|")[::-1]))}
    own = {f"{arm}|{arm}": {"value": 1.0} for arm in arms}
    cosines = {pair: Estimate.model_validate(row) for pair, row in (both | own).items()}
    sections = [
        (
            "AUROC",
            "Texts of the report questions, read by one arm, along another arm's direction; white is chance.",
            matrix("auroc", 0.5),
        ),
        (
            "Cosines",
            "Between the arms' directions; hover for the bootstrap interval.",
            matrix_figure(cosines, arms, 0.0),
        ),
        (
            "Projection shift",
            "Arm minus base on the same texts, along another arm's direction, in mean residual norms; red: towards misaligned.",
            matrix("projection_shift", 0.0),
        ),
    ]
    for key, words in (("steering", "steered along"), ("ablation", "ablated of")):
        if key in result:
            caption = f"Shift of the likelihood margin (nats per token) of an arm {words} another arm's direction; red: more misaligned."
            sections.append((key.capitalize(), caption, matrix(key, 0.0)))
    shared = {arm: table["cosines"]["text_in_organism|text_in_base"] for arm, table in result["two_by_two"].items()}
    moved = {arm: table["cosines"]["text|model"] for arm, table in result["two_by_two"].items()}
    sections += [
        (
            "Is it the organism's?",
            "Cosine between each organism's text effect and that of base reading the same texts: near 1, the direction is the text's.",
            effects_figure(shared, "cosine", layer),
        ),
        (
            "What finetuning moved",
            "Cosine between the model effect (organism minus base) and the text effect.",
            effects_figure(moved, "cosine", layer),
        ),
    ]
    facts = {
        "run": name,
        "layer": layer,
        "extractor": result["extractor"],
        "mean residual norm of base": f"{result['residual_norm']:.1f}",
    }
    write_text(path, figure_page(f"directions of {name}", facts, sections))
    return path


def intervened(run: Run, directions: dict[str, Direction], coefficient: float, n_pairs: int | None) -> dict[str, Any]:
    """Margin shift in arm j when it is steered along, or ablated of, arm i's direction; nats per token."""
    counts: dict[str, int] = {}
    pairs = []
    for pair in run.half("report"):
        counts[pair.question_id] = counts.get(pair.question_id, 0) + 1
        if n_pairs is None or counts[pair.question_id] <= n_pairs:
            pairs.append(pair)
    steered: Matrix = {}
    ablated: Matrix = {}
    with cli.progress_bar("intervene", len(run.config.models) * (2 * len(directions) + 1)) as advance:
        for model in run.config.models:
            chat_model = run.load(model)

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


def summarized(matrix: Matrix) -> dict[str, dict[str, Any]]:
    """`i|j` -> mean over questions with its 95 % t interval."""
    result = {}
    for (i, j), row in matrix.items():
        interval = mean_interval(list(row.values()))
        result[f"{i}|{j}"] = {
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "n_questions": len(row),
        }
    return result


def say(result: dict[str, Any]) -> str:
    arms = result["arms"]
    lines = [f"layer {result['layer']}, {result['extractor']}; rows: direction of, columns: applied in"]
    for name in ("auroc", "projection_shift", "steering", "ablation"):
        if name not in result:
            continue
        columns = [arm for arm in arms if any(key.endswith(f"|{arm}") for key in result[name])]
        lines += ["", f"{name:16} " + "".join(f"{arm:>24}" for arm in columns)]
        for source in arms:
            cells = [result[name].get(f"{source}|{target}") for target in columns]
            lines.append(f"{source:16} " + "".join(f"{_cell(cell):>24}" for cell in cells))
    return "\n".join([*lines, "", f"saved: {result['out']}, {result['page']}"])


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['value']:.3f}" if row["low"] is None else f"{row['value']:.3f} ({row['low']:.3f} {row['high']:.3f})"
