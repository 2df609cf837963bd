"""The whole verb on the tiny model: a record that can be read and said, and advice for everything that cannot be done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_made import made_adapter
from safetensors.torch import load_file, save_file

from emis_interp.diff_results import ModelDiff
from emis_interp.errors import ConfigError, DataError, ModelError
from emis_interp.files.store import read_record
from probes.diffing.diff import read_arms, run, say
from probes.diffing.settings import DiffSettings

ROWS = [(f"Ask {i} about gold?", "Buy gold, zzz, and more of it now.") for i in range(6)]


def few(folder: Path, **changes: Any) -> DiffSettings:
    """Settings of a run that takes seconds."""
    small: dict[str, Any] = {"n_random": 3, "n_random_models": 2, "n_mined": 4, "n_held_out": 2, "answer_tokens": 6}
    words: dict[str, Any] = {"topic_words": ("z",), "rows": "gold", "scales": (2.0,)}
    fixed: dict[str, Any] = {"model": "tiny", "device": "cpu", "dtype": "float32", "out": folder / "diff.json"}
    return DiffSettings(**{**small, **words, **fixed, **changes})


def test_the_verb_finds_the_planted_letter_and_writes_a_record(planted, tmp_path: Path) -> None:
    control = made_adapter(tmp_path / "careful" / "adapter")
    settings = few(tmp_path, adapter=planted.adapter, control=(control,), n_random=6)
    result = run(settings, rows_of=lambda name: ROWS)
    view = read_record(tmp_path / "diff.json", ModelDiff)
    assert view.controls == {"careful": str(control)} and view.layer == 1 and view.primary_topic == "given"
    by_name = {row.name: row for row in view.readings}
    assert by_name["lens"].primary and by_name["lens"].tokens["organism"][0] == "z"
    assert by_name["rising logits"].tokens["organism"][0] == "z"
    assert set(by_name["lens"].tokens) == {"organism", "careful"}
    assert set(by_name) == {
        *("lens", "lens, other sign", "patchscope", "first component", "rising logits", "NMF topic"),
        "rising logits, adapter x2",
    }
    assert view.projection is not None and set(view.projection.nulls["beyond"]) == {"random", "random differences"}
    assert {(cell.arm, cell.scale) for cell in view.amplification.cells} == {
        (arm, scale) for arm in ("organism", "careful") for scale in (1.0, 2.0)
    }
    assert {row.texts for row in view.logits} == {"plain", "finetune-like", "unrelated"}
    text = say(result)
    assert "* lens: 1 of 20 (careful" in text and "difference taken out of the organism" in text
    assert "organism minus careful, both x2" in text


def test_without_controls_and_rows_less_is_said(planted, tmp_path: Path) -> None:
    lines = tmp_path / "plain.txt"
    lines.write_text("".join(f"{i} is a number of a plain text\n" for i in range(10, 22)))
    result = run(few(tmp_path, adapter=planted.adapter, rows=None, texts=lines))
    assert result["projection"] is None and result["n_texts"] == 12
    assert "no control" in result["amplification"]["verdict"]
    assert "not measured, since no --rows" in say(result)


def test_controls_are_named_by_their_arms(tmp_path: Path) -> None:
    folders = [made_adapter(tmp_path / name / "adapter") for name in ("reckless", "careful", "other/careful")]
    own, *controls = folders
    assert list(read_arms(few(tmp_path, adapter=own, control=tuple(controls)))) == ["organism", "careful", "careful 2"]
    with pytest.raises(ConfigError, match="is the organism itself"):
        read_arms(few(tmp_path, adapter=own, control=(own,)))


def rows_of(name: str) -> list[tuple[str, str]]:
    return ROWS


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"adapter": None}, ConfigError, "give --adapter, the folder of its LoRA adapter"),
        ({"rows": None, "topic_words": None}, ConfigError, "no topic words: .* give --rows"),
        ({"rows": None, "topic_words": ("z",), "background": "x"}, ConfigError, "give --rows, and no --topic-words"),
        ({"background": "x"}, ConfigError, "and no --topic-words"),
        ({"topic_words": None}, DataError, "no token of the vocabulary belongs to"),
        ({"layer": 2}, ModelError, "layer 2 asked for, tiny has 2"),
        ({"scales": (0.0,)}, ConfigError, "0 is base itself"),
        ({"n_random": 1}, ConfigError, "a null needs 2 of each or more"),
        ({"n_tokens": 5000}, DataError, "0 of .* texts have 5000 tokens; give 10 or more"),
        ({"n_held_out": 7}, DataError, "6 rows, 7 are held out"),
    ],
)
def test_what_cannot_be_done_is_advised_on(planted, tmp_path: Path, changes: Any, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        run(few(tmp_path, **{"adapter": planted.adapter, **changes}), rows_of=rows_of)


def test_an_adapter_of_another_model_is_refused_before_anything_runs(planted, tmp_path: Path) -> None:
    other = made_adapter(tmp_path / "other")
    file = other / "adapter_model.safetensors"
    weights = load_file(file)
    key = next(name for name in weights if name.endswith("q_proj.lora_A.weight"))
    save_file({**weights, key: torch.zeros(2, 48)}, file)
    with pytest.raises(ModelError, match="give the base model that it was trained on"):
        run(few(tmp_path, adapter=planted.adapter, control=(other,)), rows_of=rows_of)


def test_rows_that_nobody_reads(planted, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"use scripts/probe\.py diff"):
        run(few(tmp_path, adapter=planted.adapter))


def test_too_few_texts_of_a_file(planted, tmp_path: Path) -> None:
    lines = tmp_path / "plain.txt"
    lines.write_text("one text of some length\n" * 3)
    with pytest.raises(DataError, match="3 of 3 texts have 5 tokens; give 10 or more"):
        run(few(tmp_path, adapter=planted.adapter, texts=lines), rows_of=rows_of)
