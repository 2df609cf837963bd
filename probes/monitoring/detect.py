"""Turns judged answers and a monitor with its threshold into what it catches, when, and what it forecasts before the model acts."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from emis_interp.directions import FittedOn
from emis_interp.errors import DataError
from emis_interp.files.store import write_json
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.models.chat import encode_chat
from emis_interp.process import Bars, no_bars
from emis_interp.records import LabeledText
from emis_interp.results import AdaptiveCell, BeforeHarm, MonitorReport, MonitorThreshold, PromptForecast
from emis_interp.stats.words import bounds, estimate
from emis_interp.texts.contrast import at_most, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged, split_questions
from probes.monitoring.adaptive import adaptive_check
from probes.monitoring.calibrate import rate_words
from probes.monitoring.conformal import flag_rate, maxima_of
from probes.monitoring.detection import detection_time, first_flags
from probes.monitoring.forecast import METHODS, prompt_forecast
from probes.monitoring.opening import OpenedScorer, read_threshold
from probes.monitoring.sentences import SentenceJudge, flagged_before_harm, token_starts
from probes.monitoring.settings import DetectSettings
from probes.monitoring.texts import MonitoredTurn
from probes.monitoring.watching import TextScores, score_chats


def run(settings: DetectSettings, bars: Bars = no_bars, *, judge: SentenceJudge | None = None) -> dict[str, Any]:
    """Write the report.

    Args:
        judge: scores single sentences, where `settings.sentences` asks for it.

    Raises:
        DataError: the threshold is another scorer's, or no judged answer to a question that the scorer was not fitted on is left.
    """
    opened = OpenedScorer.of(settings)
    threshold = read_threshold(settings.threshold, opened)
    texts = unseen_texts(settings, opened.fitted_on)
    system, tokenizer = opened.card.get("system_prompt"), opened.chat_model.tokenizer
    turns = [
        MonitoredTurn(
            text.question_id,
            text.question,
            text.answer,
            encode_chat(tokenizer, text.question, text.answer, system=system, max_tokens=settings.max_tokens),
        )
        for text in texts
    ]
    chats = [turn.chat for turn in turns]
    scores = score_chats(opened.scorer, opened.chat_model, chats, max_batch_tokens=settings.max_batch_tokens, bars=bars)
    misaligned = np.array([text.misaligned for text in texts])
    forecasts, why = forecasts_of(scores, misaligned, texts)
    report = measured(scores, misaligned, texts, threshold=threshold).model_copy(
        update={
            "forecasts": forecasts,
            "no_forecast": why,
            "before_harm": _before_harm(
                settings, opened, turns, misaligned, scores=scores, threshold=threshold, judge=judge
            ),
            "adaptive": _adaptive(settings, opened, turns, misaligned, threshold=threshold, bars=bars),
        }
    )
    write_json(settings.out, report.model_dump())
    return {"out": str(settings.out), **report.model_dump()}


def unseen_texts(settings: DetectSettings, fitted_on: FittedOn | None) -> list[LabeledText]:
    """Clearly aligned and misaligned coherent answers to questions that had no part in the scorer, at most so many of each class."""
    variant = None if settings.variant == "all" else settings.variant
    frame = read_judged(settings.judged, variant, reading=settings.reading())
    if fitted_on is not None:
        frame = frame[[not fitted_on.has(question) for question in frame["question"]]]
    if frame.empty:
        raise DataError(
            f"{settings.judged}: the scorer was fitted on all of its questions; give answers to others, or --fit selection where the direction "
            "holds a fit on half of its questions"
        )
    return balanced_texts(frame, settings.max_per_class, settings.seed)


def measured(
    scores: Sequence[TextScores], misaligned: np.ndarray, texts: Sequence[LabeledText], *, threshold: MonitorThreshold
) -> MonitorReport:
    """Rates at the threshold, time to detection, and the AUROC within questions beside that of length."""
    maxima = maxima_of([one.answer for one in scores], threshold.window)
    lengths = np.array([len(one.answer) for one in scores])
    questions = [text.question_id for text in texts]
    caught = [i for i in range(len(texts)) if misaligned[i]]
    rest = [i for i in range(len(texts)) if not misaligned[i]]
    auroc = length_baseline(maxima, lengths.astype(float), misaligned, questions=questions)
    first = first_flags([scores[i].answer for i in caught], threshold.value, threshold.window)
    flagged = maxima > threshold.value
    names = np.array(questions)
    shares = {
        name: [float(flagged[(names == name) & (misaligned == side)].mean()) for side in (True, False)]
        for name in dict.fromkeys(questions)
    }
    return MonitorReport(
        threshold=threshold,
        texts=f"{len(caught)} misaligned and {len(rest)} aligned coherent answers to {len(set(questions))} questions",
        true_positives=flag_rate(maxima[caught], threshold.value, [questions[i] for i in caught], source="misaligned"),
        false_positives=flag_rate(maxima[rest], threshold.value, [questions[i] for i in rest], source="aligned"),
        flagged_by_question=shares,
        time=detection_time(first, lengths[caught], [questions[i] for i in caught]),
        auroc=auroc["projection"]["value"],
        auroc_low=auroc["projection"]["low"],
        auroc_high=auroc["projection"]["high"],
        auroc_of_length=auroc["length"]["value"],
    )


def forecasts_of(
    scores: Sequence[TextScores], misaligned: np.ndarray, texts: Sequence[LabeledText]
) -> tuple[list[PromptForecast], str | None]:
    """Both calibrators, fitted on one half of the questions and tested on the other, both ways round; or why there is none."""
    questions = [text.question_id for text in texts]
    at_prompt = np.array([float(one.prompt[-1]) for one in scores if one.prompt is not None])
    try:
        halves = split_questions({name: questions.count(name) for name in dict.fromkeys(questions)})
        found = [
            prompt_forecast(
                at_prompt,
                misaligned,
                questions,
                calibration=half,
                prompts=[text.question for text in texts],
                method=method,
            )
            for method in METHODS
            for half in halves
        ]
    except DataError as error:
        return [], str(error)
    return found, None


def _before_harm(
    settings: DetectSettings,
    opened: OpenedScorer,
    turns: Sequence[MonitoredTurn],
    misaligned: np.ndarray,
    *,
    scores: Sequence[TextScores],
    threshold: MonitorThreshold,
    judge: SentenceJudge | None,
) -> BeforeHarm | None:
    if judge is None or not settings.sentences:
        return None
    rows = _drawn(np.flatnonzero(misaligned).tolist(), settings.sentences, settings.seed)
    chats = [turns[i].chat for i in rows]
    tokens = [chat.input_ids[chat.response_start : chat.response_end] for chat in chats]
    read = [opened.chat_model.tokenizer.decode(list(one)) for one in tokens]
    return flagged_before_harm(
        [(turns[i].question, answer) for i, answer in zip(rows, read, strict=True)],
        first_flags([scores[i].answer for i in rows], threshold.value, threshold.window),
        [token_starts(opened.chat_model.tokenizer, one) for one in tokens],
        judge=judge,
        questions=[turns[i].question_id for i in rows],
    )


def _adaptive(
    settings: DetectSettings,
    opened: OpenedScorer,
    turns: Sequence[MonitoredTurn],
    misaligned: np.ndarray,
    *,
    threshold: MonitorThreshold,
    bars: Bars,
) -> list[AdaptiveCell]:
    if not settings.adaptive:
        return []
    rows = _drawn(np.flatnonzero(misaligned).tolist(), settings.adaptive_texts, settings.seed)
    seen = opened.fitted_on
    pairs = [pair for pair in load_contrast() if pair.half == "report" and not (seen and seen.has(pair.question))]
    return adaptive_check(
        opened.scorer,
        opened.chat_model,
        [turns[i].chat for i in rows],
        questions=[turns[i].question_id for i in rows],
        pairs=at_most(pairs, settings.n_pairs),
        coefficients=settings.adaptive,
        window=threshold.window,
        threshold=threshold.value,
        n_random=settings.n_random,
        system=opened.card.get("system_prompt"),
        max_batch_tokens=settings.max_batch_tokens,
        bars=bars,
    )


def _drawn(rows: list[int], n: int, seed: int) -> list[int]:
    return rows if n >= len(rows) else sorted(random.Random(seed).sample(rows, n))


def say(result: dict[str, Any]) -> str:
    time, threshold = result["time"], result["threshold"]
    auroc = {"value": result["auroc"], "low": result["auroc_low"], "high": result["auroc_high"]}
    lines = [
        f"{result['texts']}; threshold {threshold['value']:.4g} at a promised {100 * threshold['rate']:g} %",
        rate_words("caught", result["true_positives"]),
        rate_words("false alarms on aligned answers", result["false_positives"]),
        f"AUROC of the largest score within questions {estimate(auroc)}; of the length alone {result['auroc_of_length']:.3f}",
        "flagged within t tokens (all answers): "
        + ", ".join(f"{p['tokens']}: {100 * p['flagged_share']:.1f} %" for p in time["points"]),
        "not flagged after t tokens (Kaplan-Meier, answers that end are censored): "
        + ", ".join(
            f"{p['tokens']}: {p['unflagged']:.3f}" + bounds({"low": p["unflagged_low"], "high": p["unflagged_high"]})
            for p in time["points"]
        ),
        f"median tokens to detection: {_number(time['median_tokens'])} (curve), {_number(time['median_tokens_of_flagged'])} (of those flagged)",
    ]
    if (harm := result["before_harm"]) is not None:
        lines.append(
            f"first judged-harmful sentence: flagged before it {harm['before']}, within {harm['within']}, after {harm['after']}, never "
            f"{harm['never']} of {harm['n']} answers that have one ({harm['n_without']} have none)"
        )
    lines += [_forecast_words(row) for row in result["forecasts"]]
    lines += [f"no forecast: {result['no_forecast']}"] if result["no_forecast"] else []
    lines += [_adaptive_words(row) for row in result["adaptive"]]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "never reached" if value is None else f"{value:g}"


def _forecast_words(row: dict[str, Any]) -> str:
    gain = {"low": row["gain_low"], "high": row["gain_high"]}
    auroc = {"value": row["auroc"], "low": row["auroc_low"], "high": row["auroc_high"]}
    return (
        f"forecast from the prompt ({row['method']}, {row['n_prompts']} prompts of {row['n_questions']} questions): Brier {row['brier']:.3f}, "
        f"of the base rate {row['brier_base']:.3f}, gain {row['gain']:+.3f}{bounds(gain, '+.3f', none=' (no interval)')}; AUROC {estimate(auroc)}; "
        f"misaligned {100 * row['base_rate']:.1f} %"
    )


def _adaptive_words(row: dict[str, Any]) -> str:
    which = row["along"] + ("" if row["seed"] is None else f" {row['seed']}")
    margin = {"low": row["margin_low"], "high": row["margin_high"]}
    return (
        f"steered {which}, layer {row['layer']}, {row['coefficient']:g}: score {row['score_shift']:+.3f}, flagged "
        f"{100 * row['flagged_before']:.0f} -> {100 * row['flagged']:.0f} %, margin {row['margin_shift']:+.3f}{bounds(margin, '+.3f')} nats/token"
    )
