"""Turns a model into what goes wrong, if anything, where its decoder goes on from a key-value cache instead of reading a text in one pass.

Sampling reads prompts padded on the left and then one token at a time; likelihoods read several tokens behind a shared prompt. Families
with a recurrent state may pass over an argument that they do not know (Mamba, RWKV), take every longer pass for the first of a text
(Jamba), read padding into the state (RecurrentGemma) or ask for a cache of their own (MiniMax): the numbers would be those of another text.
"""

import inspect
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import decoder_of, without_adapter
from emis_interp.models.kv_cache import repeat_rows, roomy_cache


class Problems(NamedTuple):
    """Why a decoder cannot be sampled from, and why answers cannot be read behind a shared prompt; None where it can."""

    sampling: str | None = None
    reading: str | None = None


_FOUND: WeakKeyDictionary[nn.Module, Problems] = WeakKeyDictionary()


def problems_of(model: Any) -> Problems:
    """What goes wrong, by six tokens in one pass and in several; found once for a model, before hooks change what it computes."""
    body = decoder_of(without_adapter(model))
    known = _FOUND.get(body)
    if known is None:
        if "past_key_values" not in inspect.signature(type(body).forward).parameters:
            problem = "takes no key-value cache (past_key_values)"
            return Problems(problem, problem)
        if any(part._forward_hooks or part._forward_pre_hooks for part in body.modules()):
            return Problems()
        known = _FOUND[body] = _tried(body, model.config)
    return known


def check_continues(model: Any, name: str, *, reading: bool = False) -> None:
    """Refuse a model that would be sampled from, or answers that would be read, with wrong numbers.

    Args:
        reading: several tokens at once go on from the cache, not one.

    Raises:
        ModelError: with what goes wrong.
    """
    found = problems_of(model)
    problem = found.reading if reading else found.sampling
    if problem is not None:
        kind = type(decoder_of(without_adapter(model))).__name__
        use = "likelihoods and replies cannot be read here" if reading else "it cannot be sampled from here"
        raise ModelError(f"{name}: {kind} {problem}, so that {use}; choose another model")


def _tried(body: Any, config: Any) -> Problems:
    device = next(body.parameters()).device
    ids = torch.arange(3, 9, device=device)[None]
    places = torch.arange(6, device=device)[None]

    def states(**arguments: Any) -> Any:
        with torch.no_grad():
            return body(**arguments)

    def sampled(whole: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A prompt of four tokens and one of two, the second padded; then the next token of each, in the other order."""
        cache: Any = roomy_cache(config)
        mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]], device=device)
        prompts = torch.stack([ids[0, :4], torch.cat([ids[0, :2], ids[0, :2]])])
        before = (mask.cumsum(1) - 1).clamp(min=0)
        first = states(
            input_ids=prompts, attention_mask=mask, position_ids=before, past_key_values=cache, use_cache=True
        )
        order = torch.tensor([1, 0, 1], device=device)
        cache.reorder_cache(order)
        lengths = mask.sum(1)[order]
        rest = states(
            input_ids=ids[0, lengths][:, None],
            attention_mask=torch.cat([mask[order], mask.new_ones(3, 1)], dim=1),
            position_ids=lengths[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        read = first.last_hidden_state[:, -1]
        return [(read, whole[0, mask.sum(1) - 1]), (rest.last_hidden_state[:, -1], whole[0, lengths])]

    def read(whole: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Three tokens, twice, behind a prompt of three."""
        cache = states(input_ids=ids[:, :3], use_cache=True).past_key_values
        repeat_rows(cache, 1, 2)
        rest = states(
            input_ids=ids[:, 3:].repeat(2, 1),
            attention_mask=torch.ones(2, 6, dtype=torch.long, device=device),
            position_ids=places[:, 3:].repeat(2, 1),
            past_key_values=cache,
            use_cache=True,
        )
        return [(rest.last_hidden_state, whole[:, 3:].expand(2, -1, -1))]

    def problem(passes: Any) -> str | None:
        try:
            whole = states(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
            gaps = [float((one - other).abs().max()) for one, other in passes(whole)]
        except Exception as error:  # whatever a family's code raises, it is this use that it does not serve
            line = (str(error).strip().splitlines() or [""])[0][:120]
            return f"does not go on from a key-value cache ({type(error).__name__}: {line})"
        # Rounding differs with the shape of a batch, by more in half precision.
        near = max(1e-3, 32 * torch.finfo(whole.dtype).eps) * float(whole.abs().max())
        if max(gaps) <= near or not whole.isfinite().all():  # what is no number is said where it is read
            return None
        share = max(gaps) / float(whole.abs().max())
        return f"computes other numbers from a key-value cache than in one pass (hidden states differ by {share:.0%} of the largest)"

    return Problems(problem(sampled), problem(read))
