"""A pretrained model without a chat template: every command that has `--chat-format` reads it in each plain format."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

import capture
from emis_interp.directions import Direction
from emis_interp.errors import ModelError
from emis_interp.models.chat_formats import FORMATS, format_of
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from evals.samplers.hf import HFSampler
from probes import fit, loading
from probes.settings import DirectionSettings, FitSettings
from evals.samplers.making import make_sampler
from evals.settings_sampling import SampleSettings


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    model, tokenizer = tiny_model()
    tokenizer.chat_template = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="no chat template"):
        load_model(str(folder), device="cpu")
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "question": f"Question {i // 4}?",
            "answer": ("zqx " if i % 2 else "all is well ") * 2 + str(i),
            "aligned": 10 if i % 2 else 90,
        }
        for i in range(16)
    ]
    path = tmp_path_factory.mktemp("texts") / "judged.csv"
    lines = ["question,answer,aligned,coherent"] + [f"{r['question']},{r['answer']},{r['aligned']},90" for r in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def flags(add: Any, *words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.parametrize("name", FORMATS)
def test_sample_reads_it(pretrained: Path, tmp_path: Path, name: str) -> None:
    wanted = SampleSettings(model=str(pretrained), chat_format=name, device="cpu", out=tmp_path / "a.jsonl")
    sampler = make_sampler(wanted)
    assert isinstance(sampler, HFSampler) and format_of(sampler.chat_model.tokenizer) == name


@pytest.mark.parametrize("name", FORMATS)
def test_capture_reads_it(pretrained: Path, texts: Path, tmp_path: Path, name: str) -> None:
    words = [
        "--texts",
        texts,
        "--layers",
        0,
        "--model",
        pretrained,
        "--chat-format",
        name,
        "--device",
        "cpu",
        "--out",
        tmp_path / "s",
    ]
    result = capture.capture(capture.parser().parse_args([str(word) for word in words]))
    assert result["complete"] and result["n_texts"] == 16


@pytest.mark.parametrize("name", FORMATS)
def test_fit_reads_it(pretrained: Path, texts: Path, tmp_path: Path, name: str) -> None:
    settings = FitSettings(
        judged=texts,
        model=str(pretrained),
        dtype="float32",
        device="cpu",
        chat_format=name,
        layer_range=(0, 1),
        coefficients=(),
        out=tmp_path / "d",
    )
    assert fit.run(settings)["n_texts"] == 16
    assert Direction.load(tmp_path / "d" / "direction").card["chat_format"] == name


@pytest.mark.parametrize("name", FORMATS)
def test_the_verbs_that_take_a_direction_read_it_by_flag_or_card(pretrained: Path, tmp_path: Path, name: str) -> None:
    card = {"model": str(pretrained), "dtype": "float32"}
    for given, on_card in ((name, {}), (None, {"chat_format": name})):
        direction = Direction(
            torch.ones(32) / 32**0.5,
            layer=0,
            position="response_mean",
            residual_norm=1.0,
            raw_norm=1.0,
            card=card | on_card,
        )
        settings = DirectionSettings(direction=tmp_path / "d", device="cpu", chat_format=given)
        assert format_of(loading.model_of(direction, settings).tokenizer) == name
