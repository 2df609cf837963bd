"""Turns a model's `config.json` into its sizes: parameters, arithmetic for a token, bytes; the weights are not needed."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ModelError, printable
from emis_interp.files.store import read_object
from emis_interp.models.checkpoint import check_config, resolve
from emis_interp.models.tiny import TINY_NAME, tiny_model

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        n_parameters: weights, tied ones once.
        n_linear: weights of the linear maps in the decoder blocks, each of which is multiplied and added once for a token.
        n_head: of the language-model head.
        n_cached: numbers that the key-value cache keeps for a token.
        lora: module name -> (inputs + outputs) of the linear maps of one name, summed over blocks.
    """

    n_parameters: int
    n_linear: int
    n_head: int
    n_layers: int
    d_model: int
    vocab: int
    n_cached: int
    lora: dict[str, int]

    @property
    def flops_read(self) -> float:
        """Of one token through the decoder body: a multiplication and an addition for each weight. Attention to earlier tokens, below a
        tenth at a few hundred tokens, is not counted."""
        return 2 * self.n_linear

    @property
    def flops_scored(self) -> float:
        """Of the logits of one position."""
        return 2 * self.n_head

    def flops_trained(self, config: TrainingConfig) -> float:
        """Of one token: a forward pass, the gradient of the activations, for `method: full` that of the weights, and the forward pass
        again with gradient checkpointing. Adapters, a few percent, are not counted."""
        return self.flops_read * (2 + (config.method == "full") + config.gradient_checkpointing)

    def n_trained(self, config: TrainingConfig) -> int:
        """Weights that training changes."""
        if config.method == "full":
            return self.n_parameters
        wanted = (
            self.lora
            if config.target_modules == "all-linear"
            else {m: self.lora[m] for m in config.target_modules if m in self.lora}
        )
        share = 1 if config.layers is None else len(config.layers) / self.n_layers
        return round(config.lora_rank * sum(wanted.values()) * share)


def shape_of(name: str, config_file: Path | None = None) -> ModelShape:
    """The sizes of a model by name, or of what a `config.json` describes.

    Raises:
        ModelError: a model that is not here, with what to give instead; a file that is no configuration.
    """
    if name == TINY_NAME and config_file is None:
        return _sizes(tiny_model()[0])
    try:
        path = config_file or Path(resolve(name)) / "config.json"
    except ModelError as error:
        raise ModelError(f"{error}; for a plan, its config.json is enough: --model-config FILE") from None
    stored = read_object(path)
    check_config(stored, path)
    kind = stored["model_type"]
    try:
        config = AutoConfig.for_model(**{**stored, "model_type": kind})
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception as error:  # each architecture checks its settings in its own way
        said = " ".join(str(error).split())
        raise ModelError(
            f"{path}: no model can be made of it ({type(error).__name__}: {printable(said, 160)})"
        ) from None
    return _sizes(model)


def _sizes(model: Any) -> ModelShape:
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    lora: dict[str, int] = {}
    n_linear = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            n_linear += module.weight.numel()
            short = name.rpartition(".")[2]
            lora[short] = lora.get(short, 0) + module.in_features + module.out_features
    n_heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    n_keys = getattr(config, "num_key_value_heads", None) or n_heads
    return ModelShape(
        n_parameters=sum(weights.numel() for weights in model.parameters()),
        n_linear=n_linear,
        n_head=head.weight.numel(),
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        vocab=head.weight.shape[0],
        n_cached=2 * config.num_hidden_layers * n_keys * width,
        lora=lora,
    )
