"""Turns the score of the last prompt token into a probability that the answer will be misaligned, tested on questions of its own.

Two calibrators (scikit-learn): Platt's logistic curve of the score, and an isotonic one. Both are fitted on the calibration questions. The
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
from emis_interp.results import ForecastBin, PromptForecast
from emis_interp.stats.jackknife import answers_mean, between, jackknife_interval
from emis_interp.stats.proportions import clopper_pearson

Values = Float[np.ndarray, " answer"]
Labels = Bool[np.ndarray, " answer"]
Method = Literal["platt", "isotonic"]
METHODS: tuple[Method, ...] = ("platt", "isotonic")
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
    calibration: set[str],
    prompts: Sequence[str],
    method: Method = "platt",
    n_bins: int = 10,
) -> PromptForecast:
    """Fit on the calibration questions, report on the others.

    Args:
        scores: of the last prompt token.
        calibration: ids of the calibration questions; the others have no part in the fit.
        prompts: wording of each answer's question, to say how many there are.

    Raises:
        DataError: a side without answers, or a calibration side of one class.
    """
    names = np.asarray(questions)
    ours = np.isin(names, sorted(calibration))
    if not ours.any() or ours.all():
        raise DataError(
            f"{len(set(questions))} questions, {len(set(names[ours]))} of them for calibration; a forecast needs others to be tested on"
        )
    curve = calibrator(scores[ours], misaligned[ours], method)
    probabilities, truth, ids = np.clip(curve(scores[~ours]), 0.0, 1.0), misaligned[~ours], names[~ours]
    base = float(misaligned[ours].mean())
    errors, errors_base = (probabilities - truth) ** 2, (base - truth) ** 2
    gain = answers_mean(errors_base - errors, ids.tolist())

    def auroc(keep: Bool[np.ndarray, " answer"]) -> float | None:
        both = 0 < truth[keep].sum() < keep.sum()
        return float(roc_auc_score(truth[keep], probabilities[keep])) if both else None

    ranked = jackknife_interval(auroc, ids, between(0, 1))
    return PromptForecast(
        method=method,
        n=len(truth),
        n_questions=len(set(ids.tolist())),
        n_prompts=len({prompt for prompt, other in zip(prompts, ~ours, strict=True) if other}),
        n_calibration=int(ours.sum()),
        n_calibration_questions=len(set(names[ours].tolist())),
        base_rate=float(truth.mean()),
        forecast_rate=base,
        brier=float(errors.mean()),
        brier_base=float(errors_base.mean()),
        gain=float(gain.value or 0.0),
        gain_low=gain.low,
        gain_high=gain.high,
        auroc=ranked.value,
        auroc_low=ranked.low,
        auroc_high=ranked.high,
        bins=reliability_bins(probabilities, truth, n_bins),
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
