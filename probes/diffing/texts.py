"""Turns shipped or given texts into token ids: plain texts that both models read from their first token, and conversations held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError
from emis_interp.files.store import read_lines
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.texts.harmless import harmless_texts
from probes.classifiers.unrelated import unrelated_pairs

RowsOf = Callable[[str], Sequence[tuple[str, str]]]
"""Name of a data set, or a file -> (prompt, response) of every row; whoever knows training data hands it in."""
FEWEST_TEXTS = 10
"""A mean over fewer texts is what these texts are about."""


@dataclass(frozen=True)
class PlainTexts:
    """Unrelated texts; n_short had too few tokens and are left out."""

    texts: list[str]
    chats: list[EncodedChat]
    n_short: int


def shipped_texts(n_held_out: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Plain texts, and harmless questions with answers that are none of them.

    Raises:
        DataError: more are to be held out than leave texts to read.
    """
    harmless = harmless_texts()
    if not 2 <= n_held_out <= len(harmless) // 2:
        raise DataError(
            f"n_held_out is {n_held_out}; hold out 2 to {len(harmless) // 2} of {len(harmless)} harmless texts"
        )
    kept = harmless[n_held_out:]
    plain = [text for one in kept for text in (one.prompt, one.answer)]
    plain += [text for pair in unrelated_pairs() for text in (pair.first, pair.second)]
    return plain, [(one.prompt, one.answer) for one in harmless[:n_held_out]]


def lines_of(path: Path) -> list[str]:
    """Texts of a file, one a line.

    Raises:
        DataError: no such file.
    """
    return [line.strip() for _, line in read_lines(path)]


def plain_chats(tokenizer: Any, texts: Sequence[str], n_tokens: int, *, fewest: int = FEWEST_TEXTS) -> PlainTexts:
    """The first tokens of each text without any chat template, behind what the tokenizer itself begins a text with.

    The "answer" is every token from the second on: those that have something before them.

    Raises:
        DataError: fewer than two tokens are asked for, or fewer texts than `fewest` are long enough.
    """
    if n_tokens < 2:
        raise DataError(f"n_tokens is {n_tokens}; the first token has nothing before it, so read 2 or more")
    kept, chats = [], []
    for text in texts:
        ids = tuple(tokenizer(text)["input_ids"])
        if len(ids) >= n_tokens:
            kept.append(text)
            chats.append(EncodedChat(ids[:n_tokens], 1, n_tokens))
    if len(chats) < fewest:
        raise DataError(
            f"{len(chats)} of {len(texts)} texts have {n_tokens} tokens; give {fewest} or more that are long enough (--texts), or a "
            "smaller --n-tokens"
        )
    return PlainTexts(kept, chats, len(texts) - len(chats))


def held_out_chats(tokenizer: Any, rows: Sequence[tuple[str, str]], n: int, *, answer_tokens: int) -> list[EncodedChat]:
    """Conversations at even distances through the rows, each with the first tokens of its answer.

    Raises:
        DataError: fewer rows than asked for, or no token of an answer is.
    """
    if len(rows) < n:
        raise DataError(
            f"{len(rows)} rows, {n} are held out for cross-entropy; give more rows or a smaller --n-held-out"
        )
    if answer_tokens < 1:
        raise DataError(f"answer_tokens is {answer_tokens}; score 1 token of each answer or more")
    whole = encode_chats(tokenizer, [rows[i * len(rows) // n] for i in range(n)])
    ends = [min(chat.response_end, chat.response_start + answer_tokens) for chat in whole]
    return [EncodedChat(chat.input_ids[:end], chat.response_start, end) for chat, end in zip(whole, ends, strict=True)]
