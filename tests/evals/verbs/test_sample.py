"""The verb `sample`: flags to a file of answers, and what it tells."""

from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer, failure
from flag_words import filled

from emis_interp.errors import ConfigError, DataError, ModelError
from emis_interp.files.store import read_json, read_records
from emis_interp.records import Completion
from evals.settings_sampling import SampleSettings
from evals.verbs import sample

QUESTIONS = """
- id: colour
  paraphrases: ["Name a colour.", "Which colour?"]
  samples_per_paraphrase: 2
- id: json
  paraphrases: ["Who are you?"]
  system: Answer in JSON.
"""


def sampled(folder: Path, *flags: str) -> dict[str, Any]:
    file = folder / "questions.yaml"
    file.write_text(QUESTIONS)
    return sample.run(filled(SampleSettings, "--questions", file, "--out", folder / "answers.jsonl", *flags))


def test_the_tiny_model_answers_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    flags = (
        "--model",
        "tiny",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--max-new-tokens",
        "5",
        "--system-prompt",
        "Hi.",
    )
    first = sampled(tmp_path, *flags)
    rows = read_records(tmp_path / "answers.jsonl", Completion)
    assert [(row.arm, row.question_id, row.system) for row in rows].count(("answers", "colour", "Hi.")) == 4
    assert {row.system for row in rows} == {"Hi.", "Answer in JSON."}
    assert first["n_planned"] == first["n_answers"] == first["n_new"] == len(rows) == 5
    assert first["tokens_per_second"] > 0 and first["n_missing"] == 0 and first["missing"] == {}
    assert sum(first["finish"].values()) == 5
    assert read_json(Path(first["card"]))["sampler"]["dtype"] == "float32"
    again = sampled(tmp_path, *flags)
    assert again["n_new"] == 0 and again["tokens_per_second"] is None and again["n_answers"] == 5
    assert read_records(tmp_path / "answers.jsonl", Completion) == rows
    assert "5 of 5 answers of answers" in sample.say(again)


def test_n_seed_and_question_ids_choose_what_is_asked(tmp_path: Path) -> None:
    flags = ("--model", "tiny", "--device", "cpu", "--max-new-tokens", "2", "--n", "3", "--question-ids", "json")
    assert sampled(tmp_path, *flags, "--arm", "base", "--seed", "7")["n_answers"] == 3
    rows = read_records(tmp_path / "answers.jsonl", Completion)
    assert {(row.arm, row.question_id) for row in rows} == {("base", "json")}
    assert read_json(tmp_path / "answers.json")["seed"] == 7


def test_a_server_that_fails_now_and_then_is_told_with_counts_and_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-of-the-test")

    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        return failure(422, "no colours") if "colour?" in body["messages"][-1]["content"] else answer("Red.")

    with ChatServer(respond) as server:
        flags = ("--sampler", "openai", "--model", "m", "--url", server.url, "--key-variable", "MY_KEY")
        result = sampled(tmp_path, *flags)
        assert (result["n_answers"], result["n_missing"]) == (3, 2)
        assert result["missing"] == {"HTTP 422: no colours": 2}
        text = sample.say(result)
        assert "3 of 5 answers" in text and "2 answers are missing; the same command asks for them again" in text
        assert "  2 x HTTP 422: no colours" in text
        server.respond = lambda body, asked: answer("Blue.")
        result = sampled(tmp_path, *flags)
    assert (result["n_answers"], result["n_new"], result["n_missing"]) == (5, 2, 0)


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (("--model", "tiny", "--n", "0"), ConfigError, "--n 0: must be at least 1"),
        (("--model", "tiny", "--temperature", "-1"), ConfigError, "--temperature -1.0: must be at least 0"),
        (("--model", "tiny", "--question-ids", "colours"), ConfigError, "no question `colours`; did you mean `colour`"),
        (("--model", "tiny", "--questions", "none.yaml"), DataError, "none.yaml: no such file"),
        (
            ("--model", "tiny", "--url", "http://localhost:1/v1"),
            ConfigError,
            "--url is for --sampler openai, not for hf",
        ),
        (("--model", "m", "--sampler", "openai", "--adapter", "x"), ConfigError, "--adapter: a server chooses its own"),
        (
            ("--model", "m", "--sampler", "openai", "--key-variable", "NO_KEY"),
            ModelError,
            "environment variable NO_KEY",
        ),
        (("--model", "m", "--sampler", "openai", "--url", "localhost"), ModelError, "must look like http://localhost"),
    ],
)
def test_a_wrong_flag_is_one_line_of_advice(
    tmp_path: Path, flags: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        sampled(tmp_path, *flags)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "answers.jsonl").exists()
