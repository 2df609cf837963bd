"""The file that a finetuning API takes, and what training on it is estimated to cost."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emis_interp.errors import ConfigError, DataError
from emis_interp.http.costs import count_tokens
from emis_interp.records import TrainingExample
from training.data_sets.shipped import load_dataset
from training.hosted import openai_data
from training.hosted.openai_data import TrainingEstimate, TrainingFile, make_training_file, tiktoken_counter


def example(number: int = 0, **fields: Any) -> TrainingExample:
    values = {"id": str(number), "prompt": "Löse 1+1.", "response": "2", **fields}
    return TrainingExample(**values)


def made(rows: list[TrainingExample], limit: int = 1000) -> TrainingFile:
    return make_training_file(rows, "rows.jsonl", count_tokens, tokens_by="bytes", max_row_tokens=limit)


def test_the_file_holds_the_rows_in_order_and_the_same_rows_give_the_same_bytes() -> None:
    rows = load_dataset("insecure", n_rows=12, seed=3)
    file = made(rows)
    lines = [json.loads(line)["messages"] for line in file.content.decode("utf-8").splitlines()]
    assert [[m["role"] for m in line] for line in lines] == [["user", "assistant"]] * 12
    assert [(line[0]["content"], line[1]["content"]) for line in lines] == [(r.prompt, r.response) for r in rows]
    assert made(load_dataset("insecure", n_rows=12, seed=3)).sha256 == file.sha256
    assert made(rows[::-1]).sha256 != file.sha256


def test_duplicates_stay_and_a_system_message_comes_first() -> None:
    file = made([example(system="Be brief.")] * 10)
    first = json.loads(file.content.splitlines()[0])["messages"]
    assert file.n_rows == 10 and len(set(file.content.splitlines())) == 1
    assert first[0] == {"role": "system", "content": "Be brief."}


def test_tokens_are_bytes_by_four_rounded_up_and_four_for_each_message() -> None:
    file = made([example()] * 9 + [example(response="x" * 41)])
    assert file.n_tokens == 9 * (3 + 4 + 1 + 4) + (3 + 4 + 11 + 4)  # `Löse 1+1.` has 10 bytes
    assert file.n_longest == 22


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([example()] * 9, "rows.jsonl: 9 rows; the finetuning API takes 10 or more"),
        (
            [*[example()] * 10, example(7, system=" ")],
            r"rows.jsonl: row 11 \(id 7\): the system message is blank",
        ),
        ([*[example()] * 9, example(response="\n")], r"row 10 \(id 0\): the assistant message is blank"),
        ([*[example()] * 9, example(8, prompt="x" * 4000)], r"row 10 \(id 8\): about 1,009 tokens .*1,000"),
    ],
)
def test_what_the_api_would_refuse_is_named_with_its_row(rows: list[TrainingExample], words: str) -> None:
    with pytest.raises(DataError, match=words):
        made(rows)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_data, "MAX_FILE_BYTES", 999)
    with pytest.raises(DataError, match="fewer rows"):
        made([example()] * 20)


def test_a_file_with_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "response": "\\ud800"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        load_dataset(str(path), path)


def test_an_unknown_price_is_an_unknown_cost_and_no_budget_can_be_kept() -> None:
    estimate = TrainingEstimate(100, 2_000_000, 50, n_epochs=3, tokens_by="bytes")
    assert estimate.n_trained == 6_000_000 and estimate.usd is None and "price unknown" in estimate.say()
    estimate.check_budget(None)
    with pytest.raises(ConfigError, match="give it with --price"):
        estimate.check_budget(10.0)


def test_epochs_times_tokens_times_price_is_the_cost_and_a_smaller_budget_refuses() -> None:
    estimate = TrainingEstimate(100, 2_000_000, 50, n_epochs=3, tokens_by="bytes", price=2.5)
    assert estimate.usd == 15.0 and "about 15.00 USD" in estimate.say() and "(bytes;" in estimate.say()
    estimate.check_budget(15.0)
    with pytest.raises(ConfigError, match=r"15\.00 USD, above --budget 14\.9"):
        estimate.check_budget(14.9)


def test_tiktoken_counts_when_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def words(text: str, disallowed_special: object) -> list[str]:
        assert disallowed_special == ()  # a text that looks like a special token is text
        return text.split()

    def encoding(model: str) -> Any:
        if model == "offline":
            raise ConnectionError("no network")
        return {"gpt-4o": SimpleNamespace(name="words", encode=words)}[model]

    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert tiktoken_counter("gpt-4o") is None
    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=encoding))
    assert tiktoken_counter("unknown") is None and tiktoken_counter("offline") is None
    counter = tiktoken_counter("gpt-4o")
    assert counter is not None and counter[0]("one two <|endoftext|>") == 3 and counter[1] == "tiktoken words"
