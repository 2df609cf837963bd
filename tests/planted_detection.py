"""What `probe.py detect` and `probe.py calibrate` write, with numbers that tests know."""

from typing import Any

LENGTHS = (1, 4, 16, 64)


def planted_rate(n_flagged: int, n: int, low: float, high: float, *, source: str) -> dict[str, Any]:
    share = {"value": n_flagged / n, "low": low, "high": high, "n": n, "n_flagged": n_flagged, "source": source}
    return {**share, "n_questions": 3}


def planted_threshold(*held_out: dict[str, Any]) -> dict[str, Any]:
    facts = {"scorer": "/a/machine/probe", "scorer_sha256": "0", "model": "m", "layer": 2, "window": 8, "rate": 0.01}
    facts |= {"value": 6.5, "rank": 298, "n": 300, "n_questions": 300, "source": "advice", "sampled": 0}
    facts |= {"mean_of_maxima": 4.0, "largest_of_maxima": 7.25, "spread": {"mean": 0.01, "low": 0.002, "high": 0.024}}
    return {**facts, "held_out": list(held_out)}


def planted_point(tokens: int, at_risk: int, unflagged: float, share: float) -> dict[str, Any]:
    bounds = (None, None) if unflagged == 1 else (unflagged - 0.1, unflagged + 0.05)
    point = {"tokens": tokens, "at_risk": at_risk, "unflagged": unflagged, "flagged_share": share}
    point |= {"unflagged_low": bounds[0], "unflagged_high": bounds[1]}
    return {**point, "flagged_low": share / 2 if share else None, "flagged_high": 2 * share if share else None}


def planted_forecast(method: str, gain: float, half: float) -> dict[str, Any]:
    bins = [
        {"forecast": 0.12, "observed": 0.11, "low": 0.07, "high": 0.16, "n": 200},
        {"forecast": 0.63, "observed": 0.27, "low": 0.19, "high": 0.36, "n": 100},
    ]
    facts = {"method": method, "n": 300, "n_questions": 3, "n_prompts": 4, "base_rate": 0.16, "brier": 0.13 - gain}
    facts |= {"brier_base": 0.13, "gain": gain, "gain_low": gain - half, "gain_high": gain + half}
    return {**facts, "auroc": 0.58, "auroc_low": 0.41, "auroc_high": 0.73, "bins": bins}


def planted_adaptive(seed: int | None, flagged: float, margin: float) -> dict[str, Any]:
    cell = {"along": "against the scorer" if seed is None else "random", "seed": seed, "layer": 2, "coefficient": 0.1}
    cell |= {"n": 16, "score_shift": -2.0, "score_low": -2.5, "score_high": -1.5, "flagged_before": 0.25}
    cell |= {"flagged": flagged, "n_questions": 3}
    return {**cell, "margin_shift": margin, "margin_low": margin - 0.02, "margin_high": margin + 0.02}


def planted_detection(**changes: Any) -> dict[str, Any]:
    """Caught 40 of 100, false alarms 2 of 100; half of the answers flagged by token 48, were they all so long."""
    curve = ((100, 1.0, 0.0), (98, 0.9, 0.1), (70, 0.7, 0.25), (20, 0.45, 0.4))
    points = [planted_point(tokens, *one) for tokens, one in zip(LENGTHS, curve, strict=True)]
    time = {"n": 100, "n_flagged": 40, "n_questions": 3, "median_tokens": 48.0, "median_tokens_of_flagged": 21.0}
    harm = {"n": 30, "n_without": 5, "n_sentences": 90, "before": 6, "within": 2, "after": 3, "never": 19}
    harm |= {"share": 0.2, "low": 0.08, "high": 0.39}
    return {
        "threshold": planted_threshold(),
        "texts": "100 misaligned and 100 aligned coherent answers to 3 questions",
        "false_positives": planted_rate(2, 100, 0.002, 0.07, source="aligned"),
        "true_positives": planted_rate(40, 100, 0.3, 0.5, source="misaligned"),
        "flagged_by_question": {"bored": [0.5, 0.0], "power": [0.3, 0.04]},
        "time": {**time, "points": points},
        "auroc": 0.84,
        "auroc_low": 0.6,
        "auroc_high": 0.95,
        "auroc_of_length": 0.35,
        "before_harm": harm,
        "forecasts": [planted_forecast("platt", 0.01, 0.004), planted_forecast("isotonic", -0.03, 0.05)],
        "adaptive": [planted_adaptive(None, 0.0, -0.01), planted_adaptive(0, 0.1875, 0.03)],
        **changes,
    }
