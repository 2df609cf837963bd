"""Turns a table of answers or contrast pairs into the texts that both models read, in two halves by question."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from emis_interp.errors import DataError
from emis_interp.files.names import question_key
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import read_table, split_questions
from probes.sae.latent_diff import FEWEST_QUESTIONS
from probes.sae.latent_settings import LatentTextSettings

HALVES = ("selection", "report")


@dataclass(frozen=True)
class LatentTexts:
    """Answers in a fixed order; a question belongs to one half.

    Attributes:
        questions: id of each text's question; halves: its half.
        source: where they come from, in words.
    """

    texts: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    halves: tuple[str, ...]
    source: str

    def names(self, half: str) -> list[str]:
        """The questions of a half, in the order of first appearance."""
        rows = zip(self.questions, self.halves, strict=True)
        return list(dict.fromkeys(question for question, own in rows if own == half))

    def encoded(self, tokenizer: Any, settings: LatentTextSettings) -> list[EncodedChat]:
        """As a model reads them."""
        return encode_chats(tokenizer, self.texts, settings.system_prompt, max_tokens=settings.max_tokens)


def read_latent_texts(settings: LatentTextSettings) -> LatentTexts:
    """The texts that the settings mean: those of a table, or both answers of contrast pairs.

    Raises:
        DataError: an unreadable table, fewer than `FEWEST_QUESTIONS` questions in a half, or fewer than one text a question.
    """
    if settings.n_per_question is not None and settings.n_per_question < 1:
        raise DataError(f"{settings.n_per_question} texts per question asked for; ask for 1 or more")
    if settings.texts is not None:
        frame = read_table(settings.texts, ("question", "answer"), reading=settings.reading(), use="read")
        key = question_key(list(frame.columns)) or "question"
        rows = list(zip(frame[key].astype(str), frame["question"], frame["answer"], strict=True))
        counts = Counter(row[0] for row in rows)
        selection, _ = split_questions(dict(counts))
        found = [(*row, HALVES[row[0] not in selection]) for row in rows]
        source = str(settings.texts)
    else:
        pairs = load_contrast(settings.pairs)
        half = {pair.question_id: pair.half for pair in pairs}
        texts = labeled_texts(pairs)
        found = [(text.question_id, text.question, text.answer, half[text.question_id]) for text in texts]
        source = "shipped contrast pairs" if settings.pairs is None else str(settings.pairs)
    kept = _drawn([row[0] for row in found], settings.n_per_question, settings.seed)
    rows = [found[i] for i in kept]
    result = LatentTexts(
        tuple((row[1], row[2]) for row in rows), tuple(row[0] for row in rows), tuple(row[3] for row in rows), source
    )
    for half in HALVES:
        if len(result.names(half)) < FEWEST_QUESTIONS:
            raise DataError(
                f"{source}: {len(result.names(half))} {half} questions; latents are chosen on one half of the questions and reported on "
                f"the other, each of {FEWEST_QUESTIONS} or more"
            )
    return result


def question_of_tokens(questions: Sequence[str], owner: Int[np.ndarray, "n_tokens"]) -> Int[np.ndarray, "n_tokens"]:
    """Index of each token's question, from the text that owns it."""
    return np.unique(np.asarray(questions), return_inverse=True)[1][owner]


def _drawn(questions: Sequence[str], n: int | None, seed: int) -> list[int]:
    """Rows that are kept, in their order."""
    if n is None:
        return list(range(len(questions)))
    generator = np.random.default_rng(seed)
    names = np.asarray(questions)
    kept: list[int] = []
    for name in dict.fromkeys(questions):
        rows = np.flatnonzero(names == name)
        kept += generator.permutation(rows)[:n].tolist()
    return sorted(kept)
