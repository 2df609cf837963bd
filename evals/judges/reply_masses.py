"""Turns prompts into the exact probability of every reply that a `TokenTrie` counts, with one reading of each prompt.

The nodes of the trie are short continuations that share the prompt's key-value cache. Where attention is ordinary they are all read in
one pass under a mask that shows each node its prompt and its own path; elsewhere each path gets a copy of the cache.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from emis_interp.models.chat_model import ChatModel
from emis_interp.models.continuing import check_continues
from emis_interp.models.head import head_logits
from emis_interp.models.kv_cache import repeat_rows
from emis_interp.passes.batch_rows import batch_rows, one_probe_row
from emis_interp.passes.batching import length_batches, pad
from evals.judges.token_trie import TokenTrie

_NODES_AT_ONCE = 64


def reply_masses(
    chat_model: ChatModel, trie: TokenTrie, prompts: Sequence[Sequence[int]], *, max_batch_tokens: int = 4096
) -> Float[np.ndarray, "n_texts outcome"]:
    """Probability of each outcome of `trie` as the reply to each prompt of token ids, in the order of `prompts`."""
    masses = np.empty((len(prompts), len(trie.outcomes)))
    by_mask = takes_tree_mask(chat_model)
    # A window slides over columns, padding included: such a model reads one prompt at a time.
    for rows in length_batches(
        [len(prompt) + len(trie) for prompt in prompts], max_batch_tokens, None if by_mask else 1
    ):
        with batch_rows(chat_model, rows, len(prompts), noun="prompts"):
            masses[rows] = _masses_of_batch(chat_model, trie, [prompts[i] for i in rows], by_mask=by_mask)
    return masses


def takes_tree_mask(chat_model: ChatModel) -> bool:
    """Whether every layer keeps the whole prompt and honours a mask of ours: no sliding window, no recurrent state, no flash attention."""
    check_continues(chat_model.model, chat_model.name, reading=True)
    with torch.inference_mode(), one_probe_row(chat_model):
        cache = chat_model.body(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=chat_model.device), use_cache=True
        ).past_key_values
    plain = all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None]))
    return plain and chat_model.model.config.get_text_config()._attn_implementation in ("sdpa", "eager")


def _masses_of_batch(
    chat_model: ChatModel, trie: TokenTrie, prompts: Sequence[Sequence[int]], *, by_mask: bool
) -> Float[np.ndarray, "batch outcome"]:
    batch = pad(prompts, chat_model.tokenizer.pad_token_id)
    inputs = batch.model_inputs(chat_model.device)
    with torch.inference_mode():
        first = chat_model.body(**inputs, use_cache=True)
        last = inputs["attention_mask"].sum(1) - 1
        roots = first.last_hidden_state[torch.arange(len(prompts), device=last.device), last]
        if by_mask:
            nodes = _nodes_by_mask(chat_model, trie, inputs["attention_mask"], cache=first.past_key_values)
        else:
            nodes = _nodes_by_rows(chat_model, trie, len(prompts[0]), cache=first.past_key_values)
        hidden = torch.cat([roots[:, None], nodes], dim=1)
        return np.stack([trie.masses(_probabilities(chat_model, trie, row)) for row in hidden])


def _nodes_by_mask(
    chat_model: ChatModel, trie: TokenTrie, prompt_mask: Tensor, *, cache: Any
) -> Float[Tensor, "batch node d_model"]:
    """Hidden states of all nodes but the first in one pass: each sees its prompt and the nodes on its own path."""
    device, dtype = chat_model.device, next(chat_model.model.parameters()).dtype
    n_texts = len(prompt_mask)
    path = torch.from_numpy(trie.ancestors()[1:, 1:]).to(device)
    seen = torch.cat([prompt_mask.bool()[:, None].expand(-1, len(path), -1), path.expand(n_texts, -1, -1)], dim=2)
    additive = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    depths = torch.from_numpy(trie.depths[1:]).to(device)
    return chat_model.body(
        input_ids=torch.from_numpy(trie.token_ids).to(device).expand(n_texts, -1),
        attention_mask=additive[:, None],
        position_ids=prompt_mask.sum(1, keepdim=True) + depths[None] - 1,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def _nodes_by_rows(
    chat_model: ChatModel, trie: TokenTrie, n_prompt: int, *, cache: Any
) -> Float[Tensor, "1 node d_model"]:
    """The same, with a copy of the cache for each path: for models whose layers keep less than the whole prompt."""
    device = chat_model.device
    leaves = sorted(set(range(1, len(trie))) - set(trie.parents.tolist()))
    hidden: dict[int, Tensor] = {}
    for start in range(0, len(leaves), _NODES_AT_ONCE):
        paths = [_path(trie, leaf) for leaf in leaves[start : start + _NODES_AT_ONCE]]
        batch = pad([trie.vocabulary[trie.tokens[path]].tolist() for path in paths], chat_model.tokenizer.pad_token_id)
        inputs = batch.model_inputs(device)
        copied = copy.deepcopy(cache)
        repeat_rows(copied, 1, len(paths))
        prompt_mask = torch.ones(len(paths), n_prompt, dtype=torch.long, device=device)
        with batch_rows(chat_model, [0] * len(paths), 1):  # all are replies to the one prompt of this batch
            states = chat_model.body(
                input_ids=inputs["input_ids"],
                attention_mask=torch.cat([prompt_mask, inputs["attention_mask"]], dim=1),
                position_ids=inputs["position_ids"] + n_prompt,
                past_key_values=copied,
                use_cache=True,
            ).last_hidden_state
        hidden |= {node: states[i, j] for i, path in enumerate(paths) for j, node in enumerate(path)}
    return torch.stack([hidden[node] for node in range(1, len(trie))])[None]


def _probabilities(
    chat_model: ChatModel, trie: TokenTrie, hidden: Float[Tensor, "node d_model"]
) -> Float[np.ndarray, "node needed"]:
    """Next-token probabilities of the needed tokens; normalised in float32, a few nodes at a time to spare memory."""
    needed = torch.from_numpy(trie.vocabulary).to(hidden.device)
    parts = []
    for part in hidden.split(_NODES_AT_ONCE):
        logits = head_logits(chat_model.model, part).float()
        parts.append((logits[:, needed] - logits.logsumexp(-1, keepdim=True)).exp())
    return torch.cat(parts).double().cpu().numpy()


def _path(trie: TokenTrie, node: int) -> list[int]:
    """Nodes from the first token to `node`."""
    path = []
    while node:
        path.append(node)
        node = int(trie.parents[node])
    return path[::-1]
