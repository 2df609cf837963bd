"""Breaks files in the ways that crashes, full disks and typing mistakes do, and expects old content kept and the fault named."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from emis_interp.errors import DataError, StageError
from emis_interp.files.sealed import SEAL
from emis_interp.files.store import RecordLog, card_path, read_json, read_records, write_bytes, write_json, write_text
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.records import LabeledText


def text(name: str, answer: str = "yes") -> LabeledText:
    return LabeledText(question_id=name, question="Why?", answer=answer, misaligned=False)


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StageError, match=r"a\.json: the disk is full; free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_that_has_the_old_file_open_keeps_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (errno.EACCES, "Permission denied", pytest.raises(StageError, match="cannot be written")),
        (errno.EIO, "Input/output error", pytest.raises(OSError, match="Input/output")),  # keeps its traceback
    ],
)
def test_an_unwritable_folder_is_named_and_other_faults_of_the_disk_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str, expected: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, said)  # becomes a PermissionError where it is one

    monkeypatch.setattr(os, "fsync", refuse)
    with expected:
        write_bytes(tmp_path / "a", b"x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_numbers_that_are_none_and_keeps_the_old_file(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"a": None})
    with pytest.raises(DataError, match=rf"a\.json: not written, `a\.1: {value}` is not a finite number"):
        write_json(tmp_path / "a.json", {"a": [1.0, value]})
    assert read_json(tmp_path / "a.json") == {"a": None}


def test_malformed_json_names_file_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n "a": 1,\n "b" 2}')
    with pytest.raises(DataError, match=r"a\.json:3: not JSON .*column 6"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match=r"b\.json:1: not UTF-8"):
        read_json(tmp_path / "b.json")
    with pytest.raises(DataError, match=r"c\.json: no such file"):
        read_json(tmp_path / "c.json")


def test_records_survive_a_round_trip_with_every_line_separator_of_unicode(tmp_path: Path) -> None:
    rows = [text("a", "one\u2028two\x85three\r\nfour\x0cfive"), text("b", "日本語 😀")]
    RecordLog(tmp_path / "a.jsonl").append(rows)
    assert read_records(tmp_path / "a.jsonl", LabeledText) == rows


def test_a_malformed_line_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = text("a").model_dump_json()
    path.write_text(f"{good}\n\n{good[:-5]}\n")  # the blank line counts
    with pytest.raises(DataError, match=r"a\.jsonl:3: not JSON"):
        read_records(path, LabeledText)
    path.write_bytes(good.encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: not UTF-8"):
        read_records(path, LabeledText)


def test_an_unknown_key_gets_a_suggestion_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values = text("a").model_dump()
    values["qestion"] = values.pop("question")
    path.write_text(json.dumps(values) + "\n")
    with pytest.raises(DataError) as caught:
        read_records(path, LabeledText)
    assert "a.jsonl:1: " in str(caught.value)
    assert "unknown key `qestion`; did you mean `question`?" in str(caught.value)
    assert "key `question` is missing" in str(caught.value)


def test_a_log_cuts_off_a_half_written_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = RecordLog(path)
    log.append([text("a"), text("b")])
    whole = path.read_bytes()
    path.write_bytes(whole + text("c").model_dump_json().encode()[:-7])
    log = RecordLog(path)
    assert path.read_bytes() == whole
    log.append([text("d")])
    assert [row.question_id for row in log.read(LabeledText)] == ["a", "b", "d"]
    RecordLog(path)
    assert [row.question_id for row in log.read(LabeledText)] == ["a", "b", "d"]


def test_a_log_does_not_hide_a_broken_line_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"broken\n' + text("a").model_dump_json() + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: not JSON"):
        RecordLog(path).read(LabeledText)


def test_a_log_on_a_full_disk_keeps_exactly_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    log = RecordLog(path)
    log.append([text("a")])
    old = path.read_bytes()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StageError, match="finished work is kept"):
        log.append([text("b"), text("c")])
    assert path.read_bytes() == old
    monkeypatch.undo()
    log.append([text("d")])
    assert [row.question_id for row in log.read(LabeledText)] == ["a", "d"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always-full device of Linux")
def test_the_kernel_saying_full_is_the_fault_that_we_translate() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
        file.write(b"x")
    assert caught.value.errno == errno.ENOSPC


def test_a_log_that_fills_the_disk_in_the_middle_of_a_write_is_cut_back(tmp_path: Path) -> None:
    """A file size limit makes the kernel accept a part of the write and refuse the rest, as a disk that fills up does."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "a.jsonl"
    log = RecordLog(path)
    log.append([text("a")])
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 1000, limits[1]))
        with pytest.raises(StageError, match="larger than this disk"):  # EFBIG, raised where ENOSPC would be
            log.append([text("b", "x" * 400) for _ in range(5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old


def test_tensors_and_card_survive_a_round_trip_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    x = torch.randn(3, 4, dtype=torch.bfloat16)
    save_tensors(path, {"x": x, "view": torch.arange(12.0).view(3, 4).T}, {"arm": "base"})
    tensors, card = load_tensors(path)
    assert torch.equal(tensors["x"], x)
    assert torch.equal(tensors["view"], torch.arange(12.0).view(3, 4).T)
    assert card["arm"] == "base"
    assert card["tensors"] == {"x": [3, 4], "view": [4, 3]}


def test_truncated_altered_and_missing_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.ones(8)}, {})
    content = path.read_bytes()
    for broken in (content[:-3], content[:-1] + b"\x01", b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"x\.safetensors: content does not match the checksum on x\.json"):
            load_tensors(path)
    path.unlink()
    with pytest.raises(DataError, match=r"x\.safetensors: no such file, though its card"):
        load_tensors(path)


def test_a_file_that_never_was_safetensors_is_named_even_when_its_checksum_fits(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.ones(8)}, {})
    path.write_bytes(b"not a tensor")
    card = read_json(card_path(path))
    card["sha256"] = hashlib.sha256(b"not a tensor").hexdigest()
    write_json(card_path(path), card)
    with pytest.raises(DataError, match=r"x\.json: damaged or edited"):
        load_tensors(path)
    del card[SEAL]
    write_json(card_path(path), card)
    with pytest.raises(DataError, match="not a readable safetensors file"):
        load_tensors(path)


def test_a_card_of_the_last_run_does_not_vouch_for_new_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the tensors and the card: the old card must not pass."""
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.ones(8)}, {})
    monkeypatch.setattr("emis_interp.files.tensors.write_sealed", no_space)
    with pytest.raises(OSError, match="No space"):
        save_tensors(path, {"x": torch.zeros(8)}, {})
    with pytest.raises(DataError, match="does not match the checksum"):
        load_tensors(path)
