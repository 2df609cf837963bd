"""Turns a sparse autoencoder of any origin into a `Dictionary`: raw residuals in, latents out, and back into residual units.

A layer is counted as everywhere here: the output (`resid_post`) of decoder block L, 0-based, which TransformerLens and sae-lens name
`blocks.L.hook_resid_post`. Folders are read by `layouts`.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ModelError, shown
from emis_interp.models.chat_model import ChatModel

_HOOK = re.compile(r"blocks\.(\d+)\.(hook_resid_post|hook_resid_pre|hook_out)")
_ADVICE = "give an SAE of the residual stream, or the layer that it reads, as layer="
ROWS_AT_ONCE = 4096
"""Tokens that are encoded together: of 32,000 latents half a gigabyte."""


@dataclass(frozen=True, repr=False)
class Dictionary:
    """A sparse autoencoder as its readers use it.

    Raw residuals go in: a factor by which activations were scaled for training is folded into the weights when the SAE is loaded, and
    one that every token has for itself (`layer_norm`, `constant_norm_rescale`) is applied inside `encode`, so that latents are then in
    units of the token's own norm and only `reconstruct` can undo it.

    Attributes:
        sae: an inference SAE of sae-lens.
        layer: decoder block whose output (`resid_post`) it reads, 0-based, as `Direction.layer`.
        model: name of the model that it was trained on; None where the file does not say.
        card: where it comes from, and what was trained how.
    """

    sae: Any
    layer: int
    model: str | None
    card: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: {self.n_latents} latents of {self.model or 'an unnamed model'} at layer {self.layer} "
            f"({self.d_model} dimensions, {self.sae.cfg.architecture()})"
        )

    @property
    def hook_name(self) -> str:
        """What TransformerLens and sae-lens call the place."""
        return f"blocks.{self.layer}.hook_resid_post"

    @property
    def d_model(self) -> int:
        return self.sae.cfg.d_in

    @property
    def n_latents(self) -> int:
        return self.sae.cfg.d_sae

    @property
    def per_token_scale(self) -> bool:
        """Whether every token is divided by a norm of its own before it is encoded."""
        return self.sae.cfg.normalize_activations in PER_TOKEN

    @property
    def decoder(self) -> Float[Tensor, "n_latents d_model"]:
        """What a unit of each latent adds to the residual: row i times latent i, summed, plus `bias` is the reconstruction.

        Raises:
            ModelError: the SAE scales each token by a norm of its own, so that a row has no fixed length in the residual.
        """
        self._check_fixed_scale()
        return self.sae.W_dec.detach()

    @property
    def bias(self) -> Float[Tensor, "d_model"]:
        """What the reconstruction holds where no latent is active.

        Raises:
            ModelError: as `decoder`.
        """
        self._check_fixed_scale()
        return self.sae.b_dec.detach()

    @torch.no_grad()
    def encode(self, residuals: Float[Tensor, "n_tokens d_model"]) -> Float[Tensor, "n_tokens n_latents"]:
        """Latents of raw residuals, in the SAE's dtype on its device; residual units for those that this project trained.

        Raises:
            ModelError: residuals of another width.
        """
        self._check_width(residuals.shape[-1], "the residuals given")
        flat = residuals.reshape(-1, self.d_model).to(self.sae.device)
        found = [self.sae.encode(rows) for rows in flat.split(ROWS_AT_ONCE)] or [flat.new_zeros(0, self.n_latents)]
        return torch.cat(found).detach().reshape(*residuals.shape[:-1], self.n_latents)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n_tokens n_latents"]) -> Float[Tensor, "n_tokens d_model"]:
        """Residuals of latents, in residual units.

        Raises:
            ModelError: as `decoder`, or another number of latents.
        """
        self._check_fixed_scale()
        if latents.shape[-1] != self.n_latents:
            raise ModelError(
                f"{latents.shape[-1]} latents given, the SAE has {self.n_latents}; they are of different SAEs"
            )
        return self.sae.decode(latents.to(self.sae.W_dec)).detach()

    @torch.no_grad()
    def reconstruct(self, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the SAE makes of raw residuals, in their dtype and on their device.

        Raises:
            ModelError: residuals of another width.
        """
        self._check_width(residuals.shape[-1], "the residuals given")
        flat = residuals.reshape(-1, self.d_model).to(self.sae.device)
        found = [self.sae.decode(self.sae.encode(rows)) for rows in flat.split(ROWS_AT_ONCE)]
        return (torch.cat(found) if found else flat).to(residuals).reshape(residuals.shape)

    def check_model(self, chat_model: ChatModel, *, other_model: bool = False) -> None:
        """Refuse a model that the SAE was not trained on; an adapter on top of it is the same model.

        Args:
            other_model: the name may differ (a merged organism, a renamed folder); width and layer may not.

        Raises:
            ModelError: another width, a layer that the model does not have, or another name.
        """
        self._check_width(chat_model.d_model, chat_model.name)
        if not 0 <= self.layer < chat_model.n_layers:
            raise ModelError(
                f"the SAE reads layer {self.layer}, {chat_model.name} has {chat_model.n_layers} (0-{chat_model.n_layers - 1}); "
                "give the model that it was trained on"
            )
        if not other_model and self.model is not None and plain_name(self.model) != plain_name(chat_model.name):
            raise ModelError(
                f"the SAE was trained on {shown(self.model)}, the model is {shown(chat_model.name)}; give that model, or say that this "
                "one has its residual stream (other_model=True; --other-model)"
            )

    def _check_width(self, width: int, name: str) -> None:
        if width != self.d_model:
            raise ModelError(
                f"the SAE reads residuals of {self.d_model} dimensions, {name}: {width}; give an SAE of this model "
                f"(its card names {shown(self.model)})"
            )

    def _check_fixed_scale(self) -> None:
        if self.per_token_scale:
            raise ModelError(
                f"this SAE scales every token by a norm of its own ({self.sae.cfg.normalize_activations}), so a latent has no fixed size "
                "in the residual; use reconstruct(residuals), or an SAE without that"
            )


