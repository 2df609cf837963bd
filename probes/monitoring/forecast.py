"""Turns the score of the last prompt token into a probability that the answer will be misaligned, tested on questions of its own.

Two calibrators (scikit-learn): Platt's logistic curve of the score (Platt 1999), and an isotonic one (Zadrozny and Elkan 2002). The
forecast knows the prompt and the model that reads it, and nothing of the answer; where all answers are of one prompt it is one number,
and what it is worth is known over prompts, not answers.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from emis_interp.errors import DataError
from emis_interp.probe_results import ForecastBin, PromptForecast
from emis_interp.stats.jackknife import answers_mean, between, jackknife_interval
from emis_interp.stats.proportions import clopper_pearson

Values = Float[np.ndarray, " answer"]
Labels = Bool[np.ndarray, " answer"]
Method = Literal["platt", "isotonic"]
METHODS: tuple[Method, ...] = ("platt", "isotonic")
FEWEST_QUESTIONS = 3
WEAK = 1e6
"""Inverse penalty of Platt's curve: as good as none, but a separable calibration set still gives finite numbers."""


def calibrator(scores: Values, misaligned: Labels, method: Method) -> Callable[[Values], Values]:
    """A function from scores to probabilities.

    Raises:
        DataError: one class alone.
    """
    if misaligned.all() or not misaligned.any():
        raise DataError(
            "the calibration questions have answers of one class alone; a forecast needs misaligned and aligned ones"
        )
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, misaligned.astype(float))
        return lambda values: np.asarray(curve.predict(values), dtype=float)
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    model = LogisticRegression(C=WEAK, max_iter=500).fit(((scores - centre) / spread)[:, None], misaligned)
    return lambda values: np.asarray(model.predict_proba(((values - centre) / spread)[:, None])[:, 1], dtype=float)


def prompt_forecast(
    scores: Values,
    misaligned: Labels,
    questions: Sequence[str],
    *,
    prompts: Sequence[str],
    method: Method = "platt",
    n_bins: int = 10,
) -> PromptForecast:
    """Each question's answers are forecast by a curve that was fitted on the other questions, which are its calibration questions.

    The baseline forecasts the share of misaligned answers among those other questions, for everything.

    Args:
        scores: of the last prompt token, of each answer's prompt.
        prompts: wording of each answer's question, to say how many there are.

    Raises:
        DataError: fewer than three questions, or others than one question are of one class alone.
    """
    names = np.asarray(questions)
    if len(set(questions)) < FEWEST_QUESTIONS:
        raise DataError(
            f"answers to {len(set(questions))} questions; a forecast that is tested on questions of its own takes at least "
            f"{FEWEST_QUESTIONS}"
        )
    probabilities, base = np.empty(len(names)), np.empty(len(names))
    for question in dict.fromkeys(questions):
        held_out = names == question
        curve = calibrator(scores[~held_out], misaligned[~held_out], method)
        probabilities[held_out] = np.clip(curve(scores[held_out]), 0.0, 1.0)
        base[held_out] = misaligned[~held_out].mean()
    errors, errors_base = (probabilities - misaligned) ** 2, (base - misaligned) ** 2
    gain = answers_mean(errors_base - errors, questions)

    def auroc(keep: Bool[np.ndarray, " answer"]) -> float | None:
        both = 0 < misaligned[keep].sum() < keep.sum()
        return float(roc_auc_score(misaligned[keep], probabilities[keep])) if both else None

    ranked = jackknife_interval(auroc, names, between(0, 1))
    return PromptForecast(
        method=method,
        n=len(names),
        n_questions=len(set(questions)),
        n_prompts=len(set(prompts)),
        base_rate=float(misaligned.mean()),
        brier=float(errors.mean()),
        brier_base=float(errors_base.mean()),
        gain=float(gain.value or 0.0),
        gain_low=gain.low,
        gain_high=gain.high,
        auroc=ranked.value,
        auroc_low=ranked.low,
        auroc_high=ranked.high,
        bins=reliability_bins(probabilities, misaligned, n_bins),
    )


def reliability_bins(probabilities: Values, misaligned: Labels, n_bins: int = 10) -> list[ForecastBin]:
    """Bins with about equally many answers, ascending; equal forecasts share a bin. The interval is exact, over answers."""
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, n_bins + 1)[1:-1]))
    place = np.searchsorted(edges, probabilities, side="left")
    bins = []
    for index in np.unique(place):
        rows = place == index
        share = clopper_pearson(int(misaligned[rows].sum()), int(rows.sum()))
        mean = float(probabilities[rows].mean())
        bins.append(ForecastBin(forecast=mean, observed=share.value, low=share.low, high=share.high, n=share.n))
    return bins
