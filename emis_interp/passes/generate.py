"""Turns prompts into sampled continuations with a HF model: each prompt read once, one token loop for all, ended rows dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat import check_prompts, end_tokens
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.continuing import check_continues
from emis_interp.models.finite import breakdown
from emis_interp.models.head import head_logits
from emis_interp.models.kv_cache import holes_filled, roomy_cache
from emis_interp.passes.batch_rows import batch_rows, row_kinds
from emis_interp.passes.batching import pad


@dataclass(frozen=True)
class Continuation:
    """Sampled tokens without the one that ended them; `finish` is `length` when the token limit did."""

    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]


def generate(
    chat_model: ChatModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float,
) -> list[Continuation]:
    """One continuation for each prompt; temperature 0 is greedy.

    Equal prompts are read once, unless an intervention in force treats them differently: its row i is prompt i. A row that ends leaves
    the batch at once, so later steps are as small as they can be. Every row has
    its own random numbers (`uniforms`), so an answer does not depend on its neighbours beyond rounding of the logits. What the
    model's generation config says about sampling (top-p, repetition penalty) is not applied: tokens come from the model's own
    distribution.

    Raises:
        DataError: a prompt that leaves no room for its answer in the model's context.
        ModelError: the logits are not finite, or the interventions in force are for another number of rows than there are prompts.
    """
    check_prompts(chat_model, prompts, max_new_tokens)
    n_rows = len(prompts)
    ends = torch.tensor(sorted(end_tokens(chat_model)))
    random = uniforms(seeds, max_new_tokens) if temperature > 0 else None
    written = torch.empty((n_rows, max_new_tokens), dtype=torch.long)
    n_written = [max_new_tokens] * n_rows
    with torch.inference_mode():
        state = _Rows(chat_model, prompts)
        alive = torch.arange(n_rows)
        for step in range(max_new_tokens):
            uniform = None if random is None else random[alive, step]
            try:
                tokens = draw(state.logits(), uniform, temperature).cpu()
            except NotFiniteLogits as error:
                row = int(alive[error.row])
                read = [*prompts[row], *written[row, :step].tolist()]
                raise breakdown(chat_model, read, text=f"prompt {row} after {step} tokens", what="a logit") from None
            written[alive, step] = tokens
            ended = torch.isin(tokens, ends)
            if ended.any():
                for row in alive[ended].tolist():
                    n_written[row] = step
                kept = holes_filled(~ended)
                if len(kept) == 0:
                    break
                alive, tokens = alive[kept], tokens[kept]
                state.keep(kept)
            if step + 1 < max_new_tokens:
                state.read(tokens)
    finish: list[Literal["stop", "length"]] = ["stop" if n < max_new_tokens else "length" for n in n_written]
    rows = written.tolist()
    return [Continuation(tuple(row[:n]), how) for row, n, how in zip(rows, n_written, finish, strict=True)]


class NotFiniteLogits(ModelError):
    """`row`: the first of the batch whose logits are not finite."""

    def __init__(self, row: int) -> None:
        super().__init__(
            "the model's logits are not finite, no token can be drawn; use float32 or bfloat16, or a smaller steering coefficient"
        )
        self.row = row


def draw(
    logits: Float[Tensor, "batch vocab"], uniform: Float[Tensor, "batch"] | None, temperature: float
) -> Int[Tensor, "batch"]:
    """The next token of each row by inverse-CDF sampling with its number in [0, 1) (float64, on the CPU); greedy without numbers."""
    if uniform is None:
        largest = logits.max(dim=-1)
        _check_finite(largest.values)
        return largest.indices
    scaled = logits.float()
    cumulative = torch.softmax(scaled if temperature == 1 else scaled / temperature, dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1].cpu()
    _check_finite(total)
    exact = uniform * total.double()
    # The largest float32 not above the exact threshold: comparing with it gives the same token, without a float64 copy of the table.
    threshold = exact.float()
    threshold = torch.where(threshold > exact, torch.nextafter(threshold, torch.zeros_like(threshold)), threshold)
    threshold = threshold.to(logits.device)
    chosen = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    return chosen.clamp(max=logits.shape[-1] - 1)


def _check_finite(values: Float[Tensor, "row"]) -> None:
    if not values.isfinite().all():
        raise NotFiniteLogits(int((~values.isfinite()).nonzero()[0]))


def uniforms(seeds: Sequence[int], n_steps: int) -> Float[Tensor, "row step"]:
    """Numbers in [0, 1), float64: each row those of its own seed, whatever the other rows are."""
    rows = [torch.rand(n_steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


class _Rows:
    """The model's state for the rows still being written: last hidden states, key-value cache, mask, positions, and which prompts."""

    def __init__(self, chat_model: ChatModel, prompts: Sequence[Sequence[int]]) -> None:
        check_continues(chat_model.model, chat_model.name)
        keys = list(zip(map(tuple, prompts), row_kinds(chat_model, len(prompts), "prompts"), strict=True))
        first: dict[tuple[tuple[int, ...], bytes], int] = {}
        for row, key in enumerate(keys):
            first.setdefault(key, row)
        number = {key: i for i, key in enumerate(first)}
        unique = pad([prompt for prompt, _ in first], chat_model.tokenizer.pad_token_id, side="left")
        inputs = unique.model_inputs(chat_model.device)
        self._chat_model, self._n_prompts = chat_model, len(prompts)
        self._rows = torch.tensor(list(first.values()))
        self._cache: Any = roomy_cache(chat_model.model.config)
        self._mask = inputs["attention_mask"]
        self._position = inputs["position_ids"][:, -1]
        begun = torch.tensor([number[key] for key in keys])
        self._forward(inputs["input_ids"], inputs["position_ids"], sharing=begun)
        self.keep(begun)
        self._rows = torch.arange(len(prompts))

    def logits(self) -> Float[Tensor, "row vocab"]:
        return head_logits(self._chat_model.model, self._hidden)

    def keep(self, rows: Int[Tensor, "kept"]) -> None:
        self._cache.reorder_cache(rows)
        self._rows = self._rows[rows]
        self._mask, self._position, self._hidden = self._mask[rows], self._position[rows], self._hidden[rows]

    def read(self, tokens: Int[Tensor, "row"]) -> None:
        """Append one token to each row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._position = self._position + 1
        self._forward(tokens[:, None].to(self._mask.device), self._position[:, None])

    def _forward(
        self,
        input_ids: Int[Tensor, "row position"],
        position_ids: Int[Tensor, "row position"],
        sharing: Int[Tensor, "n_texts"] | None = None,
    ) -> None:
        with batch_rows(self._chat_model, self._rows, self._n_prompts, noun="prompts", sharing=sharing):
            output = self._chat_model.body(
                input_ids=input_ids,
                attention_mask=self._mask,
                position_ids=position_ids,
                past_key_values=self._cache,
                use_cache=True,
            )
        self._hidden = output.last_hidden_state[:, -1]
