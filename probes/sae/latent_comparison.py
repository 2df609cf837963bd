"""Turns two models' readings of the same texts into one comparison: which latents changed, beside nulls and the plain mean difference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction, cosine
from emis_interp.stats.permutation import NullP, null_p
from probes.sae.dictionary import Dictionary
from probes.sae.latent_diff import LatentChanges, latent_changes, question_means, strongest_latents, swap_null
from probes.sae.latent_reading import ArmReading
from probes.sae.latent_sharing import latent_nus
from probes.sae.latent_texts import LatentTexts
from probes.sae.mean_difference import cosines_with, explained, summed_share

EXPLAINING = (1, 5, 10, 20)
"""Numbers of latents whose share of the mean difference is stated."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What a comparison may be told: the false discovery rate, the swaps, how many latents are shown on each side."""

    rate: float = 0.05
    n_permutations: int = 200
    n_top: int = 10
    seed: int = 0


def compare(
    dictionary: Dictionary,
    readings: Mapping[str, ArmReading],
    texts: LatentTexts,
    *,
    first: str,
    second: str,
    settings: ComparisonSettings,
    residual_norm: float,
    direction: Direction | None = None,
    seeds: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """A `LatentComparison`: `first` minus `second`.

    Args:
        readings: by name of the model.
        residual_norm: mean norm of base's residuals, beside which the mean difference is stated.
        direction: the misalignment direction at the dictionary's layer.
        seeds: names of two models that are seeds of one finetune, for their null.
    """
    by_half = {
        half: _differences(readings, texts, half, first=first, second=second) for half in ("selection", "report")
    }
    found = {half: latent_changes(values) for half, values in by_half.items()}
    norms = dictionary.decoder.float().norm(dim=-1).cpu().numpy()
    changes, report = found["selection"], found["report"]
    rising, falling = strongest_latents(changes, norms, settings.n_top, rate=settings.rate)
    null = swap_null(by_half["selection"], settings.n_permutations, rate=settings.rate, seed=settings.seed)
    passed = changes.found(settings.rate)
    own = null_p(null.n_found, int(passed.sum()))
    gaps = None if seeds is None else _seed_changes(readings, texts, seeds)
    firing = np.flatnonzero((readings[first].firing_rate > 0) | (readings[second].firing_rate > 0))
    plain, vector = _plain(readings, texts, first=first, second=second, direction=direction)
    plain["residual_norm"] = residual_norm
    plain["explained"], plain["all_summed"] = _explained(
        dictionary, vector, changes, report=report, firing=firing, settings=settings
    )
    cosines = {"difference": cosines_with(vector.float(), dictionary.decoder.float().cpu(), firing)}
    if direction is not None:
        cosines["direction"] = cosines_with(direction.vector, dictionary.decoder.float().cpu(), firing)
    pair = (first, second)
    nus = latent_nus(dictionary, readings, texts, rising=rising, falling=falling, pair=pair)
    rows = []
    for side, latents in (("rises", rising), ("falls", falling)):
        for j in latents:
            rows.append(
                {
                    "latent": j,
                    "side": side,
                    "passed": bool(passed[j]),
                    "q": float(changes.q[j]),
                    "p_swapped": float(null.p[j]),
                    "selection": _change(changes, j),
                    "report": _change(report, j),
                    "effect": float(report.mean[j] * norms[j]),
                    "decoder_norm": float(norms[j]),
                    **_by_arm(readings, texts, j),
                    **_seed_of(gaps, report, norms, latent=j),
                    **{
                        f"cosine_{name}{end}": float(values[j])
                        for name, both in cosines.items()
                        for end, values in zip(("", "_p"), both, strict=True)
                    },
                    "nu": nus[j],
                }
            )
    up, off = np.sign(changes.mean), (report.low > 0) | (report.high < 0)
    return {
        "first": first,
        "second": second,
        "n_questions": {half: one.n_questions for half, one in found.items()},
        "rate": settings.rate,
        "n_tested": int(changes.tested.sum()),
        "n_rising": int((passed & (changes.mean > 0)).sum()),
        "n_falling": int((passed & (changes.mean < 0)).sum()),
        "n_replicated": int((passed & off & (up == np.sign(report.mean))).sum()),
        "swapped": {
            "n_found": int(passed.sum()),
            "mean": float(null.n_found.mean()),
            "high": float(np.percentile(null.n_found, 95)),
            **own.as_json(),
            "all_swaps": null.all_swaps,
        },
        "seeds": None if gaps is None or seeds is None else _seed_null(gaps, norms, settings.rate, other=seeds[1]),
        "plain": plain,
        "latents": rows,
    }


def _differences(
    readings: Mapping[str, ArmReading], texts: LatentTexts, half: str, *, first: str, second: str
) -> Float[np.ndarray, "n_questions n_latents"]:
    names = texts.names(half)
    one, other = (question_means(readings[name].text_latents, texts.questions, names) for name in (first, second))
    return one - other


def _change(changes: LatentChanges, j: int) -> dict[str, Any]:
    """As an `Estimate`; without limits where the latent did not differ on these questions."""
    limits = {name: float(getattr(changes, name)[j]) if changes.tested[j] else None for name in ("low", "high")}
    return {"value": float(changes.mean[j]), **limits, "n": changes.n_questions}


def _by_arm(readings: Mapping[str, ArmReading], texts: LatentTexts, j: int) -> dict[str, Any]:
    """Mean activation on the report questions, and share of all tokens, in every model."""
    names = texts.names("report")
    means = {
        arm: float(question_means(one.text_latents[:, [j]], texts.questions, names).mean())
        for arm, one in readings.items()
    }
    return {"activation": means, "firing_rate": {arm: float(one.firing_rate[j]) for arm, one in readings.items()}}


def _seed_changes(
    readings: Mapping[str, ArmReading], texts: LatentTexts, seeds: tuple[str, str]
) -> dict[str, LatentChanges]:
    """Of one seed minus the other, on both halves."""
    halves = ("selection", "report")
    return {
        half: latent_changes(_differences(readings, texts, half, first=seeds[0], second=seeds[1])) for half in halves
    }


def _seed_of(
    gaps: Mapping[str, LatentChanges] | None,
    report: LatentChanges,
    norms: Float[np.ndarray, "n_latents"],
    *,
    latent: int,
) -> dict[str, Any]:
    """The latent's own gap between the seeds, and how many of all latents' gaps are as large as its change."""
    if gaps is None:
        return {}
    gap = gaps["report"]
    sizes = np.abs(gap.mean * norms)[gap.tested | report.tested]
    p = null_p(sizes, abs(report.mean[latent] * norms[latent]))
    return {"seed_gap": _change(gap, latent), "seed_p": p.value}


def _seed_null(
    gaps: Mapping[str, LatentChanges], norms: Float[np.ndarray, "n_latents"], rate: float, *, other: str
) -> dict[str, Any]:
    selection, report = gaps["selection"], gaps["report"]
    return {
        "adapter": other,
        "n_found": int(selection.found(rate).sum()),
        "n_tested": int(selection.tested.sum()),
        "largest": float(np.abs(report.mean * norms).max()),
    }


def _plain(
    readings: Mapping[str, ArmReading],
    texts: LatentTexts,
    *,
    first: str,
    second: str,
    direction: Direction | None,
) -> tuple[dict[str, Any], Float[Tensor, "d_model"]]:
    """The mean difference of the residuals, questions weighted alike: its norm and cosines, and itself on the report questions."""
    vectors = {}
    for half in ("selection", "report"):
        names = texts.names(half)
        one, other = (
            question_means(readings[name].text_residuals.numpy(), texts.questions, names).mean(0)
            for name in (first, second)
        )
        vectors[half] = torch.from_numpy(one - other)
    report = vectors["report"]
    return {
        "norm": float(report.norm()),
        "half_cosine": float(cosine(vectors["selection"], report)),
        "direction_cosine": None if direction is None else float(cosine(direction.vector, report)),
    }, report


def _explained(
    dictionary: Dictionary,
    vector: Float[Tensor, "d_model"],
    changes: LatentChanges,
    *,
    report: LatentChanges,
    firing: np.ndarray,
    settings: ComparisonSettings,
) -> tuple[list[dict[str, Any]], float | None]:
    """Shares of the first latents by size of their change on the selection questions, whichever way it goes; and of all latents."""
    if not vector.any():
        return [], None
    decoder = dictionary.decoder.float().cpu()
    sizes = np.where(changes.tested, np.abs(changes.mean) * decoder.norm(dim=-1).numpy(), 0.0)
    order = [int(j) for j in np.argsort(-sizes, kind="stable") if sizes[j] > 0]
    rows = []
    for k in (k for k in EXPLAINING if k <= len(order)):
        one = explained(vector, decoder, chosen=order[:k], change=report.mean, firing=firing, seed=settings.seed)
        random = one.random_span
        null = None if not len(random) else null_range(random, one.p)
        rows.append({"k": k, "span": one.span, "random": null, "summed": one.summed})
    return rows, summed_share(vector, decoder, report.mean)


def null_range(values: Float[np.ndarray, "n_draws"], p: NullP) -> dict[str, Any]:
    """As a `NullRange`."""
    return {
        "mean": float(values.mean()),
        "low": float(values.min()),
        "high": float(values.max()),
        "p": p.value,
        "p_n": p.n,
    }
