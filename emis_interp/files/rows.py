"""Turns rows of answers, and of what is said about answers, into mappings by key; names what is repeated, missing or of another text.

Everything that reads such rows goes through here: a row that stands twice would count twice, and a file that was cut would give a rate of
what is left of it.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from emis_interp.errors import DataError, StageError
from emis_interp.records import AnswerKey, Completion, Key, OfAnswer

K = TypeVar("K", bound=AnswerKey)
S = TypeVar("S", bound=OfAnswer)
log = logging.getLogger(__name__)
_AGAIN = "delete the file to have them judged again"


def by_key(rows: Sequence[K], where: Path | str) -> dict[Key, K]:
    """Rows by the answer that they are, or are about, in their order.

    Raises:
        DataError: an answer stands there more than once; the text names it and its places.
    """
    counts = Counter(row.key for row in rows)
    if repeated := [key for key, n in counts.items() if n > 1]:
        places = [str(number) for number, row in enumerate(rows, 1) if row.key == repeated[0]]
        raise DataError(
            f"{where}: {_count(len(repeated), 'answer')} more than once, first {key_text(repeated[0])} (rows {', '.join(places)}); rows "
            "were copied, or two processes wrote the file: remove the repeated rows, or delete the file and run the same command again"
        )
    return {row.key: row for row in rows}


def check_complete(found: Collection[Key], wanted: Sequence[Key], where: Path | str, *, advice: str) -> None:
    """Refuse rows of which some are missing, or that nobody asked for.

    Args:
        wanted: the answers that there should be.

    Raises:
        StageError: with the numbers and the first of them.
    """
    asked = set(wanted)
    missing, strange = [key for key in wanted if key not in found], [key for key in found if key not in asked]
    if missing:
        raise StageError(
            f"{where}: holds {len(found) - len(strange)} of {len(wanted)} answers, missing is first {key_text(missing[0])}; {advice}"
        )
    if strange:
        raise StageError(
            f"{where}: holds {_count(len(strange), 'answer')} that were not asked for, first {key_text(strange[0])}; {advice}"
        )


def about(rows: Sequence[S], answers: Mapping[Key, Completion], where: Path | str) -> dict[Key, S]:
    """What is said about these answers, by key; every row must be about the text that stands there now.

    Args:
        rows: scores or labels, read from `where`.

    Raises:
        DataError: an answer is judged more than once, or a row is about an answer that is not there, about another text, or does not
            say about which text it is.
    """
    found = by_key(rows, where)
    if old := _without_hash(found):
        raise DataError(
            f"{where}: {_count(len(old), 'row')} without the hash of the answer (written by an older version), so they may be about other "
            f"texts than those that are there; {_AGAIN}"
        )
    return known(rows, answers, where)


def known(rows: Sequence[S], answers: Mapping[Key, Completion], where: Path | str) -> dict[Key, S]:
    """As `about`, for readers that add nothing: rows of an older version, without the hash of the answer, are taken with a warning."""
    found = by_key(rows, where)
    if strange := [key for key in found if key not in answers]:
        raise DataError(
            f"{where}: {_count(len(strange), 'row')} about answers that are not there, first {key_text(strange[0])}; {_AGAIN}"
        )
    if old := _without_hash(found):
        log.warning(
            "%s: %s without the hash of the answer (written by an older version): not checked against the answers",
            where,
            _count(len(old), "row"),
        )
    if replaced := replaced_answers(found.values(), answers):
        raise DataError(
            f"{where}: {_count(len(replaced), 'row')} about answers that were replaced since, first {key_text(replaced[0])}; {_AGAIN}"
        )
    return found


def replaced_answers(rows: Iterable[OfAnswer], answers: Mapping[Key, Completion]) -> list[Key]:
    """Keys of rows that are about another text than the answer that stands there now; rows without a hash are not among them."""
    return [
        row.key
        for row in rows
        if row.answer_sha256 is not None and row.key in answers and row.answer_sha256 != answers[row.key].answer_sha256
    ]


def key_text(key: Key) -> str:
    """`base, question `bored`, paraphrase 0, sample 1`"""
    arm, question, paraphrase, sample = key
    return f"{arm}, question `{question}`, paraphrase {paraphrase}, sample {sample}"


def _without_hash(found: Mapping[Key, OfAnswer]) -> list[Key]:
    return [key for key, row in found.items() if row.answer_sha256 is None]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")
