"""Turns the answers of a run and their scores into a sequence that is read from disk as it is walked through, so that a million fit.

Of every answer only its place in the files and the few numbers by which pages choose are kept; text and evidence are read when asked for.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeVar, overload

import numpy as np
from jaxtyping import Bool, Float, Int

from emis_interp.errors import DataError
from emis_interp.files.names import METRICS
from emis_interp.files.rows import key_text
from emis_interp.files.store import parse_record
from emis_interp.files.text import is_unicode
from emis_interp.records import AnswerKey, Completion, Key, Score
from emis_interp.report.provenance import RowReader
from emis_interp.texts.judged import COHERENT_ABOVE, MISALIGNED_BELOW

NOT_JUDGED = "not judged yet"
ANOTHER_TEXT = "the score in the file is of another text: the answer was replaced after it was judged"
FLAGS = ("is_cut", "is_judged")
_ABSENT, _REPLACED = -1, -2
K = TypeVar("K", bound=AnswerKey)


@dataclass(frozen=True)
class Answer:
    completion: Completion
    score: Score | None
    is_intervention: bool
    why_no_score: str = NOT_JUDGED


@dataclass(frozen=True)
class _AnswerFile:
    """A file of answers and that of their scores; its answers begin at `first`."""

    samples: Path
    scores: Path
    is_intervention: bool
    first: int


@dataclass(frozen=True)
class Columns:
    """What is kept of every answer; NaN where there is no number.

    Attributes:
        arm, question: places in `arms` (name of an arm, model or cell, and whether it is that of an intervention) and in `questions`.
        paraphrase, sample: the rest of its key.
        is_judged: there is a score of it, with or without numbers.
    """

    arm: Int[np.ndarray, " answer"]
    question: Int[np.ndarray, " answer"]
    paraphrase: Int[np.ndarray, " answer"]
    sample: Int[np.ndarray, " answer"]
    aligned: Float[np.ndarray, " answer"]
    coherent: Float[np.ndarray, " answer"]
    is_cut: Bool[np.ndarray, " answer"]
    is_judged: Bool[np.ndarray, " answer"]
    arms: list[tuple[str, bool]]
    questions: list[str]

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def is_coherent(self) -> Bool[np.ndarray, " answer"]:
        """It has both scores, and the coherence is above the paper's limit."""
        return ~np.isnan(self.aligned) & (self.coherent > COHERENT_ABOVE)

    @property
    def is_bad(self) -> Bool[np.ndarray, " answer"]:
        """Misaligned and coherent."""
        return self.is_coherent & (self.aligned < MISALIGNED_BELOW)

    def only(self, keep: Bool[np.ndarray, " answer"]) -> "Columns":
        """Some of the answers; arms without one leave, and places of arms are of those that stay."""
        stay = np.unique(self.arm[keep])
        rows = {name: getattr(self, name)[keep] for name in ("question", "paraphrase", "sample", *METRICS, *FLAGS)}
        arms = [self.arms[place] for place in stay.tolist()]
        return Columns(np.searchsorted(stay, self.arm[keep]), **rows, arms=arms, questions=self.questions)

    def key(self, place: int) -> Key:
        arm, question = self.arms[self.arm[place]][0], self.questions[self.question[place]]
        return (arm, question, int(self.paraphrase[place]), int(self.sample[place]))


def columns_of(answers: Sequence[Answer]) -> Columns:
    """The columns of a run's answers, or of any others."""
    return answers.columns if isinstance(answers, AnswerLog) else _columns(answers)


def _columns(answers: Sequence[Answer]) -> Columns:
    kept = _Kept()
    for answer in answers:
        kept.add(answer.completion, answer.is_intervention)
        kept.score(-1, answer.score)
    return kept.columns


@dataclass
class _Kept:
    """The columns while they grow."""

    numbers: "dict[str, array[int]]" = field(
        default_factory=lambda: {name: array("l") for name in ("arm", "question", "paraphrase", "sample", *FLAGS)}
    )
    scores: "dict[str, array[float]]" = field(default_factory=lambda: {name: array("d") for name in METRICS})
    arms: dict[tuple[str, bool], int] = field(default_factory=dict)
    questions: dict[str, int] = field(default_factory=dict)

    def add(self, row: Completion, is_intervention: bool) -> None:
        numbers = {
            "arm": self.arms.setdefault((row.arm, is_intervention), len(self.arms)),
            "question": self.questions.setdefault(row.question_id, len(self.questions)),
            "paraphrase": row.paraphrase_index,
            "sample": row.sample_index,
            "is_cut": int(row.finish == "length"),
            "is_judged": 0,
        }
        for name, number in numbers.items():
            self.numbers[name].append(number)
        for column in self.scores.values():
            column.append(np.nan)

    def score(self, place: int, score: Score | None) -> None:
        self.numbers["is_judged"][place] = int(score is not None)
        for metric, column in self.scores.items():
            value = None if score is None else getattr(score, metric)
            column[place] = np.nan if value is None else value

    @property
    def columns(self) -> Columns:
        numbers = {name: np.array(column, dtype=int) for name, column in self.numbers.items()}
        scores = {name: np.array(column, dtype=float) for name, column in self.scores.items()}
        flags = {name: numbers.pop(name) == 1 for name in FLAGS}
        return Columns(**numbers, **scores, **flags, arms=list(self.arms), questions=list(self.questions))


