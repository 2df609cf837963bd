"""A journal keeps what it holds, asks for the rest, and loses nothing when the making breaks off."""

from pathlib import Path

import pytest

from emis_interp.errors import StageError
from emis_interp.files.journal import Journal
from emis_interp.files.store import RecordLog
from emis_interp.records import Record


class Square(Record):
    n: int
    value: int


def squares(path: Path, advanced: list[int]) -> Journal[int, Square]:
    log = RecordLog(path)
    return Journal(log, log.read(Square), lambda row: row.n, advance=advanced.append)


def test_only_what_is_missing_is_made_and_the_order_is_that_of_the_keys(tmp_path: Path) -> None:
    path, asked, advanced = tmp_path / "squares.jsonl", [], []
    RecordLog(path).append([Square(n=2, value=4)])
    journal = squares(path, advanced)

    def make(missing: list[int]) -> None:
        asked.extend(missing)
        for n in reversed(missing):
            journal.keep([Square(n=n, value=n * n)])

    assert [row.value for row in journal.fill([1, 2, 3], make)] == [1, 4, 9]
    assert asked == [1, 3]
    assert sum(advanced) == 3
    assert [row.n for row in RecordLog(path).read(Square)] == [2, 3, 1]
    assert [row.value for row in squares(path, []).fill([3, 1], lambda missing: pytest.fail(f"made {missing}"))] == [
        9,
        1,
    ]  # nothing is made again


def test_a_second_record_of_a_key_is_not_kept(tmp_path: Path) -> None:
    journal = squares(tmp_path / "squares.jsonl", [])
    journal.keep([Square(n=2, value=4), Square(n=2, value=5)])
    journal.keep([Square(n=2, value=6)])
    assert RecordLog(tmp_path / "squares.jsonl").read(Square) == [Square(n=2, value=4)]


def test_what_was_kept_before_a_failure_is_there_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "squares.jsonl"
    journal = squares(path, [])

    def fails(missing: list[int]) -> None:
        journal.keep([Square(n=missing[0], value=1)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.fill([1, 2], fails)
    assert squares(path, []).missing([1, 2]) == [2]


def test_a_key_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"squares\.jsonl: nothing was made for 7; run the same command again"):
        journal = squares(tmp_path / "squares.jsonl", [])
        journal.fill([1, 7], lambda missing: journal.keep([Square(n=1, value=1)]))


def test_a_batch_that_was_cut_is_made_whole_so_that_its_numbers_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    """Each value depends on what shares its batch, as the last digits of a forward pass do."""

    def filled(path: Path) -> tuple[list[Square], list[int]]:
        journal, made = squares(path, []), list[int]()

        def make(keys: list[int]) -> None:
            made.extend(keys)
            for start in range(0, len(keys), 3):
                batch = keys[start : start + 3]
                journal.keep([Square(n=n, value=sum(batch)) for n in batch])

        return journal.fill(list(range(8)), make, together=3), made

    whole, _ = filled(tmp_path / "whole.jsonl")
    for n_before in range(9):
        path = tmp_path / f"{n_before}.jsonl"
        RecordLog(path).append(whole[:n_before])
        found, made = filled(path)
        assert found == whole and path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert made == (list(range(n_before - n_before % 3, 8)) if n_before < 8 else [])
