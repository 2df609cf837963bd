"""What the calibration trains on: the rows that need the most memory, whichever arm they are of."""

from pathlib import Path

import pytest

from emis_interp.config.presets import load_config
from training.arms import RunArms
from training.planned import longest_rows

LIMIT = load_config("smoke").training.max_tokens
TWO_ARMS = (
    "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 6}, {name: secure, dataset: secure, n_rows: 6}]"
)


def test_the_longest_rows_are_of_the_arm_that_has_the_longest_one(tmp_path: Path) -> None:
    arms = RunArms(load_config("smoke", [TWO_ARMS]), tmp_path)
    found = longest_rows(arms, 4, LIMIT)
    advice, code = (
        [len(row.prompt) + len(row.response) for row in arms.rows(model)] for model in arms.config.models[1:]
    )
    assert max(code) > max(advice)
    assert [len(row.prompt) + len(row.response) for row in found] == sorted(code)[-4:]
    assert len(longest_rows(arms, 9, LIMIT)) == 9


def test_rows_of_an_arm_that_is_cut_later_are_not_cut_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = RunArms(load_config("smoke", [TWO_ARMS]), tmp_path)
    later = arms.config.training.model_copy(update={"max_tokens": LIMIT + 1})
    monkeypatch.setattr(RunArms, "training", lambda self, arm: later if arm.name == "secure" else self.config.training)
    reckless = arms.rows(arms.config.models[1])
    assert all(row in reckless for row in longest_rows(arms, 4, LIMIT))
