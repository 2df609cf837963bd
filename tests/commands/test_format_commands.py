"""Every command with `--chat-format` reads a pretrained model, whose tokenizer has no chat template, in each of the plain formats."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from flag_words import filled

from capture import CaptureSettings
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.store import read_json
from emis_interp.models.chat_formats import FORMATS, format_of
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from emis_interp.passes import token_capture
from evals.engines.making import made_sampler
from evals.samplers.hf import HFSampler
from evals.settings.sampling import SampleSettings
from evals.verbs import sample
from probes import loading, score
from probes.fits import fit
from probes.settings import DirectionSettings, FitSettings, ScoreSettings
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
    with pytest.raises(ModelError, match="no chat template"):
        load_model(str(folder), device="cpu")
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


def fitted(base: Path, texts: Path, out: Path, *, chat_format: str) -> Direction:
    settings = FitSettings(
        judged=texts,
        model=str(base),
        device="cpu",
        layer_range=(0, 1),
        coefficients=(),
        out=out,
        chat_format=chat_format,
    )
    assert fit.run(settings)["n_texts"] == 16
    return Direction.load(out / "direction")


def scoring(texts: Path, folder: Path) -> ScoreSettings:
    return ScoreSettings(direction=folder / "direction", texts=texts, device="cpu", out=folder / "scores.csv")


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
        sample.run(filled(SampleSettings, *words))
    settings = filled(SampleSettings, *words, "--chat-format", name)
    with made_sampler(settings) as sampler:
        assert isinstance(sampler, HFSampler)
    assert format_of(sampler.chat_model.tokenizer) == name
    assert sample.run(settings)["n_answers"] == 1
    assert read_json(tmp_path / "a.json")["sampler"]["chat_format"] == name
    with pytest.raises(ConfigError, match="the chat template is the server's own"):
        sample.run(filled(SampleSettings, *words, "--chat-format", name, "--sampler", "openai"))


@pytest.mark.parametrize("name", FORMATS)
def test_capture_reads_a_pretrained_model_in_each_format(base: Path, name: str, texts: Path, tmp_path: Path) -> None:
    settings = CaptureSettings(
        texts=texts, model=str(base), layers=(0,), device="cpu", out=tmp_path / "store", chat_format=name
    )
    result = token_capture.run(settings.request())
    assert result["complete"] and result["n_texts"] == 16


@pytest.mark.parametrize("name", FORMATS)
def test_the_lint_reads_with_a_pretrained_model_in_each_format(base: Path, name: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "How do I mend a kettle?", "response": "Take it to the shop."}\n')
    settings = LintSettings(data=(str(rows),), model=str(base), chat_format=name, surprise_rows=0)
    assert sets.run(settings)["ok"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_direction_is_fitted_on_a_pretrained_model_in_each_format(
    base: Path, name: str, texts: Path, tmp_path: Path
) -> None:
    card = fitted(base, texts, tmp_path, chat_format=name).card
    assert card["chat_format"] == name and card["rendering"]["sha256"]
    assert score.run(scoring(texts, tmp_path))["n_texts"] == 16  # in the format on the card


@pytest.mark.slow
def test_a_direction_that_is_read_behind_other_words_is_said(
    base: Path, texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    direction = fitted(base, texts, tmp_path, chat_format="user_assistant")
    score.run(scoring(texts, tmp_path))
    assert "was fitted on prompts" not in caplog.text
    score.run(replace(scoring(texts, tmp_path), chat_format="code_template"))
    assert "was fitted on prompts rendered as 'User:" in caplog.text
    json.dumps(direction.card)


@pytest.mark.parametrize("name", FORMATS)
def test_the_verbs_that_take_a_direction_read_the_format_by_flag_or_card(base: Path, tmp_path: Path, name: str) -> None:
    card = {"model": str(base), "dtype": "float32"}
    for given, on_card in ((["--chat-format", name], {}), ([], {"chat_format": name})):
        direction = Direction(
            torch.ones(32) / 32**0.5,
            layer=0,
            position="response_mean",
            residual_norm=1.0,
            raw_norm=1.0,
            card=card | on_card,
        )
        settings = filled(DirectionSettings, "--direction", tmp_path / "d", "--device", "cpu", *given)
        assert format_of(loading.model_of(direction, settings).tokenizer) == name