PER_TOKEN = ("layer_norm", "constant_norm_rescale")
"""What sae-lens calls normalisations by the token's own norm."""


def as_dictionary(sae: Any, *, layer: int | None = None, scale: float | None = None, source: str) -> Dictionary:
    """An inference SAE of sae-lens, with what it names as its place; the SAE is changed where something is folded into it.

    Args:
        layer: where the SAE names no place that is known here.
        scale: factor by which activations were multiplied before training, of SAEs that say they had one and do not tell it.
        source: for errors and the card.

    Raises:
        ModelError: no place in the residual stream, a transcoder, or a scale that is missing.
    """
    cfg, metadata = sae.cfg, sae.cfg.metadata
    written = metadata.hook_name_out or metadata.hook_name
    if written != metadata.hook_name or getattr(cfg, "d_out", cfg.d_in) != cfg.d_in:
        raise ModelError(
            f"{source}: a transcoder ({metadata.hook_name} -> {written}), which does not reconstruct what it reads; give an SAE"
        )
    if cfg.architecture() == "temporal":
        raise ModelError(f"{source}: a temporal SAE reads whole texts, not tokens; give one that reads tokens")
    if cfg.reshape_activations != "none":
        raise ModelError(f"{source}: reads attention heads ({metadata.hook_name}); {_ADVICE}")
    place = hooked_layer(metadata.hook_name, source) if layer is None else layer
    if cfg.normalize_activations == "expected_average_only_in":
        if scale is None:
            raise ModelError(
                f"{source}: was trained on activations times a factor that is not in the file; give it as scale= (sqrt(d_model) / mean "
                "norm of the tokens), or save it with `.fit()` finished, which folds it in"
            )
        sae.fold_activation_norm_scaling_factor(scale)
    elif scale is not None:
        raise ModelError(
            f"{source}: its activations were not scaled by a factor ({cfg.normalize_activations}); leave scale out"
        )
    elif cfg.normalize_activations == "covariance_whitening":
        raise ModelError(f"{source}: its whitening is not folded into the weights; save it with `.fit()` finished")
    if getattr(cfg, "rescale_acts_by_decoder_norm", False):  # so that rows of the decoder are what latents write
        sae.fold_W_dec_norm()
        cfg.rescale_acts_by_decoder_norm = False
    sae.eval().requires_grad_(False)
    card = {"source": source, "architecture": cfg.architecture(), "hook_name": metadata.hook_name}
    return Dictionary(sae, place, metadata.model_name, card)


def hooked_layer(hook_name: str | None, source: str) -> int:
    """The layer whose output a hook of TransformerLens names; `hook_resid_pre` of a block is the output of the one before.

    Raises:
        ModelError: another place than between two blocks.
    """
    found = _HOOK.fullmatch(hook_name or "")
    if not found:
        name = "names no hook" if hook_name is None else f"reads {shown(hook_name)}"
        raise ModelError(f"{source}: {name}, expected blocks.L.hook_resid_post; {_ADVICE}")
    layer = int(found[1]) - (found[2] == "hook_resid_pre")
    if layer < 0:
        raise ModelError(f"{source}: reads the embedding ({hook_name}), before any layer; {_ADVICE}")
    return layer


def plain_name(name: str) -> str:
    """The last part of a model's name in small letters, by which hub ids, folders and embedded names of one model agree."""
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()
