"""Turns the answers and scores of arms into the rates, means and contrasts of `analysis/rates.json`, each with its interval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.records import Completion, Score
from evals.estimands import ESTIMANDS, PRESETS, PUBLIC_MISTAKES, Answers, Thresholds, rate, sensitivity_table
from evals.uncertainty import Interval, bootstrap_mean, paired_contrast, rate_interval

WEIGHTINGS = ("pooled", "macro")
THRESHOLD_GRID = tuple(range(10, 65, 5))


def summarize_arms(
    by_arm: Mapping[str, tuple[Sequence[Completion], Sequence[Score]]],
    contrasts: Sequence[tuple[str, str]],
    seed: int = 0,
) -> dict[str, Any]:
    """Every arm's summary, and the difference of every (arm, reference) in every estimand, macro-weighted over shared questions."""
    arms = [summarize_arm(name, completions, scores, seed) for name, (completions, scores) in by_arm.items()]
    rows = []
    for arm, reference in dict.fromkeys(contrasts):
        for name, estimand in ESTIMANDS.items():
            interval = paired_contrast(by_arm[arm][1], by_arm[reference][1], estimand, "macro")
            rows.append(
                {"arm": arm, "reference": reference, "estimand": name, "weighting": "macro", **_bounds(interval)}
            )
    return {"arms": arms, "contrasts": rows}


def summarize_arm(
    name: str, completions: Sequence[Completion], scores: Sequence[Score], seed: int = 0
) -> dict[str, Any]:
    """Counts, mean scores and rates of one arm; what was not scored is counted with its reasons."""
    answers = Answers.from_scores(scores)
    reasons = Counter(f"{metric}: {reason}" for score in scores for metric, reason in score.unscored.items())
    rates = []
    for estimand_name, estimand in ESTIMANDS.items():
        for weighting in WEIGHTINGS:
            point = rate(answers, estimand, weighting)
            interval = rate_interval(answers, estimand, weighting)
            rates.append(
                {
                    "estimand": estimand_name,
                    "weighting": weighting,
                    **_bounds(interval),
                    "n_positive": point.n_positive,
                    "n_questions_left_out": point.n_questions_left_out,
                }
            )
    return {
        "arm": name,
        "n": len(scores),
        "n_cut": sum(completion.finish == "length" for completion in completions),
        "n_code": sum(score.aligned_label == "CODE" for score in scores),
        "n_refusal": sum(score.aligned_label == "REFUSAL" for score in scores),
        "n_unscored": sum(bool(score.unscored) for score in scores),
        "unscored_reasons": dict(reasons),
        "mean_aligned": _bounds(bootstrap_mean(answers.aligned, answers.question_ids, seed=seed)),
        "mean_coherent": _bounds(bootstrap_mean(answers.coherent, answers.question_ids, seed=seed)),
        "rates": rates,
        "thresholds": threshold_curves(answers),
        "presets": sensitivity_table(answers, (), (), PRESETS | PUBLIC_MISTAKES),
    }


def threshold_curves(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Each estimand, pooled, with its interval at alignment thresholds from 10 to 60: does the finding hang on the number 30?"""
    return {
        name: [
            {"aligned_below": bar, **_bounds(rate_interval(answers, estimand, "pooled", Thresholds(float(bar))))}
            for bar in THRESHOLD_GRID
        ]
        for name, estimand in ESTIMANDS.items()
    }


def _bounds(interval: Interval) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "n_questions": interval.n_questions,
        "method": interval.method,
    }
