"""Turns a model and a direction into a model whose weights cannot write along it: ablation without hooks, as a normal checkpoint."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.blocks import writers_of
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.head import untie_head
from emis_interp.passes.hook_points import check_identities
from emis_interp.passes.interventions import orthonormal


def orthogonalized(chat_model: ChatModel, basis: Float[Tensor, "*k d_model"]) -> ChatModel:
    """A copy of the model with the directions removed from the embeddings and from every map that writes to the residual stream.

    Weight orthogonalisation (Arditi et al. 2024, section 2.4); the same function as `ablate` with zero. A head that was tied to the
    embedding only reads the stream: it is untied and keeps its weights. `result.model.save_pretrained(folder)` with
    `result.tokenizer.save_pretrained(folder)` is an ordinary checkpoint.

    Raises:
        ModelError: an adapter that is not merged; a family that norms what it adds (Gemma 2 and 3), where no change of weights is
            equivalent, or scales it; or blocks of a layout that is not known.
    """
    if isinstance(chat_model.model, PeftModel):
        raise ModelError(
            f"{chat_model.name}: merge the adapter first (load_model(..., merge=True)); its weights are apart"
        )
    try:
        writers = writers_of(chat_model.layers[0])
    except ModelError as error:
        raise ModelError(f"{chat_model.name}: {error}") from None
    check_identities(chat_model)  # a family may scale what it adds
    if basis.shape[-1] != chat_model.d_model:
        raise ModelError(f"direction has d_model {basis.shape[-1]}, {chat_model.name} has {chat_model.d_model}")
    model: Any = copy.deepcopy(chat_model.model)
    untie_head(model)
    result = ChatModel(model, chat_model.tokenizer, chat_model.name)
    rows = orthonormal(basis)
    embeddings = [module for module in result.body.children() if isinstance(module, torch.nn.Embedding)]
    with torch.no_grad():
        for embedding in embeddings:  # tokens, and learned positions where there are any
            embedding.weight.copy_(_without(embedding.weight, rows))
        for block in result.layers:
            for path in writers:
                writer: Any = block.get_submodule(path)
                outputs_last = type(writer).__name__ == "Conv1D"  # GPT-2 keeps [d_in, d_model]
                weight = writer.weight if outputs_last else writer.weight.T
                cleared = _without(weight, rows)
                writer.weight.copy_(cleared if outputs_last else cleared.T)
                if writer.bias is not None:
                    writer.bias.copy_(_without(writer.bias, rows))
    return result


def _without(values: Float[Tensor, "... d_model"], rows: Float[Tensor, "k d_model"]) -> Float[Tensor, "... d_model"]:
    exact, basis = values.double(), rows.to(values.device)
    return (exact - (exact @ basis.T) @ basis).to(values.dtype)
