"""Turns an organism and its base into which activations carry the difference of their margins: the verb `probe.py patch`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.errors import ConfigError
from emis_interp.files.store import write_sealed
from emis_interp.models.lora_updates import lora_updates
from emis_interp.passes.likelihood import pair_chats
from emis_interp.probe_results import PatchView
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.jackknife import FISHER, jackknife_interval
from emis_interp.stats.rank_correlation import spearman
from emis_interp.stats.words import bounds, estimate
from emis_interp.texts.contrast import report_pairs
from probes.lens.by_layer import chosen_layers
from probes.lens.margins import margin_row, question_margins
from probes.lens.patching import PatchCell, Patched, patched
from probes.lens.settings import PatchSettings

N_SAID = 10
DIRECTIONS = ("base into organism", "organism into base")
Rows = Float[np.ndarray, "n_cells n_questions"]


def run(settings: PatchSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Patch every cell both ways.

    Raises:
        ConfigError: no adapter. ModelError: a layer or hook point that the model does not have. DataError: no pairs of report questions.
    """
    if settings.adapter is None:
        raise ConfigError("patch compares an organism with its base; give --adapter, the folder of its LoRA adapter")
    pairs = report_pairs(settings.pairs, settings.n_pairs)
    updates, base = lora_updates(settings.adapter), settings.spec.load_base()
    layers = chosen_layers(base, settings.layers)
    cells = [
        PatchCell(layer, point, group)
        for layer in layers
        for point in settings.hook_points
        for group in settings.positions
    ]
    chats, found = pair_chats(base, pairs, settings.system_prompt), {}
    with bars("patch", 2 * len(chats)) as advance:
        for name, (giver, reader) in zip(DIRECTIONS, (([], updates), (updates, [])), strict=True):
            found[name] = patched(
                base,
                chats,
                cells,
                reader=reader,
                giver=giver,
                exactly=not settings.screen_only,
                max_batch_tokens=settings.max_batch_tokens,
                progress=advance,
            )
    difference = _difference(pairs, found[DIRECTIONS[1]])
    result = {
        "model": base.name,
        "adapter": str(settings.adapter),
        "n_questions": len({pair.question_id for pair in pairs}),
        "n_pairs": len(pairs),
        "difference": margin_row(difference),
        "ways": [patched_way(name, one, pairs) for name, one in found.items()],
    }
    PatchView.model_validate(result)
    write_sealed(settings.out, result)
    return {**result, "out": str(settings.out)}


def patched_way(name: str, found: Patched, pairs: Sequence[ContrastPair]) -> dict[str, Any]:
    """The cells of one way, and how well the estimate follows the patches.

    `restored` is the share of the difference between the two models' margins that a cell brings about; it is None where the interval of the
    difference holds 0, since a share of nothing is no number (`not_restored` says so).
    """
    whole = _difference(pairs, found)
    settled = mean_interval(whole)
    is_there = settled.low is not None and settled.high is not None and settled.low * settled.high > 0
    estimated = question_margins(pairs, found.estimated)
    exact = None if found.exact is None else question_margins(pairs, found.exact - found.reader)
    rows = []
    for i, cell in enumerate(found.cells):
        row: dict[str, Any] = {
            "layer": cell.layer,
            "hook_point": cell.hook_point,
            "positions": cell.positions,
            "estimated": margin_row(estimated[i]),
            "shift": None if exact is None else margin_row(exact[i]),
            "restored": None,
        }
        if exact is not None and is_there:
            own = exact[i]
            questions = np.arange(len(whole))
            row["restored"] = jackknife_interval(
                lambda keep, own=own: float(own[keep].mean() / whole[keep].mean()), questions
            ).as_json("n", value="value")
        rows.append(row)
    return {
        "way": name,
        "cells": rows,
        "not_restored": None
        if is_there
        else f"the models' margins differ by {whole.mean():+.4f}{bounds(settled.as_json(), '+.4f')}: no share of it can be stated",
        "correlation": None if exact is None else correlations(found.cells, exact, estimated),
    }


def correlations(cells: Sequence[PatchCell], exact: Rows, estimated: Rows) -> list[dict[str, Any]]:
    """Spearman and Pearson of the estimated with the exact shift over cells, all and by hook point, with intervals over questions."""
    rows = []
    points = list(dict.fromkeys(cell.hook_point for cell in cells))
    for name in ["all", *points] if len(points) > 1 else points:
        chosen = np.array([name in ("all", cell.hook_point) for cell in cells])
        if chosen.sum() < 3:
            continue
        questions = np.arange(exact.shape[1])

        def ranked(keep: np.ndarray, chosen: np.ndarray = chosen) -> float | None:
            return spearman(exact[chosen][:, keep].mean(1), estimated[chosen][:, keep].mean(1))

        def linear(keep: np.ndarray, chosen: np.ndarray = chosen) -> float | None:
            sides = exact[chosen][:, keep].mean(1), estimated[chosen][:, keep].mean(1)
            return None if min(map(np.ptp, sides)) == 0 else float(np.corrcoef(*sides)[0, 1])

        rows.append(
            {
                "hook_point": name,
                "n_cells": int(chosen.sum()),
                "spearman": jackknife_interval(ranked, questions, FISHER).as_json("n", value="value"),
                "pearson": jackknife_interval(linear, questions, FISHER).as_json("n", value="value"),
            }
        )
    return rows


def _difference(pairs: Sequence[ContrastPair], found: Patched) -> Float[np.ndarray, "n_questions"]:
    """Margin of the giver minus that of the reader."""
    return question_margins(pairs, (found.giver - found.reader)[None])[0]


def say(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']} and {result['adapter']}, {result['n_pairs']} pairs of {result['n_questions']} report questions; shifts of the "
        "margin in nats per token, positive: more misaligned, 95 % intervals over questions",
        f"organism minus base {_words(result['difference'])}",
    ]
    for way in result["ways"]:
        lines += ["", *_way(way)]
    return "\n".join([*lines, f"saved: {result['out']}"])


def _way(way: Mapping[str, Any]) -> Iterator[str]:
    key = "estimated" if way["correlation"] is None else "shift"
    yield f"{way['way']}: the cells that move the margin most"
    yield f"{'layer':>6}  {'hook point':12}{'positions':13}{'patched':>34}{'estimated':>34}{'share of the difference':>32}"
    for row in sorted(way["cells"], key=lambda row: -abs(row[key]["value"]))[:N_SAID]:
        exact = "" if row["shift"] is None else _words(row["shift"])
        share = "" if row["restored"] is None else estimate(row["restored"], ".2f")
        yield (
            f"{row['layer']:>6}  {row['hook_point']:12}{row['positions']:13}{exact:>34}{_words(row['estimated']):>34}{share:>32}"
        )
    if way["not_restored"]:
        yield way["not_restored"]
    for row in way["correlation"] or ():
        yield (
            f"estimate and patch over {row['n_cells']} cells ({row['hook_point']}): Spearman {estimate(row['spearman'], '.3f')}, Pearson "
            f"{estimate(row['pearson'], '.3f')}"
        )


def _words(row: Mapping[str, Any]) -> str:
    return f"{row['value']:+.4f}{bounds(row, '+.4f')}"
