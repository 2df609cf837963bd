"""Turns a file of a model's answers into a sequence in the order of their plan that is read from disk as it is walked through.

Of every answer only its place in the file and the few figures that scores and rates need are kept, so that a million fit.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Int

from emis_interp.errors import DataError
from emis_interp.files.rows import AnswersByKey, SeenRows, by_key, refuse_incomplete, refuse_repeated
from emis_interp.files.store import located_records, records_at
from emis_interp.records import Completion, Key
from evals.rates.judged import ListedCounts
from evals.sampling import AnswerPlan

READ_AT_ONCE = 256


class ModelAnswers(Sequence[Completion]):
    """All answers of a model (`emis_interp.files.rows.PlacedAnswers`).

    Attributes:
        n_tokens: of each answer, 0 where a server did not count them.
        n_cut: answers that end at the token limit.
    """

    def __init__(self, path: Path, plan: AnswerPlan, advice: str) -> None:
        """Read a file once.

        Args:
            plan: what was asked for.
            advice: what to do when some are missing.

        Raises:
            DataError: an answer stands there more than once, or a row is broken. StageError: answers are missing, or nobody asked for them.
        """
        n = len(plan)
        self.path, self.plan = path, plan
        self.n_tokens: Int[np.ndarray, " answer"] = np.zeros(n, dtype=np.int64)
        self.n_cut = 0
        self._offsets, self._digests = array("q", bytes(8 * n)), bytearray(32 * n)
        seen = SeenRows(n)
        for number, (offset, row) in enumerate(located_records(path, Completion), 1):
            place = plan.place_of(row.key)
            if seen.is_first(number, row.key, place) and place is not None:
                self._offsets[place], self.n_tokens[place] = offset, row.n_tokens
                self._digests[32 * place : 32 * place + 32] = bytes.fromhex(row.answer_sha256)
                self.n_cut += row.finish == "length"
        refuse_repeated(path, seen.repeated)
        lacking = seen.lacking
        missing = plan[lacking[0]].key if lacking else None
        refuse_incomplete(path, missing, list(seen.strange), n=(n - len(lacking), n), advice=advice)

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, index: int) -> Completion: ...
    @overload
    def __getitem__(self, index: slice) -> list[Completion]: ...
    def __getitem__(self, index: int | slice) -> Completion | list[Completion]:
        found = range(len(self))[index]
        return next(self.at([found])) if isinstance(found, int) else list(self.at(found))

    def __iter__(self) -> Iterator[Completion]:
        for start in range(0, len(self), READ_AT_ONCE):
            yield from self[start : start + READ_AT_ONCE]

    def at(self, places: Sequence[int]) -> Iterator[Completion]:
        """The answers at these places, in their order.

        Raises:
            DataError: the file changed since it was read.
        """
        rows = records_at(self.path, Completion, (self._offsets[place] for place in places))
        for place, row in zip(places, rows, strict=True):
            if self.plan.place_of(row.key) != place or row.answer_sha256 != self.sha256_at(place):
                raise DataError(f"{self.path}: changed while it was read; run the same command again")
            yield row

    def place_of(self, key: Key) -> int | None:
        return self.plan.place_of(key)

    def sha256_at(self, place: int) -> str:
        return self._digests[32 * place : 32 * place + 32].hex()

    @property
    def question_ids(self) -> np.ndarray:
        """Of each answer."""
        begins = [begin for _, _, begin in self.plan.wordings]
        lengths = np.diff([*begins, len(self)])
        return np.repeat([question.id for question, _, _ in self.plan.wordings], lengths)

    @property
    def models(self) -> np.ndarray:
        return np.full(len(self), self.plan.arm)


class ListedAnswers(AnswersByKey, ListedCounts):
    """Answers that are in memory, with what `ModelAnswers` says of those on disk."""

    def __init__(self, answers: Sequence[Completion], where: str) -> None:
        """Raises:
        DataError: an answer stands there more than once; `where` names the list."""
        AnswersByKey.__init__(self, by_key(answers, where))
        ListedCounts.__init__(self, answers)

    def at(self, places: Sequence[int]) -> Iterator[Completion]:
        return (self.answers[place] for place in places)
