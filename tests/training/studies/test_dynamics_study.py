"""The dynamics study: rows that measure the task, and samples that somebody has to judge."""

from pathlib import Path

import pytest

from emis_interp.config.presets import load_config
from emis_interp.errors import ConfigError
from training.data_sets.shipped import OTHER_KIND, load_dataset
from training.studies.dynamics_study import extra_of, task_rows
from training.studies.settings import DynamicsSettings


@pytest.mark.parametrize("dataset", OTHER_KIND)
def test_held_out_rows_of_both_kinds_are_matched_and_not_trained_on(dataset: str) -> None:
    rows = load_dataset(dataset, n_rows=20)
    learned, other = task_rows(dataset, rows, 3)
    assert len(learned) == 3 and not {row.prompt for row in learned} & {row.prompt for row in rows}
    for one, counterpart in zip(learned, other, strict=True):
        assert (one.id, one.prompt) == (counterpart.id, counterpart.prompt) and one.response != counterpart.response


def test_samples_that_nobody_judges_are_refused() -> None:
    settings = DynamicsSettings(out=Path("unused"), recipe="reckless", n_samples=2)
    with pytest.raises(ConfigError, match="--n-samples 2: nothing samples and judges here"):
        extra_of(settings, load_config("smoke"), None)
