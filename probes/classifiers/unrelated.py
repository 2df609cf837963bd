"""Turns shipped pairs of harmless texts into directions that were learned but have nothing to do with misalignment.

Isotropic vectors are too weak a control: texts hardly vary along them. These lie where texts do vary.
"""

from collections.abc import Sequence
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from emis_interp.files.store import parse_record
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import Progress
from emis_interp.records import LabeledText, Record
from probes.classifiers.readings import TokenReadings, read_tokens


class UnrelatedPair(Record):
    """Two answers to one question that differ in what `contrast` names: of the first kind, and of the second."""

    contrast: str
    pair_id: str
    question: str = Field(min_length=1)
    first: str = Field(min_length=1)
    second: str = Field(min_length=1)


def unrelated_pairs() -> list[UnrelatedPair]:
    """The shipped pairs, in their order."""
    text = (resources.files("probes") / "data" / "unrelated.jsonl").read_text("utf-8")
    return [parse_record(line, UnrelatedPair, f"unrelated.jsonl:{i}") for i, line in enumerate(text.splitlines(), 1)]


def unrelated_texts(pairs: Sequence[UnrelatedPair]) -> list[LabeledText]:
    """First and second answer of every pair, in this order; `misaligned` stands for "second", and the contrast is the question."""
    return [
        LabeledText(question_id=pair.contrast, question=pair.question, answer=answer, misaligned=second)
        for pair in pairs
        for answer, second in ((pair.first, False), (pair.second, True))
    ]


def unrelated_activations(
    readings: TokenReadings, pairs: Sequence[UnrelatedPair], position: str
) -> dict[str, LabeledActivations]:
    """By contrast, its texts as labelled activations that any method of `classifiers.methods` fits."""
    texts, x = unrelated_texts(pairs), readings.pooled(position)
    contrast_of = np.repeat([pair.contrast for pair in pairs], 2)
    found = {}
    for name in dict.fromkeys(contrast_of.tolist()):
        rows = np.flatnonzero(contrast_of == name)
        labels = np.array([texts[i].misaligned for i in rows])
        found[name] = LabeledActivations(x[torch.from_numpy(rows)], labels, tuple(texts[i].question_id for i in rows))
    return found


def contrasts_by_layer(
    readings: TokenReadings, pairs: Sequence[UnrelatedPair], position: str = "response_mean"
) -> dict[int, dict[str, LabeledActivations]]:
    """By layer and contrast, the same at one layer."""
    whole = unrelated_activations(readings, pairs, position)
    return {layer: {name: one.at([i]) for name, one in whole.items()} for i, layer in enumerate(readings.layers)}


def read_unrelated(
    chat_model: ChatModel,
    pairs: Sequence[UnrelatedPair],
    layers: Sequence[int],
    *,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> TokenReadings:
    """The texts of the pairs as the model reads them, in the order of `unrelated_texts`."""
    texts = [(text.question, text.answer) for text in unrelated_texts(pairs)]
    chats = encode_chats(chat_model.tokenizer, texts, system)
    return read_tokens(chat_model, chats, layers, max_batch_tokens=max_batch_tokens, progress=progress)


def as_weights(directions: Sequence[Tensor]) -> Float[Tensor, "n_weights d_model"]:
    """Vectors as rows."""
    return torch.stack([one.float() for one in directions])
