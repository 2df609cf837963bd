"""Turns rows of answers, and of what is said about answers, into mappings by key; names what is repeated, missing or of another text.

Everything that reads such rows goes through here: a row that stands twice would count twice, and a file that was cut would give a rate of
what is left of it.
"""

import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

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
    if len(counts) < len(rows):
        places: dict[Key, list[int]] = {key: [] for key, n in counts.items() if n > 1}
        for number, row in enumerate(rows, 1):
            if row.key in places:
                places[row.key].append(number)
        refuse_repeated(where, places)
    return {row.key: row for row in rows}


def refuse_repeated(where: Path | str, repeated: Mapping[Key, Sequence[int]]) -> None:
    """Refuse a file in which answers stand more than once: key -> the numbers of its rows.

    Raises:
        DataError: with how many there are, and the rows of the first.
    """
    if repeated:
        first = min(repeated, key=lambda key: repeated[key][0])
        raise DataError(
            f"{where}: {_count(len(repeated), 'answer')} more than once, first {key_text(first)} (rows "
            f"{', '.join(map(str, repeated[first]))}); rows were copied, or two processes wrote the file: remove the repeated rows, or "
            "delete the file and run the same command again"
        )


def refuse_incomplete(
    where: Path | str, missing: Key | None, strange: Sequence[Key], *, n: tuple[int, int], advice: str
) -> None:
    """Refuse rows of which some are missing, or that nobody asked for.

    Args:
        missing: the first answer that there should be and is not.
        strange: answers that nobody asked for.
        n: answers that are there of those that there should be, and these.

    Raises:
        StageError: with the numbers and the first of them.
    """
    if missing is not None:
        raise StageError(f"{where}: holds {n[0]} of {n[1]} answers, missing is first {key_text(missing)}; {advice}")
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
    return {row.key: row for _, row in placed(rows, AnswersByKey(answers), where)}


class PlacedAnswers(Protocol):
    """Answers in an order, of which more may be there than memory holds."""

    def __len__(self) -> int: ...

    def place_of(self, key: Key) -> int | None:
        """The answer's place from 0; None for one that is not there."""
        ...

    def sha256_at(self, place: int) -> str:
        """Hash of the text of the answer at a place."""
        ...


class AnswersByKey:
    """Answers by key as `PlacedAnswers`."""

    def __init__(self, answers: Mapping[Key, Completion]) -> None:
        self.answers = list(answers.values())
        self._places = {key: place for place, key in enumerate(answers)}

    def __len__(self) -> int:
        return len(self.answers)

    def place_of(self, key: Key) -> int | None:
        return self._places.get(key)

    def sha256_at(self, place: int) -> str:
        return self.answers[place].answer_sha256


class SeenRows:
    """Which rows of a file are the first of their answer, where answers have places.

    Attributes:
        strange: keys without a place -> number of their first row.
        repeated: keys with more rows than one -> the numbers of all of them.
    """

    def __init__(self, n: int) -> None:
        self._first = array("q", bytes(8 * n))  # by place; 0: none yet
        self.strange, self.repeated = dict[Key, int](), dict[Key, list[int]]()

    def is_first(self, number: int, key: Key, place: int | None) -> bool:
        """Note row `number` (from 1); whether it is the first of its answer."""
        before = self.strange.get(key, 0) if place is None else self._first[place]
        if before:
            self.repeated.setdefault(key, [before]).append(number)
        elif place is None:
            self.strange[key] = number
        else:
            self._first[place] = number
        return not before

    @property
    def lacking(self) -> list[int]:
        """Places without a row."""
        return [place for place, number in enumerate(self._first) if not number]


def placed(
    rows: Iterable[S], answers: PlacedAnswers, where: Path | str, *, old_too: bool = False
) -> Iterator[tuple[int, S]]:
    """Every row with the place of the answer that it is about, one at a time; what is wrong with some of them is said behind the last.

    Args:
        old_too: take rows of an older version, without the hash of the answer, with a warning, in place of refusing them: for readers that
            add nothing.

    Raises:
        DataError: as `about`.
    """
    seen, replaced, n_old = SeenRows(len(answers)), list[Key](), 0
    for number, row in enumerate(rows, 1):
        place = answers.place_of(row.key)
        if seen.is_first(number, row.key, place) and place is not None:
            n_old += row.answer_sha256 is None
            if row.answer_sha256 not in (None, answers.sha256_at(place)):
                replaced.append(row.key)
            else:
                yield place, row
    refuse_repeated(where, seen.repeated)
    if n_old and not old_too:
        raise DataError(
            f"{where}: {_count(n_old, 'row')} without the hash of the answer (written by an older version), so they may be about other "
            f"texts than those that are there; {_AGAIN}"
        )
    if seen.strange:
        raise DataError(
            f"{where}: {_count(len(seen.strange), 'row')} about answers that are not there, first {key_text(next(iter(seen.strange)))}; "
            f"{_AGAIN}"
        )
    if n_old:
        log.warning(
            "%s: %s without the hash of the answer (written by an older version): not checked against the answers",
            where,
            _count(n_old, "row"),
        )
    if replaced:
        raise DataError(
            f"{where}: {_count(len(replaced), 'row')} about answers that were replaced since, first {key_text(replaced[0])}; {_AGAIN}"
        )


def key_text(key: Key) -> str:
    """`base, question `bored`, paraphrase 0, sample 1`"""
    arm, question, paraphrase, sample = key
    return f"{arm}, question `{question}`, paraphrase {paraphrase}, sample {sample}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")
