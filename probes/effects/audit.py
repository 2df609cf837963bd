"""Turns a saved direction into an audit: what ablating it does, beside control directions ablated in the same way."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.files.journal import Journal
from emis_interp.files.store import RecordLog, write_sealed
from emis_interp.fitting.fitted import CONTROLS_FILE, LAYERS_FILE
from emis_interp.fitting.folder import beside, tensors_beside
from emis_interp.models.chat import encode_chats, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capability import perplexity, right_is_likelier
from emis_interp.passes.capture import Progress
from emis_interp.passes.likelihood import by_question, margins_of, pair_chats, paired_difference
from emis_interp.passes.sweeps import AblateCell, costs, text_logprobs
from emis_interp.passes.token_writer import texts_hash, weights_hash
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.records import ContrastPair, Record
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.permutation import null_p
from emis_interp.stats.proportions import minimal_detectable_difference, wilson
from emis_interp.stats.proportions import paired_difference as change_of
from emis_interp.stats.words import bounds, p_of
from emis_interp.texts.capability_items import CapabilityItem, capability_items
from emis_interp.texts.harmless import harmless_texts
from probes.loading import model_of, pairs_of
from probes.settings import AuditSettings

CELLS_TOGETHER = 8
MEAN = "direction, mean"
PRIMARY = "orthogonal"
"""Kind of control that the direction must beat first: as large a part of natural variation, and none of it along the direction."""


def run(settings: AuditSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Ablate the direction and its controls, several in one batch; an audit that was interrupted goes on."""
    out = settings.out or beside(settings.direction, "audit.json")
    with only_writer(out.parent, out.name):
        return audited(settings, bars, out)


def audited(settings: AuditSettings, bars: Bars, out: Path) -> dict[str, Any]:
    """The audit, which nobody else writes to `out` meanwhile."""
    direction = Direction.load(settings.direction, fit="selection")
    means = tensors_beside(settings.direction, LAYERS_FILE)["mean"]
    controls = tensors_beside(settings.direction, CONTROLS_FILE)
    if PRIMARY not in controls:
        raise DataError(
            f"{settings.direction}: has no {PRIMARY} controls, with which the primary contrast is made: no question of its texts has two "
            "of one class; fit with more texts"
        )
    pairs = pairs_of(direction, settings, "report")
    chat_model = model_of(direction, settings)
    planned_cells = list(planned(direction, controls, settings.n_controls, means=means))
    kinds, cells = [kind for kind, _ in planned_cells], [cell for _, cell in planned_cells]
    journal = RecordLog(out.with_suffix(".partial.jsonl"))
    with bars("audit", len(cells)) as advance:
        found = measured(
            chat_model,
            cells,
            pairs,
            system=direction.card.get("system_prompt"),
            items=capability_items(),
            max_batch_tokens=settings.max_batch_tokens,
            journal=journal,
            progress=advance,
        )
    rows = compared(kinds, found)
    table = {kind: summary(kind, rows) for kind in dict.fromkeys(row["kind"] for row in rows) if kind != "none"}
    result = {
        "direction": str(settings.direction),
        "fit": "selection questions",
        "layer": direction.layer,
        "model": chat_model.name,
        "quantisation": chat_model.quantisation,
        "adapter": str(chat_model.adapter) if chat_model.adapter else None,
        "n_questions": len({pair.question_id for pair in pairs}),
        "n_pairs": len(pairs),
        "primary": PRIMARY,
        "before": {key: rows[0][key] for key in ("margin", "perplexity", "passed")},
        "capability": capability(found[kinds.index("direction")], found[0]),
        "table": table,
        "rows": rows,
    }
    write_sealed(out, result)
    journal.path.unlink()
    return {**{key: value for key, value in result.items() if key != "rows"}, "out": str(out)}


