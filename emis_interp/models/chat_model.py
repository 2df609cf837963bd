"""Turns a causal language model and its tokenizer into one object that knows where the decoder layers are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from emis_interp.errors import ModelError
from emis_interp.models.gguf_file import DEQUANTISED_FROM


@dataclass(frozen=True)
class ChatModel:
    """A causal language model in evaluation mode with its tokenizer.

    Attributes:
        model: the HF model, or a PeftModel around it.
        tokenizer: its fast HF tokenizer, with a chat template and a padding token.
        name: the name it was asked for by; `adapter` the folder of its PEFT adapter, if any.
    """

    model: Any
    tokenizer: Any
    name: str
    adapter: Path | None = None

    @classmethod
    def from_hf(cls, model: Any, tokenizer: Any, *, chat_format: str | None = None) -> "ChatModel":
        """A HF causal language model (or a PeftModel around one) that is there; weights and modules are those of `model`.

        Raises:
            ModelError: as `loading.of_hf_model`: no causal language model, no tokenizer, or one that cannot be used.
        """
        from emis_interp.models.loading import of_hf_model  # which makes ChatModels, and so imports this module

        return of_hf_model(model, tokenizer, chat_format=chat_format)

    @classmethod
    def from_nnsight(cls, lm: Any, tokenizer: Any = None, *, chat_format: str | None = None) -> "ChatModel":
        """The model inside an nnsight wrapper (`TransformersModel`, `LanguageModel`, or a bare `NNsight` with `tokenizer`).

        The modules are the wrapper's own, so what `steer` and `ablate` do acts in `lm.trace(...)` too. Weights that the wrapper has not
        loaded yet are loaded.

        Raises:
            ModelError: no nnsight wrapper, or as `from_hf`.
        """
        inside = getattr(lm, "_module", None)
        if not isinstance(inside, torch.nn.Module):
            raise ModelError(
                f"expected an nnsight model, found {type(lm).__name__}; for a HF model call ChatModel.from_hf(model, tokenizer)"
            )
        if not getattr(lm, "dispatched", True):
            lm.dispatch()
        own = tokenizer if tokenizer is not None else getattr(lm, "tokenizer", None)
        return cls.from_hf(lm._module, own, chat_format=chat_format)

    @property
    def body(self) -> Any:
        """The decoder without its language-model head (adapter layers included)."""
        return decoder_of(without_adapter(self.model))

    @property
    def layers_name(self) -> str:
        """Name of the list of decoder blocks inside `body` (`layers` in Llama, `h` in GPT-2)."""
        name = _blocks_name(self.body, self.n_layers)
        if name is not None:
            return name
        raise ModelError(f"{self.name}: no list of {self.n_layers} decoder blocks found in {type(self.body).__name__}")

    @property
    def layers(self) -> torch.nn.ModuleList:
        return getattr(self.body, self.layers_name)

    @property
    def n_layers(self) -> int:
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def d_model(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        """Name of the weights' dtype, such as `float32`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def quantisation(self) -> str | None:
        """What the weights were rounded to before they came here (`Q4_K_M` of a GGUF, `bitsandbytes`); None where no file says so."""
        config = self.model.config
        stated = getattr(config, "quantization_config", None)
        method = stated.get("quant_method") if isinstance(stated, dict) else getattr(stated, "quant_method", None)
        return getattr(config, DEQUANTISED_FROM, None) or (
            None if method is None else str(getattr(method, "value", method))
        )

    def check_layers(self, layers: list[int]) -> list[int]:
        """The same layers, or a ModelError when one is outside 0..n_layers-1."""
        for layer in layers:
            if not 0 <= layer < self.n_layers:
                raise ModelError(f"layer {layer} asked for, {self.name} has {self.n_layers} (0-{self.n_layers - 1})")
        return layers


def without_adapter(model: Any) -> Any:
    """The HF model inside a PeftModel (its adapter layers in place), or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def decoder_of(model: Any) -> Any:
    """The decoder of a HF causal language model: what transformers names so, if it holds the blocks, else the part that holds them.

    transformers goes by the names of attributes, and is misled by a linear map called `decoder` (ModernBERT) and by Llama 4.
    """
    named = model.get_decoder()
    n_layers = model.config.get_text_config().num_hidden_layers
    if named is not model and _holds_blocks(named, n_layers):
        return named
    inside = (part for part in model.modules() if part is not model)
    return next((part for part in inside if _blocks_name(part, n_layers) is not None), named)


def _holds_blocks(module: torch.nn.Module, n_layers: int) -> bool:
    return any(_blocks_name(part, n_layers) is not None for part in module.modules())


def _blocks_name(module: torch.nn.Module, n_layers: int) -> str | None:
    children = module._modules.items()
    return next(
        (name for name, child in children if isinstance(child, torch.nn.ModuleList) and len(child) == n_layers), None
    )
