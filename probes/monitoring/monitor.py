"""Turns chat transcripts into flags per turn and token, and a page with a heat map of the tokens."""

from collections.abc import Sequence
from typing import Any

from emis_interp.errors import DataError
from emis_interp.files.store import json_bytes, write_bytes, write_text
from emis_interp.models.chat_model import ChatModel
from emis_interp.probe_results import MonitorThreshold, MonitorTurn
from emis_interp.process import Bars, no_bars
from emis_interp.report.page_frame import command_of, frame_of
from probes.monitoring.conformal import trailing_means
from probes.monitoring.opening import OpenedScorer, read_threshold
from probes.monitoring.page import monitor_page
from probes.monitoring.settings import WatchSettings
from probes.monitoring.texts import MonitoredTurn, read_transcripts
from probes.monitoring.watching import TextScores, score_chats

FLAGS_FILE, PAGE_FILE = "flags.jsonl", "index.html"


def run(settings: WatchSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Read the transcripts, and write both files.

    Raises:
        DataError: a line that is no transcript (`file:line`), or the threshold of another scorer or window.
    """
    opened = OpenedScorer.of(settings)
    threshold = None if settings.threshold is None else read_threshold(settings.threshold, opened)
    if threshold is not None and settings.window not in (None, threshold.window):
        raise DataError(
            f"{settings.threshold}: was made with a window of {threshold.window} tokens, --window says {settings.window}; leave the flag "
            "out, or calibrate again with that window"
        )
    window = threshold.window if threshold is not None else settings.window or 1
    turns = [turn for path in settings.files for turn in read_transcripts(path, opened.chat_model.tokenizer)]
    scores = score_chats(
        opened.scorer,
        opened.chat_model,
        [turn.chat for turn in turns],
        max_batch_tokens=settings.max_batch_tokens,
        bars=bars,
    )
    rows = flagged_turns(opened.chat_model, turns, scores, window=window, threshold=threshold)
    write_bytes(settings.out / FLAGS_FILE, json_bytes("".join(row.model_dump_json() + "\n" for row in rows)))
    facts = {
        "scorer": f"{settings.direction} (layer {opened.scorer.layer})",
        "model": opened.chat_model.name,
        "score of a token": f"mean over the last {window} tokens" if window > 1 else "of the token alone",
        "threshold": "none given: nothing is flagged" if threshold is None else _threshold_words(threshold),
    }
    frame = frame_of(
        settings.out / PAGE_FILE, command_of("scripts/probe.py monitor", settings), settings.out / FLAGS_FILE
    )
    page = monitor_page(
        rows, turns, facts=facts, threshold=threshold, n_shown=settings.n_shown, window=window, frame=frame
    )
    write_text(settings.out / PAGE_FILE, page)
    flagged = [row for row in rows if row.flagged]
    return {
        "flags": str(settings.out / FLAGS_FILE),
        "page": str(settings.out / PAGE_FILE),
        "n_transcripts": len({(row.file, row.line) for row in rows}),
        "n_turns": len(rows),
        "n_flagged": len(flagged) if threshold is not None else None,
        "flagged": [
            {"file": row.file, "line": row.line, "turn": row.turn, "first_flag": row.first_flag} for row in flagged
        ],
    }


def flagged_turns(
    chat_model: ChatModel,
    turns: Sequence[MonitoredTurn],
    scores: Sequence[TextScores],
    *,
    window: int,
    threshold: MonitorThreshold | None,
) -> list[MonitorTurn]:
    """A record for each turn; `flags` are those of the trailing means, so that they begin where an alarm would have been raised."""
    rows = []
    for turn, found in zip(turns, scores, strict=True):
        means = trailing_means(found.answer, window)
        flags = None if threshold is None else (means > threshold.value).tolist()
        tokens = turn.chat.input_ids[turn.chat.response_start : turn.chat.response_end]
        assert found.prompt is not None
        rows.append(
            MonitorTurn(
                file=turn.file,
                line=turn.line,
                turn=turn.turn,
                n_tokens=len(tokens),
                prompt_score=float(found.prompt[-1]),
                largest=float(means.max()),
                flagged=None if flags is None else any(flags),
                first_flag=flags.index(True) + 1 if flags and any(flags) else None,
                tokens=[chat_model.tokenizer.decode([token]) for token in tokens],
                scores=found.answer.tolist(),
                flags=flags,
            )
        )
    return rows


def _threshold_words(threshold: MonitorThreshold) -> str:
    return (
        f"{threshold.value:.4g}, which at most {100 * threshold.rate:g} % of benign texts like its {threshold.n} ({threshold.source}) "
        "pass"
    )


def say(result: dict[str, Any]) -> str:
    n = result["n_flagged"]
    said = "no threshold, nothing flagged" if n is None else f"{n} flagged"
    lines = [
        f"{result['n_turns']} assistant turns of {result['n_transcripts']} transcripts, {said}: {result['flags']}, {result['page']}"
    ]
    lines += [
        f"  {row['file']}:{row['line']} message {row['turn']}, from token {row['first_flag']} on"
        for row in result["flagged"][:20]
    ]
    return "\n".join(lines)
