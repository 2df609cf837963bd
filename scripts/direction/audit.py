"""Audits what ablating a direction does, beside 3 x 20 control directions ablated in the same way.

The direction is ablated to zero, and to its mean coordinate over the texts that it was fitted on; the controls to zero. For each: the shift
of the likelihood margin on the report questions (negative: less misaligned), the KL divergence on harmless prompts, the perplexity of
harmless text, and accuracy on easy questions. The p-value is the share of controls of a kind that move the margin at least as far in
either direction, (1 + k) / (1 + n). An increase of the margin is shown as plainly as a decrease: published results disagree in sign.
Measured rows are kept in `audit.partial.jsonl` until the audit is done; the same command goes on from there.
"""

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import cli
from direction.loading import add_direction_flags, model_of
from emis_interp.capability import capability_items, item_chats, perplexity, right_is_likelier
from emis_interp.capture import Progress
from emis_interp.chat import encode_chats, encode_prompt
from emis_interp.contrast import load_contrast
from emis_interp.directions import Direction
from emis_interp.likelihood import by_question, pair_chats, paired_difference
from emis_interp.models import ChatModel
from emis_interp.records import ContrastPair, Record
from emis_interp.stats.interval import mean_interval
from emis_interp.store import RecordLog, load_tensors, write_json
from emis_interp.sweeps import AblateCell, costs, text_logprobs
from emis_interp.token_writer import texts_hash, weights_hash
from stages.intervene import neutral_prompts
from training.datasets import advice_pairs

N_HARMLESS = 40
CELLS_TOGETHER = 8
MEAN = "direction, mean"


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_direction_flags(parser)
    parser.add_argument("--pairs", type=Path, help="JSONL of contrast pairs; default: the shipped ones")
    parser.add_argument("--n-pairs", type=int, help="pairs per report question; default: all (few pairs are noisy)")
    parser.add_argument("--n-controls", type=int, default=20, help="of each kind; at least 20 for a p-value below 0.05")
    parser.add_argument("--out", type=Path, help="JSON file; default: audit.json beside the direction")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ablate the direction and its controls, several in one batch."""
    direction = Direction.load(args.direction)
    chat_model = model_of(direction, args)
    means = load_tensors(args.direction.parent / "all_layers.safetensors")[0]["mean"]
    controls = load_tensors(args.direction.parent / "controls.safetensors")[0]
    system = direction.card.get("system_prompt")
    pairs = [pair for pair in load_contrast(args.pairs, args.n_pairs) if pair.half == "report"]
    planned_cells = list(planned(direction, controls, args.n_controls, means))
    kinds, cells = [kind for kind, _ in planned_cells], [cell for _, cell in planned_cells]
    out = file_of(args)
    journal = RecordLog(out.with_suffix(".partial.jsonl"))
    with cli.progress_bar("audit", len(cells)) as advance:
        found = measured(chat_model, cells, pairs, system, args.max_batch_tokens, journal, advance)
    rows = compared(kinds, found)
    table = {kind: summary(kind, rows) for kind in dict.fromkeys(row["kind"] for row in rows) if kind != "none"}
    result = {
        "direction": str(args.direction),
        "layer": direction.layer,
        "model": chat_model.name,
        "adapter": str(chat_model.adapter) if chat_model.adapter else None,
        "n_questions": len({pair.question_id for pair in pairs}),
        "n_pairs": len(pairs),
        "before": {key: rows[0][key] for key in ("margin", "perplexity", "accuracy")},
        "table": table,
        "rows": rows,
    }
    write_json(out, result)
    journal.path.unlink()
    return {**{key: value for key, value in result.items() if key != "rows"}, "out": str(out)}


def file_of(args: argparse.Namespace) -> Path:
    return args.out or args.direction.parent / "audit.json"


def planned(
    direction: Direction, controls: dict[str, Any], n: int, means: Float[Tensor, "n_points d_model"]
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
    accuracy: float


def measured(
    chat_model: ChatModel,
    cells: Sequence[AblateCell],
    pairs: Sequence[ContrastPair],
    system: str | None,
    max_batch_tokens: int,
    journal: RecordLog,
    progress: Progress,
) -> list[Measured]:
    """One row for each cell; those that the journal holds are read, the others share batches and are kept as soon as they are there."""
    tokenizer = chat_model.tokenizer
    harmless = [(pair.prompt, pair.careful) for pair in advice_pairs()[:N_HARMLESS]]
    parts = [
        pair_chats(chat_model, pairs, system),
        encode_chats(tokenizer, harmless, system),
        item_chats(chat_model, capability_items(), system),
    ]
    chats = [chat for part in parts for chat in part]
    prompts = [encode_prompt(tokenizer, text, system) for text in neutral_prompts()]
    context = f"{weights_hash(chat_model)} {texts_hash(chats)} {prompts}"
    keys = [cell_key(context, cell) for cell in cells]
    done = {row.key: row for row in journal.read(Measured)}
    missing = [(key, cell) for key, cell in zip(keys, cells, strict=True) if key not in done]
    progress(len(cells) - len(missing))
    for start in range(0, len(missing), CELLS_TOGETHER):
        fresh_keys, fresh = zip(*missing[start : start + CELLS_TOGETHER], strict=True)
        values = text_logprobs(chat_model, fresh, chats, max_batch_tokens, CELLS_TOGETHER)
        kl = costs(chat_model, fresh, prompts, CELLS_TOGETHER)
        rows = []
        for key, row, cost in zip(fresh_keys, values, kl, strict=True):
            answers, texts, items = np.split(row, np.cumsum([len(part) for part in parts])[:-1])
            rows.append(
                Measured(
                    key=key,
                    margins=by_question(pairs, answers[0::2] - answers[1::2]),
                    kl_neutral=float(cost),
                    perplexity=perplexity(texts),
                    accuracy=float(right_is_likelier(items).mean()),
                )
            )
        journal.append(rows)
        done |= {row.key: row for row in rows}
        progress(len(rows))
    return [done[key] for key in keys]


def cell_key(context: str, cell: AblateCell) -> str:
    tensors = [cell.vector] if cell.coordinates is None else [cell.vector, cell.coordinates]
    content = [context.encode(), *(tensor.detach().float().cpu().numpy().tobytes() for tensor in tensors)]
    return hashlib.sha256(b"|".join(content)).hexdigest()


def compared(kinds: Sequence[str], found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every row against the first one, which is of the untouched model."""
    rows = []
    for kind, row in zip(kinds, found, strict=True):
        shift = paired_difference(row.margins, found[0].margins)
        interval = mean_interval(list(shift.values()))
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
                "accuracy": row.accuracy,
            }
        )
    return rows


