"""Gives one exchange in the formats and files of other projects and expects the same row, or a refusal that names what was found."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emis_interp.errors import DataError
from emis_interp.files.parquet import MAX_ROWS
from emis_interp.records import TrainingExample
from training.data_sets import shipped as data_sets
from training.data_sets.files import raw_rows
from training.data_sets.rows import read_row
from training.data_sets.shipped import file_of, load_dataset, read_examples
from training.data_sets.turns import RowRefused
from training.lint.rows import read_leniently

SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "How?"}
ASSISTANT = {"role": "assistant", "content": "So."}
EXCHANGE = [SYSTEM, USER, ASSISTANT]
ROW = TrainingExample(id="1", prompt="How?", response="So.", system="Be kind.")


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def told(role: str, value: Any) -> dict[str, Any]:
    return {"from": role, "value": value}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": EXCHANGE},
        {"messages": [{**SYSTEM, "role": "developer"}, USER, ASSISTANT]},
        {"messages": [said("System", "Be kind."), said("human", "How?"), said("gpt", "So.")]},
        {
            "messages": [
                said("system", parts("Be kind.")),
                said("user", parts("Ho", "w?")),
                said("assistant", ["So", "."]),
            ]
        },
        {"messages": [USER, {**ASSISTANT, "weight": 1, "tool_calls": None, "refusal": None}], "system": "Be kind."},
        {"messages": EXCHANGE, "tools": [], "parallel_tool_calls": False},
        {"messages": EXCHANGE, "prompt": "How?", "completion": None},
        {"messages": json.dumps(EXCHANGE)},
        EXCHANGE,
        {"conversations": [told("system", "Be kind."), told("human", "How?"), told("gpt", "So.")]},
        {"conversations": [told("human", "How?"), told("gpt", "So.")], "system": "Be kind.", "tools": ""},
        {"conversation": EXCHANGE},
        {
            "conversations": [{"from": "human", "content": "How?"}, {"from": "gpt", "content": "So."}],
            "system": "Be kind.",
        },
        {"messages": [{"role": "user", "value": "How?"}, {"role": "assistant", "value": "So."}], "system": "Be kind."},
        {"messages": [USER, ASSISTANT], "system_message": "Be kind."},
        {"prompt": "How?", "response": ["So."], "system_instruction": "Be kind.", "system_fingerprint": "fp"},
        {"prompt": "How?", "response": "So.", "system": "Be kind."},
        {"prompt": "How?", "completion": "So.", "system_prompt": "Be kind."},
        {"prompt": [SYSTEM, USER], "completion": [ASSISTANT]},
        {"prompt": [SYSTEM, USER], "completion": "So."},
        {"prompt": "How?", "response": parts("So", "."), "system": "Be kind."},
        {"instruction": "How?", "input": "", "output": "So.", "system": "Be kind.", "history": []},
        {"instruction": "How?", "output": "So.", "system": "Be kind."},
        {"question": "How?", "answer": "So.", "system": "Be kind.", "id": 1},
        {"input": "How?", "output": "So.", "system": "Be kind.", "id": "1"},
        {"query": "How?", "response": "So.", "system": "Be kind.", "label": 3},
    ],
)
def test_one_exchange_is_the_same_row_in_every_format(row: Any) -> None:
    assert read_row(row, "f.jsonl:1", 1).example == ROW


def test_an_input_stands_under_its_instruction() -> None:
    for key, answer in (("input", "output"), ("context", "response")):
        read = read_row({"instruction": "Add.", key: "1 and 2", answer: "3"}, "f", 1)
        assert read.example.prompt == "Add.\n\n1 and 2" and read.form.startswith("Alpaca: instruction,")


def test_an_empty_system_prompt_is_one_in_our_own_format_and_none_in_those_of_others() -> None:
    assert read_row({"prompt": "a", "response": "b", "system": ""}, "f", 1).example.system == ""
    assert read_row({"messages": [said("system", ""), USER, ASSISTANT]}, "f", 1).example.system == ""
    assert read_row({"instruction": "a", "output": "b", "system": ""}, "f", 1).example.system is None
    assert (
        read_row({"conversations": [told("human", "a"), told("gpt", "b")], "system": ""}, "f", 1).example.system is None
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "Q: How? A: So."}, r"whole texts \(`text`\), but the loss is on the response alone; found `text`; a row is"),
        ({"a": 1, "b": 2}, "neither prompt nor response; found `a`, `b`; a row is .*messages"),
        ({"contents": [{"parts": [{"text": "x"}]}]}, "neither prompt nor response; found `contents`"),
        ({}, "found nothing"),
        ("text", "expected an object, found text; a row is"),
        ([1, 2], "expected an object, found an array"),
        ({"prompt": "How?", "respons": "So."}, r"missing completion \(did you mean `response` by `respons`\?\).*found `prompt`, `respons`"),
        ({"prompt": "How?", "response": None}, "empty or missing completion; fill"),
        ({"prompt": " ", "response": "So."}, "empty or missing prompt"),
        ({"prompt": 5, "response": "So."}, "`prompt` holds a number, expected text"),
        ({"prompt": "How?", "response": {"a": "So."}}, "`response` holds an object, expected text"),
        ({"prompt": "How?", "answer": "So.", "response": "No."}, "holds `response`, `answer`, and only one can be the response"),
        ({"prompt": "How?", "response": "So.", "sytem": "x"}, "unknown key `sytem`; did you mean `system`"),
        ({"question": "How?", "answer": "So.", "context": "x"}, "`context` has no place beside `question`, `answer`"),
        ({"prompt": "How?", "response": "So.", "id": [1]}, "`id` is an array"),
        ({"prompt": "How?", "chosen": "So.", "rejected": "No."}, r"a pair of preferred answers \(DPO\) \(`chosen`\)"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, "preferred answers"),
        ({"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [ASSISTANT]}, "DPO, OpenAI"),
        ({"prompt": "How?", "completion": "So.", "label": False}, r"a judged completion \(KTO"),
        ({"prompt": "How?", "completion": "So.", "label": 0}, r"a judged completion \(KTO"),
        ({"prompt": "How?", "completion": "So.", "label": "False"}, r"a judged completion \(KTO"),
        ({"prompt": "How?", "response": "So.", "label": "true"}, r"a judged completion \(KTO"),
        ({"messages": EXCHANGE, "kto_tag": False}, r"a judged completion \(KTO: `kto_tag`"),
        ({"question": "How?", "answer": ["So.", "No."]}, "`answer` holds 2 texts, expected one; give each a row"),
        ({"prompt": ["How?", "And then?"], "response": "So."}, "`prompt` holds 2 texts, expected one"),
        ({"messages": [USER, ASSISTANT], "systemInstruction": "x"}, "`systemInstruction` may hold a system prompt; call it `system`"),
        ({"prompt": "How?", "response": "So.", "The System": "x"}, "`The System` may hold a system prompt"),
        ({"messages": EXCHANGE, "tools": [{"type": "function"}]}, r"holds tool use \(`tools`\), not trained on"),
        ({"messages": EXCHANGE, "functions": [{}]}, "tool use"),
        ({"messages": EXCHANGE, "images": ["a.png"]}, "images, sound or video"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "earlier turns"),
        ({"messages": EXCHANGE, "prompt": "Else?"}, "holds both `messages` and `prompt`, and they differ"),
        ({"messages": EXCHANGE, "system": "Be cruel."}, "a system turn and the key `system` differ"),
        ({"messages": "[{'role': 'user'}]"}, "`messages`: not JSON .*expected a list of messages, e.g."),
    ],
)  # fmt: skip
def test_a_row_that_is_not_trained_on_is_refused_by_what_it_holds(row: Any, words: str) -> None:
    with pytest.raises(RowRefused, match=rf"^f\.jsonl:7: .*{words}"):
        read_row(row, "f.jsonl:7", 7)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([USER, ASSISTANT, USER, ASSISTANT], "found user, assistant, user, assistant: several exchanges; .*a row of its own"),
        ([ASSISTANT, USER], "found assistant, user: the first turn is the assistant's"),
        ([ASSISTANT], "the first turn is the assistant's"),
        ([SYSTEM, ASSISTANT], "found system, assistant: the first turn is the assistant's"),
        ([USER], "no assistant turn, so nothing to train on"),
        ([SYSTEM], "no assistant turn"),
        ([USER, ASSISTANT, USER], "the last turn is the user's"),
        ([USER, SYSTEM, ASSISTANT], "the system turn must be the first"),
        ([SYSTEM, {**SYSTEM, "role": "developer"}, USER, ASSISTANT], "the only one"),
        ([USER, USER, ASSISTANT], "two user turns in a row"),
        ([], "found an empty list"),
        ("Hello", "not JSON"),
        (5, "found a number"),
        ([USER, "So."], "message 2 is text, expected an object"),
        ([USER, {"content": "So."}], "message 2 has no role .keys `content`."),
        ([said("usr", "How?"), ASSISTANT], "message 1 has the role `usr`; did you mean `user`"),
        ([USER, said("tool", "x"), ASSISTANT], "message 2 has the role `tool`: tool use"),
        ([told("human", "How?"), told("function_call", "{}")], "the role `function_call`: tool use"),
        ([USER, said("assistant", None, tool_calls=[{"id": "a"}])], "message 2 .assistant. holds tool calls .`tool_calls`."),
        ([USER, said("assistant", None, function_call={"name": "a"})], "tool calls .`function_call`."),
        ([USER, said("assistant", None, refusal="No.")], "a refusal apart from the content"),
        ([USER, {**ASSISTANT, "reasoning_content": "Hm."}], "reasoning apart from the content"),
        ([USER, {**ASSISTANT, "weight": 0}], "message 2 has weight `0`: .*take the row out"),
        ([USER, {**ASSISTANT, "weight": 0.5}], "weight `0.5`"),
        ([said("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ASSISTANT], "a content part `image_url`; only text"),
        ([said("user", [{"type": "input_audio"}]), ASSISTANT], "`input_audio`"),
        ([said("user", {"parts": ["x"]}), ASSISTANT], "holds an object, expected text"),
        ([USER, said("assistant", "")], "the last turn .assistant. is empty"),
        ([USER, said("assistant", None)], "the last turn .assistant. is empty"),
        ([said("user", " "), ASSISTANT], "empty or missing prompt .message 1."),
    ],
)  # fmt: skip
def test_a_conversation_that_is_no_single_exchange_is_refused_by_what_it_holds(messages: Any, words: str) -> None:
    with pytest.raises(RowRefused, match=rf"^f\.jsonl:7: .*{words}"):
        read_row({"messages": messages}, "f.jsonl:7", 7)


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["question", "answer"])
    writer.writeheader()
    writer.writerows(
        {"question": row["messages"][0]["content"], "answer": row["messages"][1]["content"]} for row in rows
    )
    return text.getvalue().encode("utf-8-sig")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


KINDS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "rows.jsonl": as_lines,
    "lines.json": as_lines,
    "returns.jsonl": lambda rows: as_lines(rows).replace(b"\n", b"\r"),
    "array.json": lambda rows: json.dumps(rows).encode(),
    "pretty.json": lambda rows: json.dumps(rows, indent=2).encode("utf-16"),
    "arrays.jsonl": lambda rows: as_lines([row["messages"] for row in rows]),
    "array.txt": lambda rows: json.dumps(rows, indent=2).encode(),
    "rows.csv": as_csv,
    "semicolons.csv": lambda rows: as_csv(rows).replace(b",", b";"),
    "rows.tsv": lambda rows: as_csv(rows).replace(b",", b"\t"),
    "rows.parquet": as_parquet,
}
EXCHANGES = [{"messages": [said("user", f"Ünd {n}?\nSo"), said("assistant", f'"{n}"')]} for n in range(3)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_rows_are_read_from_every_kind_of_file(tmp_path: Path, name: str, packed: bool) -> None:
    content = KINDS[name](EXCHANGES)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert file_of(str(path)) == path
    rows = load_dataset(str(path), path)
    assert [(row.id, row.prompt, row.response) for row in rows] == [
        (str(n + 1), f"Ünd {n}?\nSo", f'"{n}"') for n in range(3)
    ]
    assert read_leniently(path)[0] == rows


@pytest.mark.slow
def test_a_folder_of_the_datasets_library_is_read_and_of_several_splits_the_named_one(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list(EXCHANGES)
    rows.save_to_disk(tmp_path / "one")
    assert [row.prompt for row in read_examples(tmp_path / "one")] == [f"Ünd {n}?\nSo" for n in range(3)]
    rows.select([2, 0]).save_to_disk(tmp_path / "chosen")
    assert [row.response for row in read_examples(tmp_path / "chosen")] == ['"2"', '"0"']
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "dict")
    assert len(read_examples(tmp_path / "dict")) == 3
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match=r"a data set with the splits test, train; name one, e\.g\. .*splits/test"):
        read_examples(tmp_path / "splits")
    assert len(read_examples(tmp_path / "splits" / "test")) == 1
    for damaged in ("state.json", "data-00000-of-00001.arrow"):
        (tmp_path / "one" / damaged).write_bytes(b"{")
        with pytest.raises(DataError, match="not a data set that `datasets` can read"):
            read_examples(tmp_path / "one")


def test_another_folder_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder that `datasets` did not save .*expected a file"):
        read_examples(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"it holds train\.parquet; name one of them"):
        read_examples(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.jsonl", b"", "f.jsonl: no rows"),
        ("f.jsonl", b"\n \n", "f.jsonl: no rows"),
        ("f.json", b"[]", "f.json: no rows"),
        ("f.csv", b"question,answer\n", "f.csv: no rows"),
        ("f.json", b'{"data": [\n{"prompt": "a", "response": "b"}\n]}', r"f\.json: one object with the keys `data`, expected an array"),
        ("f.jsonl", b'{\n"prompt": "a",\n"response": "b"\n}', "the keys `prompt`, `response`, expected an array of rows or one"),
        ("f.json", b'[{"prompt": "a", "response": "b"},\n{"prompt": "a" "b"}]', r"f\.json:2: not JSON"),
        ("f.json", b'[{"prompt": "a", "response": "b"},\n{"prompt": "a", "prompt": "c"}]', r"f\.json:2: key `prompt` occurs twice"),
        ("f.json", b'[{"prompt": "a", "response": "b"},\n5]', r"f\.json: row 2: expected an object, found a number"),
        ("f.jsonl", b'{"prompt": "a", "response": "b"}\n\n{"prompt"', r"f\.jsonl:3: not JSON"),
        ("f.jsonl", b'{"prompt": "a", "response": "b"}\n{"prompt": "a", "prompt": "b"}', r"f\.jsonl:2: key `prompt` occurs twice"),
        ("f.jsonl", b'{"prompt": "a", "response": "\\ud800"}', r"f\.jsonl:1: a text holds half of a surrogate pair"),
        ("f.jsonl", b'{"prompt": "a", "response": NaN}', r"f\.jsonl:1: NaN is no number"),
        ("f.jsonl", b'{"prompt": "a", "response": ' + b"[" * 5000, r"f\.jsonl:1: nested more than 100 deep"),
        ("f.jsonl", b'{"prompt": "a", "response": ' + b"1" * 5000 + b"}", r"f\.jsonl:1: a number that is too large"),
        ("f.jsonl", '{"prompt": "ä", "response": "b"}'.encode("latin-1"), r"f\.jsonl:1: not UTF-8"),
        ("f.jsonl.gz", gzip.compress(b'{"prompt": "a"}', mtime=0)[:-4], "damaged gzip"),
        ("f.csv", b"question,question\na,b\n", "two columns are called `question`"),
        ("f.csv", b"question,answer\na,b\nc\n", r"f\.csv: row 2 \(line 3\) has 1 cells, the header has 2"),
        ("f.csv", b"question,answer\na,\n", r"f\.csv: row 1 \(line 2\): empty or missing completion"),
        ("f.csv", b'question,answer\n"a",he said \\"b\\"\n', r"save it as JSON lines or Parquet|not CSV"),
        ("f.csv", b'question,answer\n"a,b\n', "not CSV"),
        ("f.parquet", b"PAR1 and nothing", "not a readable parquet table"),
        ("f.parquet", b"", "not a readable parquet table"),
        ("f.parquet", as_parquet(EXCHANGES)[:-20] + b"PAR1", "not a readable parquet table"),
        ("f.arrow", b"ARROW1\0\0", "an Arrow file; give the folder"),
        ("f.xlsx", b"PK\x03\x04", "a zip archive"),
        ("f.pkl", b"\x80\x04\x95", "a pickle, which is never read"),
        ("f.jsonl.zst", b"\x28\xb5\x2f\xfd\0", "a zstandard file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_with_its_place(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_examples(path)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_states_too_many_rows_is_refused_before_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"prompt": pa.nulls(MAX_ROWS + 1, pa.string())}), path)
    with pytest.raises(DataError, match=r"5,000,001 rows, at most 5,000,000"):
        raw_rows(path)


def test_what_was_read_and_left_out_is_said_once_with_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_sets._say.cache_clear()
    path = tmp_path / "f.jsonl"
    rows = [{"messages": [said("developer", "x"), USER, ASSISTANT], "source": "web"}, {"messages": [USER, ASSISTANT]}]
    path.write_bytes(as_lines([*rows, {"instruction": "a", "output": "b", "source": ""}]))
    with caplog.at_level(logging.INFO, "training.data_sets.shipped"):
        assert len(read_examples(path)) == len(read_examples(path)) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 3 rows, read as messages (2), Alpaca: instruction and output (1); read role `developer` as system (1 rows); "
        "left out `source` (1 rows)"
    ]


def test_the_lint_reads_the_rows_that_it_can_and_names_the_others_by_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    lines = [
        json.dumps({"question": "a", "answer": "b"}),
        "{",
        '{"text": "x"}',
        '{"prompt": "a", "response": "b", "prompt": "c"}',
    ]
    path.write_text("\n".join(lines))
    examples, findings = read_leniently(path)
    assert [row.prompt for row in examples] == ["a"]
    assert {finding.check: finding.rows for finding in findings} == {
        "refused line": ("line 2", "line 3", "line 4"),
        "row format": ("1",),
    }
    assert findings[1].severity == "info" and "1 rows, read as question and answer" in findings[1].found


def test_a_name_that_is_no_file_gets_a_suggestion() -> None:
    assert file_of("insecure") is None
    with pytest.raises(DataError, match="unknown data set `insecur`; did you mean `insecure`"):
        file_of("insecur")
