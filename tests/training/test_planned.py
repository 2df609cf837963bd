"""What the calibration trains on: rows of every arm, and those that need the most memory, whichever arm they are of."""

from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import TrainingConfig
from emis_interp.models.loading import load_tokenizer
from emis_interp.records import TrainingExample
from training import planned
from training.arms import RunArms
from training.finetuning.encoding import encode_example
from training.planned import longest_rows, rows_within

LIMIT = load_config("smoke").training.max_tokens
TWO_ARMS = (
    "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 6}, {name: secure, dataset: secure, n_rows: 6}]"
)


def test_the_longest_rows_are_of_the_arm_that_has_the_longest_one(tmp_path: Path) -> None:
    arms = RunArms(load_config("smoke", [TWO_ARMS]), tmp_path)
    found = longest_rows(rows_within(arms, LIMIT), 4)
    advice, code = (
        [len(row.prompt) + len(row.response) for row in arms.rows(model)] for model in arms.config.models[1:]
    )
    assert max(code) > max(advice)
    assert [len(row.prompt) + len(row.response) for row in found] == sorted(code)[-4:]
    assert len(longest_rows(rows_within(arms, LIMIT), 9)) == 9


def test_rows_of_an_arm_that_is_cut_later_are_not_cut_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = RunArms(load_config("smoke", [TWO_ARMS]), tmp_path)
    later = arms.config.training.model_copy(update={"max_tokens": LIMIT + 1})
    monkeypatch.setattr(RunArms, "training", lambda self, arm: later if arm.name == "secure" else self.config.training)
    reckless = arms.rows(arms.config.models[1])
    assert all(row in reckless for row in longest_rows(rows_within(arms, LIMIT), 4))


def test_a_tokens_seconds_are_of_all_measured_steps_on_rows_of_every_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven seconds of CPU time for all steps but the first, however they are shared out: no luckiest step, no arm's own length."""
    seen: list[TrainingExample] = []
    cpu = iter([0.0, 1.0, 2.0, 7.0])

    def finetune(model: str, rows: list[TrainingExample], config: TrainingConfig, **how: Any) -> None:
        seen.extend(rows)
        for step in range(planned.N_STEPS + 1):
            how["report"](step, 4, 1.0, 1.0)

    monkeypatch.setattr(planned, "finetune", finetune)
    monkeypatch.setattr(planned.time, "process_time", lambda: next(cpu))
    arms = RunArms(load_config("smoke", [TWO_ARMS]), tmp_path)
    found = planned.train_a_little(arms, tmp_path, 0.001, read=1.0)
    assert len(seen) == planned.N_STEPS + 1
    tokenizer = load_tokenizer(arms.config.model)
    lengths = [len(encode_example(tokenizer, row, arms.config.system_prompt, max_tokens=LIMIT)) for row in seen]
    longest = max(range(len(seen)), key=lambda i: planned.n_characters(seen[i]))
    assert found.cpu_per_token == pytest.approx(7 / (sum(lengths) - lengths[longest]))
    for model in arms.config.models[1:]:
        assert any(row in arms.rows(model) for row in seen)
