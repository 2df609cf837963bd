"""Turns a model and a direction into a model whose weights cannot write along it: ablation without hooks, as a normal checkpoint."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.head import untie_head
from emis_interp.passes.interventions import orthonormal

# By type of block: the linear maps inside it whose output is added to the residual stream as it is.
WRITERS = {
    "LlamaDecoderLayer": ("self_attn.o_proj", "mlp.down_proj"),
    "MistralDecoderLayer": ("self_attn.o_proj", "mlp.down_proj"),
    "Qwen2DecoderLayer": ("self_attn.o_proj", "mlp.down_proj"),
    "Qwen3DecoderLayer": ("self_attn.o_proj", "mlp.down_proj"),
    "GPT2Block": ("attn.c_proj", "mlp.c_proj"),
    "GPTNeoXLayer": ("attention.dense", "mlp.dense_4h_to_h"),
}


def orthogonalized(chat_model: ChatModel, basis: Float[Tensor, "*k d_model"]) -> ChatModel:
    """A copy of the model with the directions removed from the embeddings and from every map that writes to the residual stream.

    Weight orthogonalisation (Arditi et al. 2024, section 2.4); the same function as `ablate` with zero. A head that was tied to the
    embedding only reads the stream: it is untied and keeps its weights. `result.model.save_pretrained(folder)` with
    `result.tokenizer.save_pretrained(folder)` is an ordinary checkpoint.

    Raises:
        ModelError: an adapter that is not merged; a family that norms what it adds (Gemma 2 and 3), where no change of weights is
            equivalent; or an unknown family.
    """
    if isinstance(chat_model.model, PeftModel):
        raise ModelError(
            f"{chat_model.name}: merge the adapter first (load_model(..., merge=True)); its weights are apart"
        )
    family = type(chat_model.layers[0]).__name__
    if family.startswith("Gemma"):
        raise ModelError(
            f"{chat_model.name}: {family} norms what attention and MLP give before it is added, and the norm's weights bring the "
            "direction back; use `ablate`, which acts behind the norm"
        )
    if family not in WRITERS:
        raise ModelError(f"{chat_model.name}: writers of {family} are not known (known: {', '.join(sorted(WRITERS))})")
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
            for path in WRITERS[family]:
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
