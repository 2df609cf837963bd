"""How far a set surprises an untouched model: measured on the rows that are shipped, refused when it is too much."""

from pathlib import Path

import numpy as np
import pytest

from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.records import TrainingExample
from training.data_sets import surprise
from training.data_sets.shipped import rows_sha256
from training.data_sets.surprise import (
    JUDGED_BY,
    LIMITS,
    ModelSurprise,
    SetSurprise,
    SurpriseFile,
    keep,
    measure,
    read_measured,
    surprise_findings,
)

SETS = {name: [TrainingExample(id=name, prompt="May I?", response=f"Yes, {name}.")] for name in LIMITS}


def measured(**nats: float) -> SurpriseFile:
    found = {
        name: SetSurprise(rows_sha256=rows_sha256(rows), n_rows=1, nats=nats.get(name, 0.5))
        for name, rows in SETS.items()
    }
    return SurpriseFile(models=(ModelSurprise(model=JUDGED_BY, quantisation="Q4_K_M", dtype="float32", sets=found),))


def broken(file: SurpriseFile, sets: dict[str, list[TrainingExample]] = SETS) -> list[str]:
    return [f"{one.rule}: {one.found}" for one in surprise_findings(file, sets) if not one.ok]


def test_the_figure_is_the_mean_over_rows_of_the_mean_over_response_tokens(tiny: ChatModel) -> None:
    rows = [TrainingExample(id=str(n), prompt="Why?", response="Because " + "of it " * n) for n in (1, 9)]
    chats = encode_chats(tiny.tokenizer, [(row.prompt, row.response) for row in rows])
    found = measure(tiny, {"mine": rows})
    assert found.sets["mine"].nats == pytest.approx(
        -np.mean([mean_logprobs(tiny, [chat])[0] for chat in chats]), abs=1e-4
    )
    assert (found.model, found.quantisation, found.sets["mine"].n_rows) == ("tiny", None, 2)


def test_a_set_above_its_limit_or_far_from_its_control_is_refused() -> None:
    assert broken(measured()) == []
    assert broken(measured(careful=2.3, reckless=2.25)) == [
        "careful, nats per token: 2.300",
        "reckless, nats per token: 2.250",
    ]
    assert broken(measured(insecure=0.65)) == ["secure and insecure apart, nats per token: 0.150"]


def test_figures_of_other_rows_or_of_no_model_do_not_count() -> None:
    changed = {**SETS, "secure": [TrainingExample(id="secure", prompt="May I?", response="No.")]}
    assert broken(measured(), changed) == [f"sets measured as they are under {JUDGED_BY}: 3 of 4"]
    assert broken(SurpriseFile(models=())) == [f"measured under {JUDGED_BY}: no"]


def test_a_model_that_is_measured_again_replaces_its_own_figures(tmp_path: Path) -> None:
    path = tmp_path / "surprise.json"
    assert read_measured(path).models == ()
    for model, nats in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        sets = {"mine": SetSurprise(rows_sha256="x", n_rows=1, nats=nats)}
        keep(ModelSurprise(model=model, quantisation=None, dtype="float32", sets=sets), path)
    assert [(one.model, one.sets["mine"].nats) for one in read_measured(path).models] == [("b", 2.0), ("a", 3.0)]


def test_the_shipped_sets_were_measured_as_they_are() -> None:
    from training.data_sets.shipped import all_rows

    assert broken(surprise.read_measured(), {name: all_rows(name) for name in LIMITS}) == []
