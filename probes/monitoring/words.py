"""How the verbs about monitors say their results, in lines."""

from typing import Any

from emis_interp.stats.words import bounds, estimate


def report_lines(result: dict[str, Any]) -> list[str]:
    """A `MonitorReport` as `detect` says it."""
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
        f"median tokens to detection: {_number(time['median_tokens'])} (curve), "
        f"{_number(time['median_tokens_of_flagged'])} (of those flagged)",
    ]
    if (harm := result["before_harm"]) is not None:
        lines.append(
            f"first judged-harmful sentence: flagged before it {harm['before']}, within {harm['within']}, after {harm['after']}, never "
            f"{harm['never']} of {harm['n']} answers that have one ({harm['n_without']} have none)"
        )
    lines += [_forecast_words(row) for row in result["forecasts"]]
    lines += [f"no forecast: {result['no_forecast']}"] if result["no_forecast"] else []
    lines += [_adaptive_words(row) for row in result["adaptive"]]
    return lines


def rate_words(what: str, row: dict[str, Any]) -> str:
    """A share with both of its intervals."""
    by_question = {"low": row["low_by_question"], "high": row["high_by_question"]}
    return (
        f"{what}: {100 * row['value']:.2f} %{bounds(row, '.2f', scale=100)} exact, {row['n_flagged']} of {row['n']} texts; over "
        f"{row['n_questions']} questions{bounds(by_question, '.2f', scale=100, none=' no interval')}"
    )


def _number(value: float | None) -> str:
    return "never reached" if value is None else f"{value:g}"


def _forecast_words(row: dict[str, Any]) -> str:
    gain = {"low": row["gain_low"], "high": row["gain_high"]}
    auroc = {"value": row["auroc"], "low": row["auroc_low"], "high": row["auroc_high"]}
    return (
        f"forecast from the prompt ({row['method']}, {row['n_prompts']} prompts of {row['n_questions']} questions, {row['n']} answers, "
        f"{100 * row['base_rate']:.1f} % misaligned): Brier {row['brier']:.3f}, of the base rate {row['brier_base']:.3f}, gain "
        f"{row['gain']:+.3f}{bounds(gain, '+.3f', none=' (no interval)')}; AUROC {estimate(auroc)}"
    )


def _adaptive_words(row: dict[str, Any]) -> str:
    which = row["along"] + ("" if row["seed"] is None else f" {row['seed']}")
    margin = {"low": row["margin_low"], "high": row["margin_high"]}
    return (
        f"steered {which}, layer {row['layer']}, {row['coefficient']:g}: score {row['score_shift']:+.3f}, flagged "
        f"{100 * row['flagged_before']:.0f} -> {100 * row['flagged']:.0f} %, margin {row['margin_shift']:+.3f}"
        f"{bounds(margin, '+.3f')} nats/token"
    )
