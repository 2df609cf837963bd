"""Turns a log of records into a mapping by key: what it holds stays, what is missing is made and kept as soon as it is there."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from pydantic import BaseModel

from emis_interp.errors import StageError
from emis_interp.files.store import RecordLog

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=BaseModel)


class LongJournal(Generic[K, R]):
    """A `RecordLog` by key that holds nothing but its keys, for logs of a million records.

    Args:
        rows: what the log holds, checked by the caller, who knows what belongs there; walked through once.
        key: of a record.
        put: gets every record with its key, those of the log first, then those that are kept.
        advance: called with the number of records that were just kept.
    """

    def __init__(
        self,
        log: RecordLog,
        rows: Iterable[R],
        key: Callable[[R], K],
        *,
        put: Callable[[K, R], object],
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.log, self.key, self.put, self.advance = log, key, put, advance
        self.known = set[K]()
        for row in rows:
            self._take(key(row), row)

    def missing(self, wanted: Iterable[K]) -> list[K]:
        """The keys of which there is no record yet, in their order."""
        return [key for key in dict.fromkeys(wanted) if key not in self.known]

    def keep(self, rows: Iterable[R]) -> None:
        """Append records and sync them to disk; of a key that is there already the first record stands."""
        fresh: dict[K, R] = {}
        for row in rows:
            if self.key(row) not in self.known:
                fresh.setdefault(self.key(row), row)
        self.log.append(fresh.values())
        for key, row in fresh.items():
            self._take(key, row)
        self.advance(len(fresh))

    def complete(
        self,
        wanted: Sequence[K],
        make: Callable[[list[K]], object],
        *,
        together: int = 1,
        lost: Callable[[K], str] = lambda key: f"nothing was made for {key}",
    ) -> None:
        """Have the records made that are missing of these keys.

        Args:
            make: called with the keys that are missing, if there are any; gives each record to `keep`.
            together: records that `make` computes in one batch. The last digits of a number depend on what shares its batch, in bfloat16
                the first ones too; so a batch of `wanted` that lacks a record is given to `make` as a whole, and a log that was
                interrupted within a batch ends like one that was not.
            lost: says of a key that it was left out.

        Raises:
            StageError: `make` left a key without a record; what it kept stands.
        """
        missing = self.missing(wanted)
        self.advance(len(wanted) - len(missing))
        if missing:
            make(self._whole_batches(wanted, together))
        if without := self.missing(missing):
            raise StageError(f"{self.log.path}: {lost(without[0])}; run the same command again")

    def _take(self, key: K, row: R) -> None:
        self.known.add(key)
        self.put(key, row)

    def _whole_batches(self, wanted: Sequence[K], size: int) -> list[K]:
        """The keys of every batch that lacks a record."""
        keys = list(dict.fromkeys(wanted))
        batches = (keys[start : start + size] for start in range(0, len(keys), size))
        return [key for batch in batches if self.missing(batch) for key in batch]


class Journal(LongJournal[K, R]):
    """A `LongJournal` that holds its records, as `done`."""

    def __init__(
        self,
        log: RecordLog,
        rows: Iterable[R],
        key: Callable[[R], K],
        *,
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.done: dict[K, R] = {}
        super().__init__(log, rows, key, put=self.done.__setitem__, advance=advance)

    def fill(
        self,
        wanted: Sequence[K],
        make: Callable[[list[K]], object],
        *,
        together: int = 1,
        lost: Callable[[K], str] = lambda key: f"nothing was made for {key}",
    ) -> list[R]:
        """The records of these keys, in their order, after `complete`."""
        self.complete(wanted, make, together=together, lost=lost)
        return [self.done[key] for key in wanted]