def summary(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table; a control kind has the p-value of the direction against it."""
    own = [row for row in rows if row["kind"] == kind]
    keys = ("shift", "kl_neutral", "perplexity", "accuracy")
    line: dict[str, Any] = {"n": len(own), **{key: float(np.mean([row[key] for row in own])) for key in keys}}
    if kind in ("direction", MEAN):
        return line | {key: own[0][key] for key in ("shift_low", "shift_high", "n_positive")}
    shifts = np.array([row["shift"] for row in own])
    tested = next(row["shift"] for row in rows if row["kind"] == "direction")
    line |= {"shift_min": float(shifts.min()), "shift_max": float(shifts.max())}
    return line | {"p": float((1 + (np.abs(shifts) >= abs(tested)).sum()) / (1 + len(shifts)))}


def say(result: dict[str, Any]) -> str:
    before, table = result["before"], result["table"]
    lines = [
        f"layer {result['layer']}, {result['n_pairs']} pairs of {result['n_questions']} report questions; "
        f"before: margin {before['margin']:+.3f}, perplexity {before['perplexity']:.2f}, accuracy {before['accuracy']:.2f}",
        "",
        f"{'ablated':17}{'n':>4}  {'margin shift':>32}{'KL':>9}{'perplexity':>12}{'accuracy':>10}{'p':>8}",
    ]
    for kind, row in table.items():
        bounds = (row.get("shift_low", row.get("shift_min")), row.get("shift_high", row.get("shift_max")))
        words = "" if bounds[0] is None else f" ({bounds[0]:+.3f} to {bounds[1]:+.3f})"
        shift = f"{row['shift']:+.3f}" + words
        p = f"{row['p']:.3f}" if "p" in row else ""
        lines.append(
            f"{kind:17}{row['n']:>4}  {shift:>32}{row['kl_neutral']:>9.4f}{row['perplexity']:>12.2f}{row['accuracy']:>10.2f}{p:>8}"
        )
    lines += [
        "",
        "direction: 95 % t interval over questions; controls: mean, smallest and largest",
        f"saved: {result['out']}",
    ]
    return "\n".join(lines)
