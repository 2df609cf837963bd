"""Turns a vector into the words that base gives when it stands in the place of a token which the prompt asks to repeat.

A patchscope (Ghandeharioun et al. 2024, "Patchscopes", arXiv 2401.06102) with fixed token-identity prompts. Base reads the vectors of
every arm, so that what differs comes from the vectors alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.directions import unit
from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import Patch, apply, next_token_logprobs
from probes.diffing.topic import top_tokens

PLACE = "?"
PROMPTS = (
    "cat -> cat\nblue -> blue\nhello -> hello\n? ->",
    "river = river\nseven = seven\nglass = glass\n? =",
    "Say it again. moon: moon. paper: paper. quick: quick. ?:",
)
"""Each asks to repeat what stands where the `?` is."""
VECTOR_SCALES = (0.5, 1.0, 2.0, 4.0)
"""Lengths that a vector is given, in mean residual norms of the layer."""
MOST_ROWS = 32


@dataclass(frozen=True)
class PatchscopeReading:
    """What base says of each vector.

    Attributes:
        tokens: top tokens at the scale that was chosen for the vector.
        scale: that scale; agreement: share of top tokens that two prompts have in common there, mean over pairs of prompts.
    """

    tokens: Int[Tensor, "n n_top"]
    scale: list[float]
    agreement: list[float]


def read_vectors(
    base: ChatModel,
    vectors: Float[Tensor, "n d_model"],
    layer: int,
    *,
    residual_norm: float,
    n_random: int,
    scales: Sequence[float] = VECTOR_SCALES,
) -> PatchscopeReading:
    """Top tokens of every vector by how much likelier it makes them than random vectors of the same length do, mean over prompts.

    The scale is chosen for each vector by itself, random ones too, and by no answer: the one at which the prompts agree most on the top
    tokens; of equal ones the smallest.

    Args:
        vectors: the last `n_random` are isotropic, and what others are set against; each of them against the others.
        residual_norm: of base at the layer, which `scales` multiply.

    Raises:
        ModelError: fewer than two random vectors, or a tokenizer that hides the place to patch.
    """
    if n_random < 2:
        raise ModelError(f"{n_random} random vectors; a patchscope is read against 2 or more")
    towards = residual_norm * unit(vectors)
    n_known = len(base.tokenizer)
    best_agreement = torch.full((len(vectors),), -1.0)
    best_scale = torch.zeros(len(vectors))
    best = torch.zeros(len(vectors), min(20, n_known), dtype=torch.long)
    for scale in sorted(scales):
        gains, tops = torch.zeros(len(vectors), n_known), []
        for prompt in PROMPTS:
            gain = _gain(patched_probabilities(base, prompt, scale * towards, layer=layer)[:, :n_known], n_random)
            gains += gain / len(PROMPTS)
            tops.append(top_tokens(gain, n_known))
        agreement = _agreement(tops)
        better = agreement > best_agreement
        best[better] = top_tokens(gains, n_known)[better]
        best_scale[better], best_agreement[better] = scale, agreement[better]
    return PatchscopeReading(best, best_scale.tolist(), best_agreement.tolist())


def patched_probabilities(
    base: ChatModel, prompt: str, vectors: Float[Tensor, "n d_model"], *, layer: int
) -> Float[Tensor, "n vocab"]:
    """Next-token probabilities behind the prompt with each vector as the output of the layer at the place of the `?`.

    Raises:
        ModelError: the tokenizer has no token there.
    """
    encoded = base.tokenizer(prompt, return_offsets_mapping=True)
    at = prompt.rindex(PLACE)
    places = [i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if start <= at < stop]
    if len(places) != 1:
        raise ModelError(
            f"{base.name}: its tokenizer gives `{PLACE}` {len(places)} tokens, one is patched; it cannot be read here"
        )
    found = []
    for part in vectors.split(MOST_ROWS):
        with apply(base, Patch(layer, (places[0],), part[:, None])):
            found.append(next_token_logprobs(base, [tuple(encoded["input_ids"])] * len(part)).exp())
    return torch.cat(found)


def _gain(probabilities: Float[Tensor, "n vocab"], n_random: int) -> Float[Tensor, "n vocab"]:
    """Probabilities minus the mean of the random vectors', of a random one minus that of the others."""
    drawn = probabilities[-n_random:]
    total = drawn.sum(0)
    others = torch.cat([(total / n_random).expand(len(probabilities) - n_random, -1), (total - drawn) / (n_random - 1)])
    return probabilities - others


def _agreement(tops: Sequence[Int[Tensor, "n n_top"]]) -> Float[Tensor, "n"]:
    shares = []
    for i, one in enumerate(tops):
        for other in tops[i + 1 :]:
            shares.append((one[:, :, None] == other[:, None]).any(-1).float().mean(-1))
    return torch.stack(shares).mean(0)