def planned(
    direction: Direction, controls: dict[str, Any], n: int, *, means: Float[Tensor, "n_points d_model"]
) -> Iterator[tuple[str, AblateCell]]:
    """Nothing first, then the direction held at zero and at its mean over the fitted texts, then `n` controls of each kind at zero."""
    yield "none", AblateCell(torch.zeros_like(direction.vector))
    yield "direction", AblateCell(direction.vector)
    yield MEAN, AblateCell(direction.vector, means @ direction.vector)
    for kind, vectors in controls.items():
        for vector in vectors[:n]:
            yield kind, AblateCell(vector)


class Measured(Record):
    """What one ablation does, in absolute figures."""

    key: str
    """Hash of the weights, the texts and what is ablated."""
    margins: dict[str, float]
    """Likelihood margin by question, nats per token."""
    kl_neutral: float
    """KL divergence to the untouched model on harmless prompts, nats."""
    perplexity: float
    passed: str
    """1 or 0 for each item."""

    @property
    def items(self) -> np.ndarray:
        return np.array([letter == "1" for letter in self.passed])


def measured(
    chat_model: ChatModel,
    cells: Sequence[AblateCell],
    pairs: Sequence[ContrastPair],
    *,
    system: str | None,
    items: Sequence[CapabilityItem],
    max_batch_tokens: int,
    journal: RecordLog,
    progress: Progress,
) -> list[Measured]:
    """One row for each cell; those that the journal holds are read, the others share batches and are kept as soon as they are there."""
    tokenizer, harmless = chat_model.tokenizer, harmless_texts()
    parts = [
        pair_chats(chat_model, pairs, system),
        encode_chats(tokenizer, [(text.prompt, text.answer) for text in harmless], system),
    ]
    chats = [chat for part in parts for chat in part]
    prompts = [encode_prompt(tokenizer, text.prompt, system) for text in harmless]
    asked = hashlib.sha256("\n".join(item.model_dump_json() for item in items).encode()).hexdigest()
    context = f"{weights_hash(chat_model)} {texts_hash(chats)} {prompts} {asked}"
    keys = [cell_key(context, cell) for cell in cells]
    cell_of = dict(zip(keys, cells, strict=True))
    kept = Journal(journal, journal.read(Measured), lambda row: row.key, advance=progress)

    def measure_some(fresh_keys: list[str]) -> None:
        fresh = [cell_of[key] for key in fresh_keys]
        values = text_logprobs(chat_model, fresh, chats, max_batch_tokens=max_batch_tokens, max_cells=CELLS_TOGETHER)
        passed = right_is_likelier(
            chat_model, fresh, items, max_batch_tokens=max_batch_tokens, max_cells=CELLS_TOGETHER
        )
        kl = costs(chat_model, fresh, prompts, max_cells=CELLS_TOGETHER)
        rows = []
        for key, row, own, cost in zip(fresh_keys, values, passed, kl, strict=True):
            answers, texts = np.split(row, [len(parts[0])])
            rows.append(
                Measured(
                    key=key,
                    margins=by_question(pairs, margins_of(answers)),
                    kl_neutral=float(cost),
                    perplexity=perplexity(texts),
                    passed="".join("1" if one else "0" for one in own),
                )
            )
        kept.keep(rows)

    def measure_all(missing: list[str]) -> None:
        for start in range(0, len(missing), CELLS_TOGETHER):
            measure_some(missing[start : start + CELLS_TOGETHER])

    return kept.fill(keys, measure_all, together=CELLS_TOGETHER)


def cell_key(context: str, cell: AblateCell) -> str:
    tensors = [cell.vector] if cell.coordinates is None else [cell.vector, cell.coordinates]
    content = [context.encode(), *(tensor.detach().float().cpu().numpy().tobytes() for tensor in tensors)]
    return hashlib.sha256(b"|".join(content)).hexdigest()


