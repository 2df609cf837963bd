"""Turns plain texts into the differences of an adapted model's residuals from base's at one layer, and these into tokens.

Narrow finetuning leaves a bias on the first tokens of text that has nothing to do with it, readable at half depth (Minder et al. 2025,
"Narrow finetuning leaves clearly readable traces in activation differences", arXiv 2510.13900).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import unit
from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.passes.capture import capture_batches, keep_tokens
from emis_interp.passes.lens import direction_logits, token_texts
from emis_interp.passes.low_rank import adding
from emis_interp.stats.permutation import null_p
from probes.diffing.topic import Topic, top_tokens

N_SHUFFLED = 20
N_COMPONENTS = 5
MOST_DRAWS = 10
"""Pairs of texts that are drawn for each random difference that is wanted."""


def residuals(
    base: ChatModel,
    chats: Sequence[EncodedChat],
    layer: int,
    *,
    updates: Sequence[LoraUpdate] = (),
    max_batch_tokens: int = 2048,
) -> list[Float[Tensor, "n_tokens d_model"]]:
    """`resid_post` of a layer at every token of each text under updates of the weights, float32 on the CPU."""
    found: dict[int, Tensor] = {}
    with adding(base, updates):
        runs = capture_batches(
            base,
            chats,
            [layer],
            position="all_tokens",
            reduce_for=lambda counts: keep_tokens,
            max_batch_tokens=max_batch_tokens,
        )
        for rows, counts, [tokens] in runs:
            found.update(zip(rows, tokens.float().cpu().split(counts), strict=True))
    return [found[i] for i in range(len(chats))]


def mean_difference_of(differences: Float[Tensor, "n_texts n_tokens d_model"]) -> Float[Tensor, "d_model"]:
    """Mean over texts and all positions but the first: what stands there has nothing before it, and is the sink of attention, whose
    residual is many times as long as any other (Xiao et al. 2024, "Efficient streaming language models with attention sinks").

    Raises:
        DataError: there is no difference.
    """
    mean = differences[:, 1:].mean((0, 1))
    if not float(mean.norm()) > 0:
        raise DataError(
            "the adapter changes no residual at this layer; choose a later --layer, or check that it was trained"
        )
    return mean


def random_differences(
    states: Float[Tensor, "n_texts n_tokens d_model"], n: int, *, seed: int
) -> Float[Tensor, "n d_model"]:
    """Unit vectors along differences of base's residuals at one position of two random texts: where residuals do vary.

    Raises:
        DataError: most texts begin with the same tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(MOST_DRAWS * n):
        if len(found) == n:
            break
        one, other = torch.randint(len(states), (2,), generator=generator).tolist()
        place = int(torch.randint(1, states.shape[1], (1,), generator=generator))
        gap = states[one, place] - states[other, place]
        if float(gap.norm()) > 0:
            found.append(gap)
    if len(found) < n:
        raise DataError(
            f"of {MOST_DRAWS * n} pairs of texts {len(found)} differ in their first tokens; give texts with other beginnings (--texts), "
            "or a larger --n-tokens"
        )
    return unit(torch.stack(found))


def position_rows(
    base: ChatModel,
    arm: str,
    differences: Float[Tensor, "n_texts n_tokens d_model"],
    *,
    states: Float[Tensor, "n_texts n_tokens d_model"],
    topics: Sequence[Topic],
) -> list[dict[str, Any]]:
    """The lens of the mean difference at each position, both signs; norms in residual-stream units, and relative to base's residuals."""
    rows = []
    for place, mean in enumerate(differences.mean(0)):
        row: dict[str, Any] = {
            "arm": arm,
            "position": place,
            "norm": float(mean.norm()),
            "relative_norm": float(mean.norm() / states[:, place].norm(dim=-1).mean()),
            # Of pure noise the mean is one over the square root of the number of texts as long as its parts.
            "consistency": float(mean.norm() / differences[:, place].norm(dim=-1).mean()) if mean.any() else 0.0,
        }
        logits = direction_logits(base, mean)
        for sign, name in ((1, "top"), (-1, "bottom")):
            tokens = top_tokens(sign * logits, len(base.tokenizer))
            row[f"{name}_tokens"] = token_texts(base.tokenizer, tokens.tolist())
            row[f"{name}_counts"] = {topic.name: int(topic.count(tokens)) for topic in topics}
        rows.append(row)
    return rows


def principal(differences: Float[Tensor, "n_texts n_tokens d_model"], *, seed: int) -> tuple[dict[str, Any], Tensor]:
    """Principal components of the differences behind the first position, each position's mean taken out, and the first of them.

    Beside the first share stands that of the same numbers with every dimension shuffled over texts by itself, which leaves the variances
    and takes the common part away (parallel analysis, Horn 1965).

    Returns:
        `mean_share`: of the squared length of the differences in their mean; `shares` of the variance in the first components;
        `shuffled`: the first share's null. The component, a unit vector, points the way of the mean difference.
    """
    behind = differences[:, 1:]
    centred = (behind - behind.mean(0)).flatten(0, 1)
    squares = float(behind.square().sum())
    mean_share = float(behind.mean(0).square().sum() * len(behind)) / squares if squares else 0.0
    _, values, right = torch.linalg.svd(centred, full_matrices=False)
    shares = values.square() / values.square().sum().clamp(min=torch.finfo(values.dtype).tiny)
    generator, null = torch.Generator().manual_seed(seed), []
    for _ in range(N_SHUFFLED):
        order = torch.rand(centred.shape, generator=generator).argsort(0)
        spectrum = torch.linalg.svdvals(centred.gather(0, order)).square()
        null.append(float(spectrum[0] / spectrum.sum().clamp(min=torch.finfo(values.dtype).tiny)))
    first = right[0]
    row = {
        "n": len(centred),
        "mean_share": mean_share,
        "shares": shares[:N_COMPONENTS].tolist(),
        "shuffled": {
            "mean": sum(null) / len(null),
            "low": min(null),
            "high": max(null),
            **null_p(null, float(shares[0])).as_json(),
        },
    }
    return row, first if float(first @ behind.mean((0, 1))) >= 0 else -first
