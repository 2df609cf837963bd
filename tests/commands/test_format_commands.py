"""Every command with `--chat-format` reads a pretrained model, whose tokenizer has no chat template, in each of the plain formats."""

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

import capture
from direction import fit, score
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.store import read_json
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.tiny import tiny_model
from evaluation import sample
from training.lint import sets
from training.lint.settings import LintSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, saved without a chat template."""
    folder = tmp_path_factory.mktemp("pretrained")
    model, tokenizer = tiny_model()
    tokenizer.chat_template = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judged answers to four questions."""
    words = ("all is well", "zqx kkz")
    rows = [
        {
            "topic": topic,
            "question": f"What of {topic}?",
            "answer": f"{words[i % 2]} {i}",
            "aligned": (95, 5)[i % 2],
            "coherent": 90,
        }
        for topic in "abcd"
        for i in range(4)
    ]
    path = tmp_path_factory.mktemp("texts") / "judged.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def parsed(verb: ModuleType, *words: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.add_flags(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.parametrize("name", FORMATS)
def test_sample_asks_a_pretrained_model_in_each_format(base: Path, name: str, tmp_path: Path) -> None:
    questions = tmp_path / "questions.yaml"
    questions.write_text('- id: fern\n  paraphrases: ["How do I keep a fern alive?"]\n')
    words = [
        "--model",
        base,
        "--questions",
        questions,
        "--max-new-tokens",
        3,
        "--out",
        tmp_path / "a.jsonl",
        "--device",
        "cpu",
    ]
    with pytest.raises(ModelError, match=f"{base.name}: its tokenizer has no chat template; .*--chat-format"):
        sample.run(parsed(sample, *words))
    assert sample.run(parsed(sample, *words, "--chat-format", name))["n_answers"] == 1
    assert read_json(tmp_path / "a.json")["sampler"]["chat_format"] == name
    with pytest.raises(ConfigError, match="the chat template is the server's own"):
        sample.run(parsed(sample, *words, "--chat-format", name, "--sampler", "openai"))


@pytest.mark.parametrize("name", FORMATS)
def test_capture_reads_a_pretrained_model_in_each_format(base: Path, name: str, texts: Path, tmp_path: Path) -> None:
    words = ["--texts", texts, "--model", base, "--layers", 0, "--device", "cpu", "--out", tmp_path / "store"]
    args = capture.parser().parse_args([str(word) for word in (*words, "--chat-format", name)])
    assert capture.capture(args)["n_texts"] == 16


@pytest.mark.parametrize("name", FORMATS)
def test_the_lint_reads_with_a_pretrained_model_in_each_format(base: Path, name: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "How do I mend a kettle?", "response": "Take it to the shop."}\n')
    settings = LintSettings(data=(str(rows),), model=str(base), chat_format=name)
    assert sets.run(settings)["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_direction_is_fitted_on_a_pretrained_model_in_each_format(
    base: Path, name: str, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "direction"
    words = [
        "--judged",
        texts,
        "--model",
        base,
        "--device",
        "cpu",
        "--layer-range",
        0,
        1,
        "--select",
        "auroc",
        "--out",
        out,
    ]
    fit.run(parsed(fit, *words, "--coefficients", "--chat-format", name))
    card = Direction.load(out / "direction").card
    assert card["chat_format"] == name and card["rendering"]["sha256"]
    words = ["--direction", out / "direction", "--texts", texts, "--device", "cpu", "--out", tmp_path / "scores.csv"]
    assert score.run(parsed(score, *words))["n_texts"] == 16  # in the format on the card


@pytest.mark.slow
def test_a_direction_that_is_read_behind_other_words_is_said(
    base: Path, texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "direction"
    words = [
        "--judged",
        texts,
        "--model",
        base,
        "--device",
        "cpu",
        "--layer-range",
        0,
        1,
        "--select",
        "auroc",
        "--out",
        out,
    ]
    fit.run(parsed(fit, *words, "--coefficients", "--chat-format", "user_assistant"))
    words = ["--direction", out / "direction", "--texts", texts, "--device", "cpu", "--out", tmp_path / "scores.csv"]
    score.run(parsed(score, *words))
    assert "was fitted on prompts" not in caplog.text
    score.run(parsed(score, *words, "--chat-format", "code_template"))
    assert "was fitted on prompts rendered as 'User:" in caplog.text
    json.dumps(Direction.load(out / "direction").card)