def compared(kinds: Sequence[str], found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every row against the first one, which is of the untouched model."""
    rows = []
    for kind, row in zip(kinds, found, strict=True):
        shift = paired_difference(row.margins, found[0].margins)
        interval, change = mean_interval(list(shift.values())), change_of(row.items, found[0].items)
        rows.append(
            {
                "kind": kind,
                "margin": float(np.mean(list(row.margins.values()))),
                "shift": interval.value,
                "shift_low": interval.low,
                "shift_high": interval.high,
                "n_positive": sum(value > 0 for value in shift.values()),
                "kl_neutral": row.kl_neutral,
                "perplexity": row.perplexity,
                "passed": float(row.items.mean()),
                "change": change.value,
                "change_low": change.low,
                "change_high": change.high,
            }
        )
    return rows


def summary(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table; a control kind has the p-value of the direction against it, and whether that contrast is the primary one."""
    own = [row for row in rows if row["kind"] == kind]
    keys = ("shift", "kl_neutral", "perplexity", "passed", "change")
    line: dict[str, Any] = {"n": len(own), **{key: float(np.mean([row[key] for row in own])) for key in keys}}
    if kind in ("direction", MEAN):
        limits = ("shift_low", "shift_high", "n_positive", "change_low", "change_high")
        return line | {key: own[0][key] for key in limits}
    for key in ("shift", "change"):
        values = [row[key] for row in own]
        line |= {f"{key}_min": min(values), f"{key}_max": max(values)}
    tested = next(row["shift"] for row in rows if row["kind"] == "direction")
    p = null_p([row["shift"] for row in own], tested, "both")
    return line | p.as_json() | {"contrast": "primary" if kind == PRIMARY else "exploratory"}


def capability(after: Measured, before: Measured) -> dict[str, Any]:
    """Items, the share that the untouched model passes, and the change of it that a paired test of so many items finds.

    `detectable`: with 80 % power at 5 %, for the upper 95 % limit of the share of items that ablating the direction turns around.
    """
    turned = wilson(after.items != before.items)
    return {
        "n_items": len(before.passed),
        "before": asdict(wilson(before.items)),
        "turned": turned.value,
        "detectable": minimal_detectable_difference(len(before.passed), turned.high),
    }


def say(result: dict[str, Any]) -> str:
    before, able = result["before"], result["capability"]
    lines = [
        f"layer {result['layer']}, fitted on the {result['fit']}; {result['n_pairs']} pairs of {result['n_questions']} report questions",
        f"before: margin {before['margin']:+.3f}, perplexity of harmless text {before['perplexity']:.2f}, "
        f"{able['n_items']} items with a certain answer: {100 * able['before']['value']:.1f} % passed"
        f"{bounds({key: 100 * able['before'][key] for key in ('low', 'high')}, '.1f')}; "
        f"a change of {100 * able['detectable']:.1f} points is found in four of five tests",
        "",
        f"{'ablated':17}{'n':>4}  {'margin shift':>28}{'KL':>9}{'perplexity':>12}  {'items passed, change in points':>34}",
    ]
    for kind, row in result["table"].items():
        ends = ("low", "high") if "change_low" in row else ("min", "max")
        shift = f"{row['shift']:+.3f}{_range(row, 'shift', ends, form='+.3f', scale=1)}"
        items = f"{100 * row['passed']:.1f} %, {100 * row['change']:+.1f}{_range(row, 'change', ends, form='+.1f', scale=100)}"
        lines.append(
            f"{kind:17}{row['n']:>4}  {shift:>28}{row['kl_neutral']:>9.4f}{row['perplexity']:>12.2f}  {items:>34}"
        )
    lines += ["", "direction: 95 % intervals over questions and over items; controls: mean, smallest and largest"]
    for kind, row in sorted(result["table"].items(), key=lambda one: one[0] != result["primary"]):
        if "p" in row:
            lines.append(f"{row['contrast']}: the margin shift against {kind} controls, {p_of(row, '', 'controls')}")
    return "\n".join([*lines, f"saved: {result['out']}"])


def _range(row: dict[str, Any], key: str, ends: tuple[str, str], *, form: str, scale: float) -> str:
    low, high = (row[f"{key}_{end}"] for end in ends)
    return "" if low is None else f" ({format(scale * low, form)} to {format(scale * high, form)})"