class AnswerLog(Sequence[Answer]):
    """All answers of a run, in the order in which their files were added.

    Every walk reads the files again; an index reads one answer. The files must stay as they are in the meantime.
    """

    def __init__(self) -> None:
        self._sources: list[_AnswerFile] = []
        self._kept = _Kept()
        self._sample_at, self._score_at = array("q"), array("q")

    def add(self, reader: RowReader, samples: Path, scores: Path, *, is_intervention: bool = False) -> None:
        """Take a file of answers and, where it is there, that of their scores; `reader` notes what cannot be used.

        Of repeated rows the first counts. A score that is of another text than the answer that stands there is not shown.
        """
        self._sources.append(_AnswerFile(samples, scores, is_intervention, len(self)))
        places, digests, halves = dict[Key, int](), bytearray(), list[str]()
        for key, offset, row in self._first_ones(reader, samples, Completion):
            places[key] = len(self)
            digests += bytes.fromhex(row.answer_sha256)
            if not is_unicode(row.answer):
                halves.append(key_text(key))
            self._kept.add(row, is_intervention)
            self._sample_at.append(offset)
            self._score_at.append(_ABSENT)
        reader.note(samples, halves, "answer(s) with half of a surrogate pair, which is written out on the page")
        if scores.exists():
            self._add_scores(reader, scores, places, digests=digests)

    def _add_scores(self, reader: RowReader, path: Path, places: dict[Key, int], *, digests: bytearray) -> None:
        first, replaced, old = self._sources[-1].first, list[str](), list[str]()
        for key, offset, score in self._first_ones(reader, path, Score):
            if score.answer_sha256 is None:
                old.append(key_text(key))
            place = places.get(key)
            if place is None:
                continue
            at = 32 * (place - first)
            if score.answer_sha256 is not None and bytes.fromhex(score.answer_sha256) != digests[at : at + 32]:
                self._score_at[place] = _REPLACED
                replaced.append(key_text(key))
                continue
            self._score_at[place] = offset
            self._kept.score(place, score)
        reader.note(path, replaced, "score(s) of answers that were replaced after they were judged")
        reader.note(path, old, "score(s) that do not say which text they judge (an older version wrote them)")

    def _first_ones(self, reader: RowReader, path: Path, record: type[K]) -> Iterator[tuple[Key, int, K]]:
        """Rows by key with their places in the file; repeated ones are noted."""
        seen, names, repeated = set[Key](), dict[str, str](), list[str]()
        for offset, row in reader.located(path, record):
            arm, question = (
                names.setdefault(name, name) for name in (row.arm, row.question_id)
            )  # one copy of each name
            key = (arm, question, row.paraphrase_index, row.sample_index)
            if key in seen:
                repeated.append(key_text(key))
            else:
                seen.add(key)
                yield key, offset, row
        reader.note(path, repeated, "row(s) about an answer that stands there before; each is shown once")

    @cached_property
    def columns(self) -> Columns:
        """Of all answers; nothing can be added afterwards that they would know of."""
        return self._kept.columns

    def __len__(self) -> int:
        return len(self._sample_at)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        if isinstance(index, slice):
            return list(self.at(range(len(self))[index]))
        return next(self.at([range(len(self))[index]]))

    def __iter__(self) -> Iterator[Answer]:
        return self.at(range(len(self)))

    def at(self, places: Sequence[int]) -> Iterator[Answer]:
        """The answers at these places, in their order; quickest when the places rise.

        Raises:
            DataError: a file changed since it was added.
        """
        firsts = [source.first for source in self._sources]
        opened, source = -1, None
        files: Sequence[BinaryIO] = ()
        try:
            for place in places:
                number = int(np.searchsorted(firsts, place, side="right")) - 1
                if number != opened:
                    for file in files:
                        file.close()
                    opened, source = number, self._sources[number]
                    files = [path.open("rb") for path in (source.samples, source.scores) if path.exists()]
                assert source is not None
                yield self._read(place, source, files)
        finally:
            for file in files:
                file.close()

    def _read(self, place: int, source: _AnswerFile, files: Sequence[BinaryIO]) -> Answer:
        completion = _record(files[0], self._sample_at[place], Completion)
        at = self._score_at[place]
        if at < 0:
            return Answer(completion, None, source.is_intervention, ANOTHER_TEXT if at == _REPLACED else NOT_JUDGED)
        score = _record(files[1], at, Score)
        if score.key != completion.key:
            raise DataError(f"{source.scores}: changed while it was read; build the page again")
        return Answer(completion, score, source.is_intervention)


def _record(file: BinaryIO, offset: int, record: type[K]) -> K:
    file.seek(offset)
    try:
        return parse_record(file.readline().decode("utf-8"), record, f"byte {offset}")
    except (DataError, UnicodeDecodeError):
        raise DataError(f"{file.name}: changed while it was read; build the page again") from None
