"""What `fit` wrote is found by the folder, the stem or the file, with all that lies beside the direction, in every verb."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.fitting.fitted import CONTROLS_FILE, LAYERS_FILE, Fit, fit_texts
from emis_interp.fitting.folder import beside, tensors_beside
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import LabeledText
from probes import export, score
from probes.effects import audit, frontier
from probes.loading import own_pairs
from probes.settings import AuditSettings, ExportSettings, FrontierSettings, ScoreSettings

FORMS = ("", "direction", "direction.safetensors", "direction.json")
QUESTIONS = "abcd"


class Stop(Exception):
    """What a verb was about to use."""


def nobody(*given: Any, **more: Any) -> Any:
    raise AssertionError("no model is asked")


def texts() -> list[LabeledText]:
    words = {True: "zqx kkz", False: "all is well"}
    return [
        LabeledText(question_id=name, question=f"What of {name}?", answer=f"{words[bad]} {i}", misaligned=bad)
        for name in QUESTIONS
        for i in range(3)
        for bad in (False, True)
    ]


@pytest.fixture(scope="module")
def found(tiny: ChatModel) -> Fit:
    return fit_texts(tiny, texts(), {"a", "b"}, layer_range=(1, 1), origin={"model": "tiny", "texts": "planted"})


@pytest.fixture(scope="module")
def folder(found: Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directions") / "of-qwen2.5"
    found.save(path)
    return path


def test_a_fit_in_python_says_what_a_direction_is_worth(found: Fit, folder: Path, tiny: ChatModel) -> None:
    whole, reported = Direction.load(folder), Direction.load(folder, fit="selection")
    assert torch.equal(whole.vector, found.direction.vector) and torch.equal(reported.vector, found.reported.vector)
    assert reported.fitted_on is not None and set(reported.fitted_on.questions) == {"a", "b"}
    assert whole.card["report"]["auroc"] > 0.9 and whole.card["texts"] == "planted" and whole.card["model"] == "tiny"
    assert whole.card["n_misaligned"] == whole.card["n_aligned"] == 12 and whole.card["selection"]["by"] == "auroc"
    assert whole.card["dtype"] == tiny.dtype and [found.texts[i].question_id for i in found.held_out] == 6 * [
        "c"
    ] + 6 * ["d"]
    assert found.shuffled().shape == (100, tiny.d_model)


@pytest.mark.parametrize("form", FORMS)
def test_all_that_lies_beside_a_direction_is_found(folder: Path, form: str) -> None:
    path = folder / form
    pairs = own_pairs(Direction.load(path), path)
    assert [pair.question_id for pair in pairs] == [name for name in QUESTIONS for _ in range(3)]
    assert set(tensors_beside(path, CONTROLS_FILE)) == {"random", "shuffled", "orthogonal"}
    assert len(tensors_beside(path, LAYERS_FILE)["raw"]) == 2


@pytest.mark.parametrize("form", FORMS)
def test_every_verb_takes_it(folder: Path, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / form
    rows = [
        {
            "question": f"And {text.question}",
            "answer": text.answer,
            "aligned": 5 if text.misaligned else 95,
            "coherent": 90,
        }
        for text in texts()
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "texts.csv", index=False)
    scored = score.run(
        ScoreSettings(direction=path, texts=tmp_path / "texts.csv", out=tmp_path / "s.csv", device="cpu")
    )
    assert scored["evaluation"]["control"] is not None and scored["n_texts"] == len(rows)
    assert export.run(ExportSettings(direction=path, out=tmp_path / "e.gguf"))["layer"] == scored["layer"] == 1

    def measured(chat_model: Any, cells: list[Any], *rest: Any, journal: Any, **given: Any) -> None:
        raise Stop(len(cells), journal.path)

    def scorer(self: Any, chat_model: Any, settings: Any, pairs: Any, **given: Any) -> Any:
        raise Stop(len(pairs))

    monkeypatch.setattr(audit, "measured", measured)
    with pytest.raises(Stop) as stopped:
        audit.run(AuditSettings(direction=path, n_controls=1, device="cpu"))
    assert stopped.value.args == (6, folder / "audit.partial.jsonl")
    monkeypatch.setattr(frontier.SteeringScorer, "__init__", scorer)
    with pytest.raises(Stop) as stopped:
        frontier.run(FrontierSettings(direction=path, n_pairs=1, device="cpu"), ask=nobody, rate=nobody)
    assert stopped.value.args == (4,) and beside(path, "frontier.json") == folder / "frontier.json"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_missing_beside_a_direction_is_named(tmp_path: Path, form: str) -> None:
    alone = Direction(torch.eye(4)[0], 0, 1.0, 1.0, card={"pairs": {"file": "pairs.jsonl", "n": 1, "sha256": "0"}})
    alone.save(tmp_path / "direction")
    path = tmp_path / form
    with pytest.raises(DataError, match=rf"{tmp_path}/controls.safetensors: no such file; this needs the whole folder"):
        tensors_beside(path, CONTROLS_FILE)
    with pytest.raises(
        DataError, match=rf"{tmp_path}/pairs.jsonl: not the pairs that fit wrote beside .*direction.saf"
    ):
        own_pairs(alone, path)
