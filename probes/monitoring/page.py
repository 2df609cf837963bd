"""Turns flagged turns into one HTML page: every token on the colour of its score, the flagged ones marked; it needs no network."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emis_interp.probe_results import MonitorThreshold, MonitorTurn
from emis_interp.report.html_page import render
from emis_interp.report.page_frame import Frame, shown_facts, told_apart
from emis_interp.report.style import signed
from probes.monitoring.conformal import trailing_means
from probes.monitoring.texts import MonitoredTurn

N_SHADES = 5


class ShownToken(NamedTuple):
    """A token with the class of its colour and its hover."""

    text: str
    shade: str
    hover: str


def monitor_page(
    rows: Sequence[MonitorTurn],
    turns: Sequence[MonitoredTurn],
    *,
    facts: Mapping[str, object],
    threshold: MonitorThreshold | None,
    n_shown: int,
    window: int,
    frame: Frame | None = None,
) -> str:
    """The page; of more than `n_shown` turns those with the largest scores, in the order of the file. Text in it is escaped."""
    ranked = sorted(range(len(rows)), key=lambda i: -rows[i].largest)[:n_shown]
    chosen = sorted(ranked)
    all_scores = np.concatenate([np.asarray(row.scores) for row in rows])
    middle = float(np.median(all_scores))
    reach = float(np.quantile(np.abs(all_scores - middle), 0.99)) or 1.0
    files = list(dict.fromkeys(row.file for row in rows))
    names = dict(zip(files, told_apart(files), strict=True))
    shown = [
        {
            "row": rows[i],
            "file": names[rows[i].file],
            "question": turns[i].question,
            "tokens": shown_tokens(rows[i], middle, reach, window=window),
        }
        for i in chosen
    ]
    return render(
        "page.html",
        {},
        package="probes.monitoring",
        filters={"signed": signed},
        title="monitor",
        frame=frame or Frame(),
        facts={
            **shown_facts(facts),
            "colours": f"blue below, red above the median token ({signed(middle)}); full at {signed(reach)} from it",
        },
        shown=shown,
        n_turns=len(rows),
        n_flagged=None if threshold is None else sum(bool(row.flagged) for row in rows),
    )


def shown_tokens(row: MonitorTurn, middle: float, reach: float, *, window: int) -> list[ShownToken]:
    """Tokens with colours: `up1`-`up5` above the middle, `down1`-`down5` below, `flag` where an alarm stands."""
    means: Any = trailing_means(np.asarray(row.scores), window)
    found = []
    for place, (text, score) in enumerate(zip(row.tokens, row.scores, strict=True)):
        step = round(N_SHADES * min(1.0, abs(score - middle) / reach))
        shade = "" if step == 0 else f"{'up' if score > middle else 'down'}{step}"
        if row.flags is not None and row.flags[place]:
            shade = f"{shade} flag".strip()
        mean = (
            f", mean of the last {window} {signed(float(means[place]))}"
            if window > 1 and np.isfinite(means[place])
            else ""
        )
        found.append(ShownToken(text, shade, f"token {place + 1}: {signed(score)}{mean}"))
    return found
