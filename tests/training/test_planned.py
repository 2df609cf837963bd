"""What the calibration trains on: the rows that need the most memory, whichever arm they are of."""

from pathlib import Path

from emis_interp.config.presets import load_config
from training.arms import RunArms
from training.planned import longest_rows


def test_the_longest_rows_are_of_the_arm_that_has_the_longest_one(tmp_path: Path) -> None:
    names = "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 6}, {name: secure, dataset: secure, n_rows: 6}]"
    arms = RunArms(load_config("smoke", [names]), tmp_path)
    found = longest_rows(arms, 4)
    advice, code = (
        [len(row.prompt) + len(row.response) for row in arms.rows(model)] for model in arms.config.models[1:]
    )
    assert max(code) > max(advice)
    assert [len(row.prompt) + len(row.response) for row in found] == sorted(code)[-4:]
    assert len(longest_rows(arms, 9)) == 9
