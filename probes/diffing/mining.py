"""Turns the logits of two models on the same tokens into per-token KL, the tokens that rise most often, and topics of such tokens."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.decomposition import NMF
from torch import Tensor

from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.head import head_logits
from emis_interp.passes.batch_rows import batch_rows
from emis_interp.passes.batching import length_batches, pad
from emis_interp.passes.interventions import prompt_kls
from emis_interp.passes.lens import token_texts
from emis_interp.stats.interval import mean_interval
from probes.diffing.topic import N_TOP

Enter = Callable[[], AbstractContextManager[Any]]
"""Makes the base model another one for as long as its context lasts."""
N_RISING = 10
"""Tokens that are kept at each place: those whose logits rise most."""
N_TOPICS = 5
N_PLACES = 8
CONTEXT = 6
MOST_LOGITS = 2**26
"""Of base that are held while the other models read the same batch, a quarter of a GiB."""


@dataclass
class Mined:
    """What one model's logits have over base's, summed over a stream of texts.

    Attributes:
        times: at how many places a token is among the `N_RISING` that rise most; rises: the sum of its rises there, nats.
        kls: of each text, its mean KL(base || model) per token, nats.
        places: (KL, text, token) with the largest KL.
        kept: ids and rises of each place's tokens, for topics.
    """

    n_known: int
    times: Int[Tensor, "vocab"] = field(init=False)
    rises: Float[Tensor, "vocab"] = field(init=False)
    kls: dict[int, float] = field(default_factory=dict)
    places: list[tuple[float, int, int]] = field(default_factory=list)
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.times = torch.zeros(self.n_known, dtype=torch.long)
        self.rises = torch.zeros(self.n_known, dtype=torch.float64)

    def add(
        self,
        text: int,
        first: int,
        *,
        before: Float[Tensor, "n_tokens vocab"],
        after: Float[Tensor, "n_tokens vocab"],
    ) -> None:
        """Take in the logits of a text's tokens; `first` is the index of the first of them."""
        kls = prompt_kls(before.log_softmax(-1), after.log_softmax(-1))
        self.kls[text] = float(kls.mean())
        for i, value in enumerate(kls.tolist()):
            heapq.heappush(self.places, (value, text, first + i))
        self.places = heapq.nlargest(N_PLACES, self.places)
        # A constant added to all logits of a place is no difference.
        gap = (after - before)[:, : self.n_known]
        found = (gap - gap.mean(-1, keepdim=True)).topk(min(N_RISING, self.n_known), dim=-1)
        values = found.values.clamp(min=0)
        self.times += torch.bincount(found.indices[found.values > 0], minlength=self.n_known)
        self.rises += torch.zeros_like(self.rises).index_add(0, found.indices.flatten(), values.flatten().double())
        self.kept.append((found.indices, values))

    def top(self) -> Int[Tensor, "n_top"]:
        """The tokens that are most often among those that rise most; of equally frequent ones those that rise more."""
        tie = self.rises / (1 + self.rises.max())
        return (self.times.double() + tie).topk(min(N_TOP, self.n_known)).indices

    def topics(self, *, seed: int) -> list[Int[Tensor, "n_top"]]:
        """Top tokens of each component of a non-negative factorisation (Lee and Seung 1999) of places x rises; none without rises."""
        ids, values = (torch.cat([part[side] for part in self.kept]).numpy() for side in (0, 1))
        present, columns = np.unique(ids, return_inverse=True)
        rows = np.repeat(np.arange(len(ids)), ids.shape[1])
        matrix = sparse.csr_matrix((values.ravel().astype(float), (rows, columns.ravel())), (len(ids), len(present)))
        if matrix.nnz == 0 or not matrix.max() > 0:
            return []
        # Topics are read, not compared in their last digits: the loose tolerance ends before the limit of steps.
        n: Any = min(N_TOPICS, len(ids), len(present))  # scikit-learn's stubs want text here
        model = NMF(n, init="nndsvda", random_state=seed, tol=1e-2, max_iter=1000).fit(matrix)
        return [
            torch.from_numpy(present[np.argsort(-part, kind="stable")[:N_TOP]].copy()) for part in model.components_
        ]

    def as_json(self, tokenizer: Any, chats: Sequence[EncodedChat]) -> dict[str, Any]:
        """Mean KL over texts with its interval, and the places where it is largest."""
        largest = [
            {
                "kl": value,
                "before": str(tokenizer.decode(list(chats[text].input_ids[max(0, place - CONTEXT) : place]))),
                "token": token_texts(tokenizer, [chats[text].input_ids[place]])[0],
            }
            for value, text, place in self.places
        ]
        return {"kl": mean_interval(list(self.kls.values())).as_json(), "n_texts": len(self.kls), "largest": largest}


def mine(
    base: ChatModel,
    arms: Mapping[str, Enter],
    chats: Sequence[EncodedChat],
    *,
    max_batch_tokens: int = 2048,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Mined]:
    """Read the texts in base and in every other model, batch by batch; no logits are kept.

    Args:
        chats: read at every answer token (what is said before it).
        advance: called with the number of texts just finished in all models.
    """
    found = {name: Mined(len(base.tokenizer)) for name in arms}
    vocabulary = base.model.config.get_text_config().vocab_size
    for rows in length_batches([len(chat) for chat in chats], min(max_batch_tokens, MOST_LOGITS // vocabulary)):
        plain = dict(_logits(base, chats, rows))
        for name, enter in arms.items():
            with enter():
                for i, after in _logits(base, chats, rows):
                    found[name].add(i, chats[i].response_start, before=plain[i], after=after)
        advance(len(rows))
    return found


def _logits(
    model: ChatModel, chats: Sequence[EncodedChat], rows: Sequence[int]
) -> Iterator[tuple[int, Float[Tensor, "n_tokens vocab"]]]:
    """(text, logits before each of its answer tokens), float32 on the CPU."""
    batch = pad([chats[i].input_ids for i in rows], model.tokenizer.pad_token_id)
    with torch.inference_mode(), batch_rows(model, rows, len(chats), noun="texts"):
        states = model.body(**batch.model_inputs(model.device), use_cache=False).last_hidden_state
        for row, i in enumerate(rows):
            chat = chats[i]
            yield (
                i,
                head_logits(model.model, states[row, chat.response_start - 1 : chat.response_end - 1]).float().cpu(),
            )
