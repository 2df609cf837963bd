"""Turns benign texts and a scorer into the threshold of a monitor, with its false-alarm rate on benign texts of other sources."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emis_interp.errors import DataError
from emis_interp.files.store import write_sealed
from emis_interp.models.chat import encode_prompt
from emis_interp.passes.generate import generate
from emis_interp.probe_results import MonitorThreshold
from emis_interp.process import Bars, no_bars
from probes.monitoring.conformal import Maxima, conformal_rank, conformal_threshold, flag_rate, maxima_of, rate_spread
from probes.monitoring.opening import OpenedScorer
from probes.monitoring.settings import CalibrateSettings
from probes.monitoring.texts import MonitoredTurn, Shipped, benign_turns
from probes.monitoring.watching import Monitor, score_chats
from probes.monitoring.words import rate_words


def run(settings: CalibrateSettings, bars: Bars = no_bars, *, shipped: Shipped | None = None) -> dict[str, Any]:
    """Write the threshold.

    Args:
        shipped: further sources by name, which the caller can read.

    Raises:
        DataError: too few benign texts for the rate, with how many it takes.
    """
    opened = OpenedScorer.of(settings)
    sources = {}
    for source in dict.fromkeys((*settings.benign, *settings.held_out)):
        sources[source] = benign_turns(
            source,
            opened.chat_model.tokenizer,
            shipped=shipped or {},
            variant=None if settings.variant == "all" else settings.variant,
            reading=settings.reading(),
            system=opened.card.get("system_prompt"),
            max_tokens=settings.max_tokens,
            fitted_on=opened.fitted_on,
            max_texts=settings.max_texts,
            seed=settings.seed,
        )
    if twice := sorted(set(settings.benign) & set(settings.held_out)):
        raise DataError(f"{twice[0]}: makes the threshold and cannot test it too; give another source for --held-out")
    if not settings.sample:
        conformal_rank(
            sum(len(sources[name][0]) for name in settings.benign), settings.rate
        )  # before the model reads anything
    scored = {name: _maxima(opened, turns, settings, name=name, bars=bars) for name, (turns, _) in sources.items()}
    maxima = np.concatenate([scored[name][0] for name in settings.benign])
    questions = [question for name in settings.benign for question in scored[name][1]]
    threshold = threshold_of_maxima(
        maxima,
        settings.rate,
        scorer=str(settings.direction),
        scorer_sha256=opened.sha256,
        model=opened.chat_model.name,
        layer=opened.scorer.layer,
        window=settings.window,
        n_questions=len(set(questions)),
        source=" + ".join(settings.benign),
        sampled=settings.sample,
    )
    held_out = tuple(
        flag_rate(scored[name][0], threshold.value, scored[name][1], source=name) for name in settings.held_out
    )
    threshold = threshold.model_copy(update={"held_out": held_out})
    write_sealed(settings.out, threshold.model_dump())
    left_out = {name: n for name, (_, n) in sources.items() if n}
    known = opened.fitted_on is not None
    return {"out": str(settings.out), "left_out": left_out, "fitted_on_known": known, **threshold.model_dump()}


def threshold_of_maxima(maxima: Maxima, rate: float, **about: Any) -> MonitorThreshold:
    """The record of the threshold that the largest scores of benign texts give at a rate.

    Args:
        about: its other fields (of the scorer, the texts and the window).

    Raises:
        DataError: as `conformal_threshold`.
    """
    value, rank = conformal_threshold(maxima, rate)
    return MonitorThreshold(
        rate=rate,
        value=value,
        rank=rank,
        n=len(maxima),
        mean_of_maxima=float(maxima.mean()),
        largest_of_maxima=float(maxima.max()),
        spread=rate_spread(len(maxima), rank),
        **about,
    )


def _maxima(
    opened: OpenedScorer, turns: Sequence[MonitoredTurn], settings: CalibrateSettings, *, name: str, bars: Bars
) -> tuple[np.ndarray, list[str]]:
    """Largest trailing mean of each text, and its question."""
    if settings.sample:
        return _sampled(opened, turns, settings, name=name, bars=bars)
    chats = [turn.chat for turn in turns]
    scores = score_chats(
        opened.scorer,
        opened.chat_model,
        chats,
        max_batch_tokens=settings.max_batch_tokens,
        bars=bars,
        name=f"score {name}",
    )
    return maxima_of([one.answer for one in scores], settings.window), [turn.question_id for turn in turns]


def _sampled(
    opened: OpenedScorer, turns: Sequence[MonitoredTurn], settings: CalibrateSettings, *, name: str, bars: Bars
) -> tuple[np.ndarray, list[str]]:
    """The same of answers that the model writes, watched; an answer without a scored token is no text."""
    asked = {turn.question: turn.question_id for turn in turns}
    encode = opened.chat_model.tokenizer, opened.card.get("system_prompt")
    plan = [
        (encode_prompt(encode[0], question, encode[1]), row)
        for question, row in asked.items()
        for _ in range(settings.sample)
    ]
    maxima, questions = [np.empty(0)], []
    with bars(f"sample {name}", len(plan)) as advance:
        for start in range(0, len(plan), settings.batch_size):
            part = plan[start : start + settings.batch_size]
            seeds = range(settings.seed + start, settings.seed + start + len(part))
            with Monitor(opened.scorer).watch(opened.chat_model) as seen:
                generate(
                    opened.chat_model,
                    [prompt for prompt, _ in part],
                    seeds,
                    settings.max_new_tokens,
                    settings.temperature,
                )
            kept = [(text.answer, part[text.row][1]) for text in seen if len(text.answer)]
            maxima.append(maxima_of([scores for scores, _ in kept], settings.window))
            questions += [question for _, question in kept]
            advance(len(part))
    return np.concatenate(maxima), questions


def say(result: dict[str, Any]) -> str:
    spread = result["spread"]
    lines = [
        f"threshold {result['value']:.4g} in {result['out']}: flagged where the mean of {result['window']} token scores at layer "
        f"{result['layer']} lies above it",
        f"  the {result['rank']}th of {result['n']} benign maxima ({result['n_questions']} questions, {result['source']}"
        + (f", {result['sampled']} sampled answers each" if result["sampled"] else "")
        + f"); promised at most {100 * result['rate']:g} % of such texts, of one such calibration {100 * spread['low']:.2g} to "
        f"{100 * spread['high']:.2g} %",
    ]
    lines += [rate_words(f"  false alarms on {row['source']}", row) for row in result["held_out"]]
    lines += [
        f"  {n} texts of {name} left out: the scorer was fitted on their questions"
        for name, n in result["left_out"].items()
    ]
    if not result["fitted_on_known"]:
        lines.append(
            "  the scorer's file does not say what it was fitted on: benign texts that it was fitted on score too low"
        )
    if not result["held_out"]:
        lines.append(
            "  not measured on a second benign source: give --held-out, a promise holds for texts of the same source alone"
        )
    return "\n".join(lines)
