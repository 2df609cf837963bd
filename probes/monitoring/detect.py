"""Turns judged answers and a monitor with its threshold into what it catches, when, and what it forecasts before the model acts."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from emis_interp.directions import FittedOn
from emis_interp.errors import DataError
from emis_interp.files.store import write_sealed
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.models.chat import encode_chat
from emis_interp.probe_results import AdaptiveCell, BeforeHarm, MonitorReport, MonitorThreshold, PromptForecast
from emis_interp.process import Bars, no_bars
from emis_interp.records import LabeledText
from emis_interp.texts.contrast import at_most, load_contrast
from emis_interp.texts.judged import Frame, balanced_texts, read_judged
from probes.monitoring.adaptive import adaptive_check
from probes.monitoring.conformal import flag_rate, maxima_of
from probes.monitoring.detection import detection_time, first_flags
from probes.monitoring.forecast import METHODS, prompt_forecast
from probes.monitoring.opening import OpenedScorer, read_threshold
from probes.monitoring.sentences import SentenceJudge, flagged_before_harm, token_starts
from probes.monitoring.settings import DetectSettings
from probes.monitoring.texts import MonitoredTurn
from probes.monitoring.watching import TextScores, score_chats
from probes.monitoring.words import report_lines


def run(settings: DetectSettings, bars: Bars = no_bars, *, judge: SentenceJudge | None = None) -> dict[str, Any]:
    """Write the report.

    Args:
        judge: scores single sentences, where `settings.sentences` asks for it.

    Raises:
        DataError: the threshold is another scorer's, or no judged answer to a question that the scorer was not fitted on is left.
    """
    opened = OpenedScorer.of(settings)
    threshold = read_threshold(settings.threshold, opened)
    frame = unseen_rows(settings, opened.fitted_on)
    texts = balanced_texts(frame, settings.max_per_class, settings.seed)
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
    forecasts, why = forecasts_of(opened, frame, max_batch_tokens=settings.max_batch_tokens)
    harm = _before_harm(settings, opened, turns, misaligned=misaligned, scores=scores, threshold=threshold, judge=judge)
    report = measured(scores, misaligned, texts, threshold=threshold).model_copy(
        update={
            "forecasts": tuple(forecasts),
            "no_forecast": why,
            "before_harm": harm,
            "adaptive": tuple(
                _adaptive(settings, opened, turns, misaligned=misaligned, threshold=threshold, bars=bars)
            ),
        }
    )
    write_sealed(settings.out, report.model_dump())
    return {"out": str(settings.out), **report.model_dump()}


def unseen_rows(settings: DetectSettings, fitted_on: FittedOn | None) -> Frame:
    """Clearly aligned and misaligned coherent answers to questions that had no part in the scorer.

    Raises:
        DataError: as `read_judged`, none is left, or the scorer does not say what it was fitted on.
    """
    variant = None if settings.variant == "all" else settings.variant
    if fitted_on is None:
        raise DataError(
            f"{settings.direction}: does not say which questions it was fitted on, so nothing may be reported on questions that it "
            "may have seen; fit it again (find_direction.py fit)"
        )
    frame = read_judged(settings.judged, variant, reading=settings.reading())
    frame = frame[[not fitted_on.has(question) for question in frame["question"]]]
    if frame.empty:
        raise DataError(
            f"{settings.judged}: the scorer was fitted on all of its questions; give answers to others, or --fit selection where the "
            "direction holds a fit on half of its questions"
        )
    return frame


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
    opened: OpenedScorer, frame: Frame, *, max_batch_tokens: int
) -> tuple[list[PromptForecast], str | None]:
    """Both calibrators on all clear answers of the table (no draw: their base rate is that of the table), or why there is none.

    A prompt is read once, whatever the number of its answers.
    """
    questions, prompts = frame["question_id"].astype(str).tolist(), frame["question"].tolist()
    unique = list(dict.fromkeys(prompts))
    system, tokenizer = opened.card.get("system_prompt"), opened.chat_model.tokenizer
    chats = [
        encode_chat(tokenizer, prompt, "I", system=system) for prompt in unique
    ]  # what follows the prompt has no part in it
    read = score_chats(opened.scorer, opened.chat_model, chats, max_batch_tokens=max_batch_tokens)
    at = {prompt: float(one.prompt[-1]) for prompt, one in zip(unique, read, strict=True) if one.prompt is not None}
    scores, misaligned = np.array([at[prompt] for prompt in prompts]), frame["misaligned"].to_numpy(dtype=bool)
    try:
        return [prompt_forecast(scores, misaligned, questions, prompts=prompts, method=one) for one in METHODS], None
    except DataError as error:
        return [], str(error)


def _before_harm(
    settings: DetectSettings,
    opened: OpenedScorer,
    turns: Sequence[MonitoredTurn],
    *,
    misaligned: np.ndarray,
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
    *,
    misaligned: np.ndarray,
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
    return "\n".join(report_lines(result))
