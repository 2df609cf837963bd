"""How others would capture the same texts: the bare decoder body, nnsight, hidden states and TransformerLens, pooled outside."""

from collections.abc import Callable, Sequence
from typing import Any

import nnsight
import torch
from torch import Tensor

from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.checkpoint import resolve
from emis_interp.passes.batching import Batch, length_batches, pad


def run_body(chat_model: ChatModel, chats: Sequence[EncodedChat], max_batch_tokens: int = 1024) -> None:
    """What the hardware and transformers allow: our batches through the decoder body."""
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id)
        with torch.inference_mode():
            chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False)


def peer_batches(chats: Sequence[EncodedChat], n_rows: int) -> list[list[int]]:
    """Texts in the order of the file, `n_rows` at a time; with 0, our own batches."""
    if n_rows == 0:
        return length_batches([len(chat) for chat in chats], 1024)
    return [list(range(first, min(first + n_rows, len(chats)))) for first in range(0, len(chats), n_rows)]


def n_padded(chats: Sequence[EncodedChat], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that the model computes, padding included."""
    return sum(len(rows) * max(len(chats[i]) for i in rows) for rows in batches)


def pooled_outside(
    chats: Sequence[EncodedChat], chat_model: ChatModel, n_rows: int, *, states: Callable[[Batch], Sequence[Tensor]]
) -> Tensor:
    """Pools what `states` returns for a batch (one tensor for each layer) over the answers."""
    pooled: dict[int, Tensor] = {}
    for rows in peer_batches(chats, n_rows):
        layers = states(pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id))
        for row, i in enumerate(rows):
            span = slice(chats[i].response_start, chats[i].response_end)
            pooled[i] = torch.stack([x[row, span].mean(0) for x in layers])
    return torch.stack([pooled[i] for i in range(len(chats))])


def nnsight_states(chat_model: ChatModel) -> Callable[[Batch], Sequence[Tensor]]:
    traced: Any = nnsight.NNsight(chat_model.model)

    def states(batch: Batch) -> Sequence[Tensor]:
        inputs = batch.model_inputs(chat_model.device)
        with torch.no_grad():
            with traced.trace(**inputs):
                saved = nnsight.save([])
                for block in traced.model.layers:
                    saved.append(block.output)
        return [output[0] if isinstance(output, tuple) else output for output in saved]

    return states


def hidden_states(chat_model: ChatModel) -> Callable[[Batch], Sequence[Tensor]]:
    def states(batch: Batch) -> Sequence[Tensor]:
        with torch.no_grad():
            output = chat_model.model(**batch.model_inputs(chat_model.device), output_hidden_states=True)
        return output.hidden_states[1:]

    return states


def lens_states(name: str, chat_model: ChatModel) -> Callable[[Batch], Sequence[Tensor]]:
    """TransformerLens' bridge around the same weights."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(resolve(name), dtype=torch.float32, device=str(chat_model.device))
    names = [f"blocks.{layer}.hook_out" for layer in range(chat_model.n_layers)]

    def states(batch: Batch) -> Sequence[Tensor]:
        with torch.no_grad():
            ids, mask = (tensor.to(chat_model.device) for tensor in (batch.input_ids, batch.attention_mask))
            _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names)
        return [cache[name] for name in names]

    return states
