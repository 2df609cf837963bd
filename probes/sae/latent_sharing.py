"""Turns two models' readings into nu of chosen latents: which are new to a model, and which both have (`latent_scaling`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.sae.dictionary import Dictionary
from probes.sae.latent_reading import ArmReading, chosen_latents, encoded
from probes.sae.latent_scaling import LatentScale, ScalingSide, latent_scales
from probes.sae.latent_texts import LatentTexts, question_of_tokens


def latent_nus(
    dictionary: Dictionary,
    readings: Mapping[str, ArmReading],
    texts: LatentTexts,
    *,
    rising: list[int],
    falling: list[int],
    pair: tuple[str, str],
) -> dict[int, list[dict[str, Any]]]:
    """Two `LatentNu` of every chosen latent on the report questions' tokens: rising ones as the first model of the pair has them, falling
    ones as the second has."""
    owner = readings[pair[0]].owner
    kept = np.flatnonzero(np.asarray(texts.halves)[owner] == "report")
    question = question_of_tokens(texts.questions, owner)[kept]
    chosen, found = [*rising, *falling], {}
    if not chosen:
        return {}
    sides = {name: scaling_side(dictionary, readings[name].residuals[kept], chosen) for name in pair}
    decoder = dictionary.decoder.float().cpu()[chosen]
    for own, other, latents in ((pair[0], pair[1], rising), (pair[1], pair[0], falling)):
        scales = latent_scales(sides[own], sides[other], decoder, question=question)
        for j in latents:
            found[j] = [_nu_row(target, rows[chosen.index(j)]) for target, rows in scales.items()]
    return found


def scaling_side(
    dictionary: Dictionary, residuals: Float[Tensor, "n_tokens d_model"], chosen: list[int]
) -> ScalingSide:
    """One model's error, reconstruction without the bias, and chosen latents at the tokens."""
    bias, made = dictionary.bias.float().cpu(), []
    for part, latents, _ in encoded(dictionary, residuals):
        decoded = dictionary.decode(latents).float().cpu()
        made.append((part - decoded, decoded - bias))
    errors, reconstructions = (torch.cat(column) for column in zip(*made, strict=True))
    return ScalingSide(errors, reconstructions, chosen_latents(dictionary, residuals, chosen))


def _nu_row(target: str, scale: LatentScale) -> dict[str, Any]:
    nu = scale.nu
    return {
        "target": target,
        "beta_own": scale.beta_own,
        "beta_other": scale.beta_other,
        "nu": {**nu.as_json(), "n": nu.n_questions - nu.n_questions_left_out},
        "why_none": nu.method if nu.value is None else None,
    }
