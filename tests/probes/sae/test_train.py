"""Turns a small run of `probe.py sae` into what stands in sae.json."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emis_interp.errors import ConfigError, DataError, ModelError, StageError
from emis_interp.files.sealed import is_as_sealed
from emis_interp.files.store import read_object, read_record
from emis_interp.sae_results import SaeReport
from probes.sae.layouts import load_dictionary
from probes.sae.settings import SaeSettings
from probes.sae.sources import gather, split_by_question
from probes.sae.train import run, say


def small(out: Path) -> SaeSettings:
    return SaeSettings(
        out=out,
        model="tiny",
        sources=("harmless",),
        expansion=2,
        k=3,
        n_samples=2560,
        batch_size=128,
        held_out=0.2,
        n_spliced=4,
    )


def test_a_run_measures_both_seeds_and_their_controls_and_goes_on_where_it_was(tmp_path: Path) -> None:
    result = run(small(tmp_path))
    record = read_record(tmp_path / "sae.json", SaeReport)
    assert all(
        is_as_sealed(read_object(path)) for path in (tmp_path / "sae.json", tmp_path / "seed-0" / "training.json")
    )
    assert [row.seed for row in record.saes] == [0, 1]
    assert record.layer == 1 and record.hook_name == "blocks.1.hook_resid_post"
    for row in [*record.saes, record.control]:
        assert row is not None and row.fvu.value is not None and row.fvu.low is not None
        assert row.l0 == pytest.approx(3, abs=0.2) and row.pca_k == 3 and row.n_latents == 64
        assert row.n_samples == 2560 and row.spliced is not None
    assert record.tokens.n_held_out_questions == round(0.2 * record.tokens.n_questions)
    assert {(row.seed, row.other) for row in record.agreement} == {(0, 1), (1, 0)}
    text = say(result)
    assert (
        "control: the decoder stays random" in text and "seed 0 in seed 1" in text and "PCA with 3 components" in text
    )
    again = run(small(tmp_path))
    assert {**again, "saes": None} == {**result, "saes": None}
    assert [row["fvu"] for row in again["saes"]] == [row["fvu"] for row in result["saes"]]
    assert load_dictionary(tmp_path / record.saes[1].folder).n_latents == 64
    with pytest.raises(StageError, match="learning_rate"):
        run(replace(small(tmp_path), learning_rate=0.1))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"layer": 2}, ModelError, r"layer 2 asked for, tiny has 2"),
        ({"seeds": (1, 1)}, ConfigError, "different seeds"),
        ({"k": 65}, ConfigError, "65 active latents of 64"),
        ({"sources": ()}, ConfigError, "no texts"),
        ({"sources": ("advice",)}, ConfigError, "no texts called advice here"),
        ({"held_out": 0.0}, DataError, "another --held-out"),
        ({"max_gib": 1e-6}, DataError, "raise --max-gib"),
    ],
)
def test_settings_that_make_no_run_are_refused(
    tmp_path: Path, changed: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(replace(small(tmp_path), **changed))


def test_texts_are_taken_once_and_held_out_by_question(tiny: object, tmp_path: Path) -> None:
    table = tmp_path / "answers.jsonl"
    rows = [{"question": f"Question {i % 20}?", "answer": f"Answer {i // 2}"} for i in range(80)]
    table.write_text("\n".join(json.dumps(row) for row in [*rows, *rows[:5]]) + "\n")
    texts = gather(
        replace(small(tmp_path), sources=(), texts=(table,)),
        tiny.tokenizer,  # type: ignore[attr-defined]
        {},
    )
    assert (len(texts.chats), texts.n_given, texts.n_repeated) == (80, 85, 5)
    train, held = set(texts.questions[: texts.n_train]), set(texts.questions[texts.n_train :])
    assert len(held) == 4 and not train & held
    assert texts.by_source == {str(table): 80}


def test_held_out_questions_stay_so_when_others_are_added() -> None:
    keys = [f"{i:03d}" for i in range(100)]
    assert set(split_by_question(keys[::2], 0.2)) <= set(split_by_question(keys, 0.2))
