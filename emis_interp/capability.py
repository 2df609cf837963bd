"""Turns a model into two figures of what an intervention cost it: accuracy on easy two-way questions, and perplexity of harmless text."""

from collections.abc import Sequence
from importlib import resources

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from emis_interp.chat import EncodedChat, encode_chat
from emis_interp.models import ChatModel
from emis_interp.records import Record
from emis_interp.store import parse_record


class CapabilityItem(Record):
    """A question with a right and a wrong answer of the same kind."""

    question: str = Field(min_length=1)
    right: str = Field(min_length=1)
    wrong: str = Field(min_length=1)


def capability_items() -> list[CapabilityItem]:
    """The shipped items."""
    text = (resources.files("emis_interp") / "data" / "capability.jsonl").read_text("utf-8")
    return [parse_record(line, CapabilityItem, f"capability.jsonl:{i}") for i, line in enumerate(text.splitlines(), 1)]


def item_chats(chat_model: ChatModel, items: Sequence[CapabilityItem], system: str | None = None) -> list[EncodedChat]:
    """Text 2i is the right answer to item i, text 2i + 1 the wrong one."""
    return [
        encode_chat(chat_model.tokenizer, item.question, answer, system)
        for item in items
        for answer in (item.right, item.wrong)
    ]


def right_is_likelier(logprobs: Float[np.ndarray, "n_texts"]) -> Bool[np.ndarray, "n_items"]:
    """From mean log-probabilities of `item_chats`: whether an item is passed; a tie is a failure."""
    return logprobs[0::2] > logprobs[1::2]


def perplexity(logprobs: Float[np.ndarray, "n_texts"]) -> float:
    """exp of minus the mean over texts of the mean log-probability per answer token (`likelihood.mean_logprobs`)."""
    return float(np.exp(-logprobs.mean()))
