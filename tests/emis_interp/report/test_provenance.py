"""The page of a folder with bad rows, exchanged files or other code: it is there, and says what it could not use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_answers import answers_in

from emis_interp.errors import DataError
from emis_interp.files.ledger import Unit
from emis_interp.files.store import file_sha256, write_json
from emis_interp.records import Completion, Score
from emis_interp.report.contents import load_contents
from emis_interp.report.page import build_report


def completion(sample: int, answer: str = "fine") -> Completion:
    return Completion(
        arm="base", question_id="q", paraphrase_index=0, sample_index=sample, seed=1, system=None, question="Why?",
        answer=answer, n_tokens=1, finish="stop",
    )  # fmt: skip


def line(row: Any, **changes: Any) -> str:
    return json.dumps({**row.model_dump(), **changes}) + "\n"


SCORE = Score.of(completion(1), judge="j", aligned=1, coherent=1)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with four answers of base, all judged."""
    answers = [completion(i) for i in range(4)]
    scores = [Score.of(row, judge="j", aligned=90, coherent=80) for row in answers]
    for name, rows in (("samples", answers), ("scores", scores)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.jsonl").write_text("".join(map(line, rows)))
    (tmp_path / "training" / "x").mkdir(parents=True)
    (tmp_path / "training" / "x" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    manifest(tmp_path)
    return tmp_path


def manifest(folder: Path, **more: Any) -> None:
    config = {"name": "r", "model": "tiny", "arms": [{"name": "base"}, {"name": "x"}]}
    write_json(folder / "manifest.json", {"config": config, **more})


def page(folder: Path) -> str:
    """The page, and its answers, which are packed in it."""
    text = build_report(folder).read_text("utf-8")
    return text + answers_in(text)


def rewrite(path: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("file", "bad", "words"),
    [
        ("samples/base.jsonl", '{"arm": \n', "samples/base.jsonl: 1 row(s) that cannot be read and are left out (line 2: not JSON"),
        ("samples/base.jsonl", line(completion(1), n_tokens=float("nan")), "(line 2: NaN is no number of JSON"),
        ("samples/base.jsonl", line(completion(1), answer=None), "(line 2: `answer`"),
        ("samples/base.jsonl", "[]\n", "(line 2: "),
        ("scores/base.jsonl", line(SCORE, aligned=float("nan")), "scores/base.jsonl: 1 row(s)"),
        ("scores/base.jsonl", line(SCORE, aligned=101), "(line 2: `aligned`"),
        ("training/x/metrics.jsonl", '{"step": 2, "loss": NaN}\n', "training/x/metrics.jsonl: 1 row(s)"),
    ],
)  # fmt: skip
def test_one_bad_row_is_named_and_the_page_is_there(run_dir: Path, file: str, bad: str, words: str) -> None:
    rewrite(run_dir / file, lambda lines: [lines[0], bad, *lines[2:]])
    found = load_contents(run_dir)
    assert len(found.notes) == 1 and words in found.notes[0]
    assert len(found.answers) == (3 if file.startswith("samples") else 4)
    text = page(run_dir)
    assert "1 note</a> on how" in text or "1 note on how these files came about" in text
    assert json.loads((run_dir / "report" / "data.json").read_text())["notes"] == found.notes


def test_bytes_that_are_no_text_cost_one_row(run_dir: Path) -> None:
    path = run_dir / "samples" / "base.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"fine", b"\xff\xfe") + lines[2] + lines[3])
    assert "line 2: not UTF-8" in load_contents(run_dir).notes[0]
    page(run_dir)


@pytest.mark.parametrize("field", ["answer", "question", "question_id"])
def test_a_lone_surrogate_is_shown_written_out(run_dir: Path, field: str) -> None:
    rewrite(
        run_dir / "samples" / "base.jsonl", lambda lines: [line(completion(0), **{field: "bad \ud83d end"}), *lines[1:]]
    )
    assert "bad \\\\ud83d end" in page(run_dir)  # inside a JSON string, where a backslash is doubled


@pytest.mark.parametrize("place", ["name", "model", "description"])
def test_a_lone_surrogate_in_the_manifest_does_not_stop_the_page(run_dir: Path, place: str) -> None:
    values = json.loads((run_dir / "manifest.json").read_text())
    values["config"][place] = "x\ud800y"
    (run_dir / "manifest.json").write_text(json.dumps(values))
    assert "x\\ud800y" in page(run_dir)


def test_numbers_that_are_none_are_missing_in_the_data_file(run_dir: Path) -> None:
    (run_dir / "training" / "x" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "grad_norm": NaN}\n')
    page(run_dir)
    (row,) = json.loads((run_dir / "report" / "data.json").read_text())["training"]["x"]["metrics"]
    assert row == {"step": 1, "loss": 2.0, "grad_norm": None}


def test_repeated_rows_are_shown_once_and_said(run_dir: Path) -> None:
    rewrite(run_dir / "samples" / "base.jsonl", lambda lines: [*lines, *lines])
    rewrite(run_dir / "scores" / "base.jsonl", lambda lines: [*lines, lines[2]])
    found = load_contents(run_dir)
    assert len(found.answers) == 4
    assert "samples/base.jsonl: 4 row(s) about an answer that stands there before" in found.notes[0]
    assert "scores/base.jsonl: 1 row(s) about an answer that stands there before" in found.notes[1]


def test_the_score_of_another_text_is_not_shown(run_dir: Path) -> None:
    rewrite(run_dir / "samples" / "base.jsonl", lambda lines: [line(completion(0, "replaced")), *lines[1:]])
    found = load_contents(run_dir)
    assert [answer.score is None for answer in found.answers] == [True, False, False, False]
    assert (
        "scores/base.jsonl: 1 score(s) of answers that were replaced after they were judged (base, question `q`"
        in found.notes[0]
    )
    assert "the score in the file is of another text" in page(run_dir)


def test_scores_of_an_older_version_are_shown_with_a_word(run_dir: Path) -> None:
    rewrite(run_dir / "scores" / "base.jsonl", lambda lines: [line_without_hash(one) for one in lines])
    found = load_contents(run_dir)
    assert all(answer.score is not None for answer in found.answers)
    assert "4 score(s) that do not say which text they judge (an older version wrote them)" in found.notes[0]


def line_without_hash(one: str) -> str:
    values = json.loads(one)
    del values["answer_sha256"]
    return json.dumps(values) + "\n"


def test_files_that_changed_or_were_exchanged_and_other_code_are_said(run_dir: Path) -> None:
    hashes = {file: file_sha256(run_dir / file) for file in ("samples/base.jsonl", "scores/base.jsonl")}
    adapter = "training/x/adapter/adapter_model.safetensors"
    units = {
        "samples/base.jsonl": Unit(
            stage="sample", inputs={}, files={"samples/base.jsonl": hashes["samples/base.jsonl"]}
        ),
        "scores/base.jsonl": Unit(stage="score", inputs={}, files={"scores/base.jsonl": hashes["scores/base.jsonl"]}),
        "training/x/summary.json": Unit(stage="train", inputs={}, files={adapter: "0"}, replaced=(adapter,)),
        "analysis/rates.json": Unit(stage="score", inputs={}),
    }
    other = {
        "capture": [
            {"at": "2026-01-01T00:00:00+00:00", "changes": ["torch 2.8.0 -> 2.9.0", "code revision aaa -> bbb"]}
        ]
    }
    manifest(run_dir, files={name: unit.model_dump(mode="json") for name, unit in units.items()}, other_code=other)
    rewrite(run_dir / "scores" / "base.jsonl", lambda lines: lines[:3])
    assert load_contents(run_dir).notes == [
        "The capture stage ran, or went on (2026-01-01T00:00:00+00:00), with other code or packages than the run began with: "
        "torch 2.8.0 -> 2.9.0, code revision aaa -> bbb.",
        "scores/base.jsonl changed after the score stage wrote it: it and the rest of this page may not belong together.",
        f"{adapter} was exchanged after the train stage wrote it, and taken as it is.",
    ]
    assert "torch 2.8.0 -&gt; 2.9.0" in page(run_dir)


def test_a_whole_folder_has_no_notes(run_dir: Path) -> None:
    assert load_contents(run_dir).notes == []
    assert "How these files came about" not in page(run_dir)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("manifest.json", "{", r"manifest\.json:1: not JSON"),
        ("manifest.json", "[1]", r"manifest\.json"),
        ("manifest.json", '{"config": {"arms": 3}}', r"manifest\.json: `arms`"),
        ("manifest.json", '{"config": {"judge": [1]}}', r"manifest\.json: `judge`"),
        ("manifest.json", '{"config": {}, "files": {"a": 3}}', r"manifest\.json: `files\.a`"),
        ("training/x/summary.json", '{"n_rows": ', r"training/x/summary\.json:1: not JSON"),
        ("training/x/summary.json", '{"n_rows": "many"}', r"training/x/summary\.json: `n_rows`"),
        ("training/x/summary.json", "3", r"training/x/summary\.json"),
        ("analysis/rates.json", '{"judge": {}}', r"analysis/rates\.json"),
        ("analysis/rates.json", "\udcff", r"analysis/rates\.json:1: not UTF-8"),
    ],
)
def test_a_damaged_file_that_the_page_stands_on_is_named(run_dir: Path, file: str, content: str, words: str) -> None:
    (run_dir / file).parent.mkdir(exist_ok=True)
    (run_dir / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=words):
        build_report(run_dir)
