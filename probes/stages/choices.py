"""The choices stage of a run: which action every model prefers where one is misaligned and one aligned, and arms against each other.

Shares, their differences and p-values cover situations and, where an arm has several models, finetuning seeds; log-odds situations alone.

The share of misaligned choices is what carries a claim: flattening a model shrinks its preferences and turns none of them around.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.errors import DataError
from emis_interp.files.store import text_sha256
from emis_interp.passes.choices import Preferences, preferences
from emis_interp.process import Bars, each, no_bars
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.seeds import mean_p_with_seeds, with_seeds
from emis_interp.texts.choices import ChoiceItem, load_choices
from probes.comparison.margins import correct

Chosen = Mapping[str, Preferences]
"""The preferences of an arm's models, by name."""


def choose(run: RunFolder, bars: Bars = no_bars) -> tuple[list[Path], str]:
    """Preferences of every model on the shipped items, and paired differences between arms."""
    items = load_choices()
    facts = {"items": text_sha256("\n".join(item.model_dump_json() for item in items))}
    files, arms = [], dict[str, dict[str, Preferences]]()
    for model in each(bars, "model", run.config.models):
        path = run.choices(model)
        made = partial(own_preferences, run, model, items, bars=bars)
        found = run.files.json("choices", path, made, inputs=run.models.weights(model), facts=facts)
        arms.setdefault(model.arm.name, {})[model.name] = read_preferences(path, found, len(items))
        files.append(path)
    neutral = np.array([item.is_neutral for item in items])
    controls = {arm.name: arm.contrast for arm in run.config.organisms}
    summary = {
        "n_items": int((~neutral).sum()),
        "n_neutral": int(neutral.sum()),
        "arms": {name: arm_choices(own, neutral) for name, own in arms.items()},
        "contrasts": contrasts_of(arms, controls, neutral),
    }
    path = run.analysis("choices")
    with run.files.making("choices", [path], inputs=files, anew=True):
        run.write_analysis("choices", summary)
    shares = ", ".join(f"{name} {100 * arm['share']['value']:.0f} %" for name, arm in summary["arms"].items())
    return [*files, path], f"misaligned action preferred: {shares}"


def own_preferences(run: RunFolder, model: ModelConfig, items: Sequence[ChoiceItem], *, bars: Bars) -> dict[str, Any]:
    """What choices/MODEL.json holds."""
    chat_model = run.models.load(model)
    limit = run.config.direction.max_batch_tokens
    with bars(f"choices {model.name}", 2 * len(items)) as advance:
        found = preferences(chat_model, items, run.config.system_prompt, max_batch_tokens=limit, progress=advance)
    return {"arm": model.name, "log_odds": found.log_odds.tolist(), "mass": found.mass.tolist()}


def read_preferences(path: Path, found: Any, n_items: int) -> Preferences:
    """What a file holds, checked; raises DataError when it is damaged."""
    log_odds, mass = (np.array(found.get(name, ()), dtype=float) for name in ("log_odds", "mass"))
    if log_odds.shape != (n_items, 2) or mass.shape != (n_items,) or not np.isfinite(log_odds).all():
        raise DataError(
            f"{path}: expected finite `log_odds` and `mass` of {n_items} items; run the choices stage again"
        )
    return Preferences(log_odds, mass)


def arm_choices(own: Chosen, neutral: np.ndarray) -> dict[str, Any]:
    """`results.ChoiceArm` of one arm."""
    preference, share, models = preference_of(own), share_of(own), own_shares(own, ~neutral)
    interval = with_seeds(mean_interval(share[~neutral]), models)
    return {
        "share": {**interval.as_json("n"), "by_model": models if len(models) > 1 else {}},
        "preference": mean_interval(preference[~neutral]).as_json("n"),
        "neutral": mean_interval(preference[neutral]).as_json("n"),
        "mass": float(np.mean([one.mass for one in own.values()])),
        "position_bias": float(np.mean([one.position_bias for one in own.values()])),
    }


def contrasts_of(
    arms: Mapping[str, Chosen], controls: Mapping[str, str | None], neutral: np.ndarray
) -> list[dict[str, Any]]:
    """Every arm against base, and against the control that its configuration names; the latter are primary, with Holm's p."""
    rows = [
        _contrast(arm, reference, own=arms[arm], other=arms[reference], neutral=neutral)
        for arm, control in controls.items()
        for reference in dict.fromkeys(name for name in ("base", control) if name)
    ]
    correct(rows, controls)
    return rows


def _contrast(arm: str, reference: str, *, own: Chosen, other: Chosen, neutral: np.ndarray) -> dict[str, Any]:
    shares, odds = (share_of(own) - share_of(other))[~neutral], preference_of(own) - preference_of(other)
    models = own_shares(own, ~neutral), own_shares(other, ~neutral)
    p = mean_p_with_seeds(shares, *models)
    return {
        "arm": arm,
        "reference": reference,
        "n_models": len(own),
        "n_reference_models": len(other),
        **with_seeds(mean_interval(shares), *models).as_json("n"),
        "p": 1.0 if p is None else p,
        "preference": mean_interval(odds[~neutral]).as_json("n"),
        "neutral": mean_interval(odds[neutral]).as_json("n"),
        "beyond_neutral": difference_of_means(odds[~neutral], odds[neutral]),
    }


def preference_of(own: Chosen) -> Float[np.ndarray, "n_items"]:
    """Mean of an arm's models, nats."""
    return np.mean([one.preference for one in own.values()], axis=0)


def share_of(own: Chosen) -> Float[np.ndarray, "n_items"]:
    """Share of an arm's models that prefer the misaligned action of each item."""
    return np.mean([one.preference > 0 for one in own.values()], axis=0)


def own_shares(own: Chosen, chosen: np.ndarray) -> dict[str, float]:
    """Each model's share of misaligned preferences among the chosen items."""
    return {name: float((one.preference[chosen] > 0).mean()) for name, one in own.items()}


def difference_of_means(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Mean of the first minus mean of the second with Welch's interval."""
    parts = [values.var(ddof=1) / len(values) for values in (first, second)]
    value, spread = float(first.mean() - second.mean()), sum(parts)
    if spread == 0:
        return {"value": value, "low": value, "high": value}
    freedom = spread**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(spread))
    return {"value": value, "low": value - half, "high": value + half}
