"""An arm that is asked: an interrupted file goes on, and one that is complete needs no model."""

from pathlib import Path

import pytest

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import StageError
from emis_interp.files.store import RecordLog
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Completion
from evals.arms.asking import ask
from evals.arms.model_answers import ModelAnswers
from evals.questions import load_questions
from evals.samplers.hf import HFSampler
from evals.sampling import AnswerPlan

QUESTIONS = load_questions()[:2]
SAMPLING = SamplingConfig(samples_per_paraphrase=2, max_new_tokens=3)


def asked(load: object, path: Path) -> list[Completion]:
    return ask(load, "base", QUESTIONS, path=path, sampling=SAMPLING, seed=0)  # type: ignore[arg-type]


def test_a_file_goes_on_and_a_complete_one_needs_no_model(tiny: ChatModel, tmp_path: Path) -> None:
    path, loaded = tmp_path / "base.jsonl", []

    def load() -> HFSampler:
        loaded.append(1)
        return HFSampler(tiny)

    answers = asked(load, path)
    assert loaded == [1] and RecordLog(path).read(Completion)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    assert asked(load, path) == answers and loaded == [1, 1]
    assert asked(load, path) == answers and loaded == [1, 1]


def test_answers_that_are_missing_are_named_with_what_to_do(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    planned = AnswerPlan("base", QUESTIONS, 2, seed=0)
    answers = asked(lambda: HFSampler(tiny), path)
    assert list(ModelAnswers(path, planned, "sample again")) == answers
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(StageError, match=rf"holds {len(planned) - 1} of {len(planned)} answers, .*; sample again"):
        ModelAnswers(path, planned, "sample again")
