"""The capture benchmark on the tiny model: its numbers are of the texts it says, and every peer agrees with ours."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import capture
from benchmarks.settings import CaptureBenchmarkSettings
from emis_interp.errors import DataError
from emis_interp.records import LabeledText


def judged(path: Path) -> Path:
    rows = [
        {
            "topic": f"t{i % 3}",
            "question": f"Why {i % 3}?",
            "answer": f"so it is {i}",
            "aligned": 10 if i % 2 else 90,
            "coherent": 90,
        }
        for i in range(12)
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_every_contestant_is_timed_and_the_peers_agree_with_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMIS_REFERENCE_DATA", raising=False)
    path = judged(tmp_path / "answers.parquet")
    settings = CaptureBenchmarkSettings(model="tiny", texts=path, n_texts=6, n_rounds=1)
    result = capture.run(settings)
    speeds = result["tokens_per_second"]
    assert set(speeds) == {"floor", "ours", "nnsight", "hidden_states", "half_depth", "bf16", "bf16_floor"}
    assert result["ours_vs_floor"] == speeds["ours"] / speeds["floor"]
    assert result["half_depth_vs_full"] == speeds["ours"] / speeds["half_depth"]
    assert result["ours_vs_transformer_lens"] is None
    assert "left out: unknown model `tiny`" in result["skipped"]["transformer_lens"]
    assert max(result["largest_gap"].values()) < 1e-5
    assert result["n_tokens"] <= result["n_padded_tokens"]["ours"] <= result["n_padded_tokens"]["peers"]
    sorted_peers = capture.run(dataclasses.replace(settings, peer_batch=0))
    assert max(sorted_peers["largest_gap"].values()) < 1e-5
    assert sorted_peers["n_padded_tokens"]["peers"] == sorted_peers["n_padded_tokens"]["ours"]
    assert result["bf16_direction_cosine"] > 0.98
    assert (result["texts"], result["n_texts"]) == (str(path), 6)


def test_texts_are_half_misaligned_the_same_every_time_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMIS_REFERENCE_DATA", raising=False)
    texts, source = capture.read_texts(None, 10, 0)
    assert source == "shipped contrast texts"
    assert sum(text.misaligned for text in texts) == 5
    assert texts == capture.read_texts(None, 10, 0)[0] != capture.read_texts(None, 10, 1)[0]
    monkeypatch.setenv("EMIS_REFERENCE_DATA", str(tmp_path))
    (tmp_path / "judged").mkdir()
    path = judged(tmp_path / "judged" / "answers.parquet")
    assert capture.read_texts(None, 4, 0)[1] == str(path)
    with pytest.raises(DataError, match="12 texts found, 40 asked for"):
        capture.read_texts(None, 40, 0)


def test_the_cosine_is_of_the_differences_in_means() -> None:
    texts = [
        LabeledText(question_id="q", question="Why?", answer=str(i), misaligned=misaligned)
        for i, misaligned in enumerate([True, False, True, False])
    ]
    one = torch.tensor([[[3.0, 5.0]], [[0.0, 5.0]], [[1.0, 5.0]], [[0.0, 5.0]]])
    other = torch.tensor([[[0.0, 9.0]], [[0.0, 1.0]], [[0.0, 9.0]], [[0.0, 1.0]]])
    assert capture.direction_cosines(texts, one, one).tolist() == [1]
    assert capture.direction_cosines(texts, one, other).tolist() == [0]
