"""Turns texts and models into residuals and latents at every answer token, with means by text; and a folder into its dictionary."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.directions import Direction, unit
from emis_interp.errors import ModelError
from emis_interp.fitting.fitted import LAYERS_FILE
from emis_interp.fitting.folder import tensors_beside
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.passes.capture import capture_response_tokens
from emis_interp.passes.low_rank import adding
from probes.sae.dictionary import Dictionary

AT_ONCE = 1024
"""Tokens that are encoded together."""
READS = "reads"
DIFFERENCES = "organism minus base"
"""What the metadata of a difference SAE holds under `reads` (`difference_sae`)."""


@dataclass(frozen=True)
class ArmReading:
    """What one model has at the answers' tokens, text after text.

    Attributes:
        residuals: `resid_post` of the dictionary's layer; of a difference SAE, the residual minus base's.
        owner: the text of each token.
        text_latents, text_residuals: means over each text's tokens.
        firing_rate: share of all tokens at which each latent is active.
        fvu: share of the residuals' variance that the dictionary leaves unexplained; NaN without any variance.
    """

    residuals: Float[Tensor, "n_tokens d_model"]
    owner: Int[np.ndarray, "n_tokens"]
    text_latents: Float[np.ndarray, "n_texts n_latents"]
    text_residuals: Float[Tensor, "n_texts d_model"]
    firing_rate: Float[np.ndarray, "n_latents"]
    fvu: float


def of_differences(dictionary: Dictionary) -> bool:
    """Whether the dictionary was trained on organism minus base residuals."""
    return getattr(dictionary.sae.cfg.metadata, READS, None) == DIFFERENCES


def read_residuals(
    base: ChatModel,
    updates: Sequence[LoraUpdate],
    chats: Sequence[EncodedChat],
    *,
    layer: int,
    max_batch_tokens: int = 2048,
    progress: Callable[[int], None] | None = None,
) -> tuple[Float[Tensor, "n_tokens d_model"], Int[np.ndarray, "n_tokens"]]:
    """`resid_post` of base plus updates at every answer token, in the model's dtype on the CPU, and the text of each.

    They are kept in memory: tokens x d_model numbers for every model that is read.
    """
    with adding(base, updates):
        found = capture_response_tokens(base, chats, layer, max_batch_tokens=max_batch_tokens, progress=progress)
    owner = np.repeat(np.arange(len(chats)), [len(one) for one in found])
    return torch.cat(found), owner


def read_arm(
    dictionary: Dictionary, residuals: Float[Tensor, "n_tokens d_model"], owner: Int[np.ndarray, "n_tokens"]
) -> ArmReading:
    """What the dictionary reads in a model's residuals; every text has a token."""
    n_texts = int(owner[-1]) + 1
    rows = torch.from_numpy(owner)
    counts = torch.bincount(rows, minlength=n_texts)[:, None].double()
    latent_sums = torch.zeros(n_texts, dictionary.n_latents, dtype=torch.float64)
    residual_sums = torch.zeros(n_texts, dictionary.d_model, dtype=torch.float64)
    fired = torch.zeros(dictionary.n_latents, dtype=torch.float64)
    missed = 0.0
    for part, latents, place in encoded(dictionary, residuals):
        latent_sums.index_add_(0, rows[place], latents.double())
        residual_sums.index_add_(0, rows[place], part.double())
        fired += (latents > 0).sum(0)
        missed += float((part - dictionary.decode(latents).cpu()).double().square().sum())
    mean = residual_sums.sum(0) / len(owner)
    variance = sum(float((part.double() - mean).square().sum()) for part in residuals.float().split(AT_ONCE))
    return ArmReading(
        residuals,
        owner,
        (latent_sums / counts).float().numpy(),
        residual_sums / counts,
        (fired / len(owner)).numpy(),
        missed / variance if variance > 0 else float("nan"),
    )


def encoded(
    dictionary: Dictionary, residuals: Float[Tensor, "n_tokens d_model"]
) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Residuals in float32, their latents and their places, some tokens at a time."""
    for start in range(0, len(residuals), AT_ONCE):
        part = residuals[start : start + AT_ONCE].float()
        yield part, dictionary.encode(part).cpu(), slice(start, start + len(part))


def chosen_latents(
    dictionary: Dictionary, residuals: Float[Tensor, "n_tokens d_model"], chosen: Sequence[int]
) -> Float[Tensor, "n_tokens n_chosen"]:
    """Activations of a few latents at every token."""
    return torch.cat([latents[:, list(chosen)] for _, latents, _ in encoded(dictionary, residuals)])


def direction_at(path: Path, layer: int) -> Direction:
    """A saved direction as it stands at a layer: the fit on all questions, of that layer where the direction's own is another.

    Raises:
        DataError: nothing saved there, or the directions of other layers do not lie beside it. ModelError: no such layer.
    """
    direction = Direction.load(path)
    if direction.layer == layer:
        return direction
    stored = tensors_beside(path, LAYERS_FILE)
    raw = stored["raw"]
    if not 0 <= layer < len(raw):
        raise ModelError(
            f"{path}: directions of {len(raw)} layers, the SAE reads layer {layer}; they are of different models"
        )
    return replace(
        direction,
        vector=unit(raw[layer]),
        layer=layer,
        raw_norm=float(raw[layer].norm()),
        residual_norm=float(stored["residual_norm"][layer]),
        fitted_on=None,
    )
