"""Turns chosen hidden states into logits."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def head_logits(model: Any, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits of chosen hidden states, with the scaling that some families apply after the head (Gemma 2, Cohere, Granite).

    Computing them only where they are needed saves most of the cost of a large vocabulary.
    """
    logits = model.get_output_embeddings()(hidden)
    config = model.config.get_text_config()
    if getattr(config, "logit_scale", None) is not None:
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None) is not None:
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits
