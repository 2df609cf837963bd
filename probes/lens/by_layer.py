"""Turns residuals at every layer into what the lens reads there: the margin of the answers, and the tokens that a vector writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.passes.capture import capture_batches, keep_tokens
from emis_interp.passes.lens import direction_logits, extreme_tokens, lens_logits
from emis_interp.stats.permutation import null_p


def chosen_layers(chat_model: ChatModel, layers: Sequence[int] | None) -> list[int]:
    """The layers asked for, or every third and the last.

    Raises:
        ModelError: a layer that the model does not have.
    """
    last = chat_model.n_layers - 1
    return chat_model.check_layers(list(layers)) if layers else sorted({*range(0, last, 3), last})


def lens_logprobs(
    chat_model: ChatModel, chats: Sequence[EncodedChat], layers: Sequence[int], *, max_batch_tokens: int = 1024
) -> tuple[Float[np.ndarray, "n_layers n_texts"], Float[Tensor, "n_layers d_model"]]:
    """Mean log-probability per answer token of each text as the lens reads it at each layer, nats, and the mean residual of those tokens
    (each text with the same weight).

    Raises:
        ModelError: a log-probability that is not finite, with its text and layer.
    """
    values = np.empty((len(layers), len(chats)))
    means = torch.zeros(len(layers), chat_model.d_model, dtype=torch.float64)

    def before_answer(chat: EncodedChat) -> range:
        return range(chat.response_start - 1, chat.response_end - 1)

    runs = capture_batches(
        chat_model,
        chats,
        layers,
        position=before_answer,
        reduce_for=lambda counts: keep_tokens,
        max_batch_tokens=max_batch_tokens,
    )
    for rows, counts, found in runs:
        for place, tokens in enumerate(found):
            for i, residuals in zip(rows, tokens.split(counts), strict=True):
                chat = chats[i]
                targets = torch.tensor(chat.input_ids[chat.response_start : chat.response_end], device=residuals.device)
                logits = lens_logits(chat_model, residuals)
                exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
                values[place, i] = -float(torch.nn.functional.cross_entropy(exact, targets))
                check_rows(
                    chat_model,
                    values[place, i : i + 1],
                    lambda _, chat=chat: chat.input_ids,
                    rows=[i],
                    what=f"the lens' log-probability at layer {layers[place]}",
                )
                means[place] += residuals.double().mean(0).cpu() / len(chats)
    return values, means


def token_row(
    chat_model: ChatModel,
    vector: Float[Tensor, "d_model"],
    n: int,
    *,
    controls: dict[str, Float[Tensor, "n d_model"]] | None = None,
) -> dict[str, Any]:
    """The tokens that a vector makes likelier and less likely at a frozen final norm, and how far the first stands out.

    `extremity` is the largest logit in standard deviations over the vocabulary; any vector has top tokens, so that this number, beside that
    of control directions, says whether they mean anything.
    """
    try:
        logits = direction_logits(chat_model, vector)
    except ModelError as error:
        return {"no_tokens": str(error)}
    top, bottom = extreme_tokens(chat_model.tokenizer, logits, n)
    value = _extremity(logits, len(chat_model.tokenizer))
    beside = {}
    for kind, vectors in (controls or {}).items():
        null = [_extremity(row, len(chat_model.tokenizer)) for row in direction_logits(chat_model, vectors)]
        own = null_p(null, value)
        beside[kind] = {"mean": float(np.mean(null)), "low": min(null), "high": max(null), **own.as_json()}
    return {"top_tokens": top, "bottom_tokens": bottom, "extremity": {"value": value, "controls": beside}}


def _extremity(logits: Float[Tensor, "vocab"], n_tokens: int) -> float:
    known = logits[:n_tokens].float()
    return float((known - known.mean()).abs().max() / known.std())
