"""Joins labelled texts with what a model has of them (token residuals, log-probabilities), for every fit to come."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.directions import FittedOn
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.process import Bars, no_bars
from probes.classifiers.readings import TokenReadings, read_tokens
from probes.classifiers.texts import ProbeTexts


@dataclass(frozen=True)
class ProbeCorpus:
    """Texts as one model read them.

    Attributes:
        answers: what the model read of each answer, as text: the words that a text baseline is given.
        logprobs: mean log-probability per answer token, nats; None where it was not measured.
    """

    texts: ProbeTexts
    readings: TokenReadings
    answers: tuple[str, ...]
    logprobs: Float[np.ndarray, "n_texts"] | None = None

    def at(self, position: str, layer: int) -> LabeledActivations:
        """All texts at one position and layer."""
        index = self.readings.layers.index(layer)
        x = self.readings.pooled(position)[:, [index]]
        return LabeledActivations(x, self.texts.misaligned, self.texts.questions, self.readings.lengths)

    def questions_of(self, rows: np.ndarray) -> tuple[str, ...]:
        return tuple(self.texts.questions[i] for i in rows)

    def fitted_card(self, rows: np.ndarray) -> dict[str, Any]:
        """What the card of a probe says of the texts that had a part in its weights."""
        fitted_on = FittedOn.of(self.texts.texts[i] for i in rows.tolist())
        return {
            "n_texts": len(rows),
            "fitted_questions": sorted(set(self.questions_of(rows))),
            "fitted_wordings": sorted(fitted_on.wordings),
        }


def read_corpus(
    chat_model: ChatModel,
    texts: ProbeTexts,
    layers: Sequence[int],
    *,
    name: str = "texts",
    system: str | None = None,
    max_tokens: int = 256,
    max_batch_tokens: int = 2048,
    likelihood: bool = False,
    bars: Bars = no_bars,
) -> ProbeCorpus:
    """Read every text once, and a second time for its log-probability where `likelihood` asks for it.

    Raises:
        DataError, ModelError: as `encode_chats` and `read_tokens`.
    """
    pairs = [(text.question, text.answer) for text in texts.texts]
    chats = encode_chats(chat_model.tokenizer, pairs, system, max_tokens=max_tokens)
    with bars(f"read {name}", len(chats)) as advance:
        readings = read_tokens(chat_model, chats, layers, max_batch_tokens=max_batch_tokens, progress=advance)
    logprobs = None
    if likelihood:
        with bars(f"log-probabilities of {name}", len(chats)) as advance:
            logprobs = mean_logprobs(chat_model, chats, max_batch_tokens, progress=advance)
    read = [list(chat.input_ids[chat.response_start : chat.response_end]) for chat in chats]
    answers = tuple(str(chat_model.tokenizer.decode(ids, skip_special_tokens=True)) for ids in read)
    return ProbeCorpus(texts, readings, answers, logprobs)
