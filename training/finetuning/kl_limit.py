"""Scales a trained adapter down until the organism answers harmless prompts about as base does, so that arms are compared at one cost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import mean_kl, next_token_logprobs
from emis_interp.records import Record
from emis_interp.texts.harmless import harmless_prompts

HALVINGS = 8
"""Steps of the bisection: the factor is known to 1/256."""


class KlLimited(Record):
    """What was done to an adapter.

    Attributes:
        limit: nats.
        factor: by which the update was multiplied; 1 where its KL is within the limit as trained.
        kl, kl_as_trained: mean KL(base || organism) of the token after the harmless prompts, nats.
        n_prompts: of these prompts, on which the factor was chosen: the check stage, which reads the same ones, repeats this figure.
    """

    limit: float
    factor: float
    kl: float
    kl_as_trained: float
    n_prompts: int


def limit_kl(chat_model: ChatModel, limit: float, system: str | None) -> KlLimited:
    """Multiply the `lora_B` of a PEFT model, in place, by the largest factor up to 1 at which the KL is at most `limit`.

    The same update, shorter: another learning rate or fewer steps would give another one. Found by bisection, which takes it that KL
    rises with the factor; whatever it finds is within the limit.

    Args:
        limit: nats, above 0.
        system: the run's system prompt policy.
    """
    prompts = [encode_prompt(chat_model.tokenizer, text, system) for text in harmless_prompts()]
    ups = [parameter for name, parameter in chat_model.model.named_parameters() if "lora_B" in name]
    trained = [up.detach().clone() for up in ups]
    with _evaluating(chat_model):
        with chat_model.model.disable_adapter():
            plain = next_token_logprobs(chat_model, prompts)

        def kl_at(factor: float) -> float:
            _write(ups, trained, factor)
            return mean_kl(plain, next_token_logprobs(chat_model, prompts))

        as_trained = found = kl_at(1.0)
        low, high = (1.0, 1.0) if as_trained <= limit else (0.0, 1.0)
        for _ in range(HALVINGS if low < high else 0):
            middle = (low + high) / 2
            kl = kl_at(middle)
            if kl <= limit:
                low, found = middle, kl
            else:
                high = middle
    _write(ups, trained, low)
    return KlLimited(
        limit=limit, factor=low, kl=found if low else 0.0, kl_as_trained=as_trained, n_prompts=len(prompts)
    )


def _write(ups: list[Tensor], trained: list[Tensor], factor: float) -> None:
    with torch.no_grad():
        for up, weight in zip(ups, trained, strict=True):
            up.copy_(factor * weight)


@contextmanager
def _evaluating(chat_model: ChatModel) -> Iterator[None]:
    was_training = chat_model.model.training
    chat_model.model.eval()
    try:
        yield
    finally:
        chat_model.model.train(was_training)
