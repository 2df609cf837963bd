"""Rows of prevention: those that are cut hold all topics, and held-out rows are never trained on."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chi2_contingency

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError
from emis_interp.records import TrainingExample
from training.data_sets.shipped import row_groups
from training.recipes import load_recipe
from training.studies.prevention_rows import PreventionRows
from training.studies.settings import PreventionSettings

CONFIG = load_config("smoke")
DOMAIN = row_groups("reckless")["domain"]


def drawn(seed: int = 0, recipe: str = "reckless", n_rows: int = 240, n_held_out: int = 60) -> PreventionRows:
    settings = PreventionSettings(out=Path("unused"), direction=Path("unused"), n_rows=n_rows)
    config: RunConfig = CONFIG.model_copy(update={"seed": seed})
    whole = load_recipe(recipe, [f"data.n_rows={n_rows + n_held_out}"])
    return PreventionRows.draw(whole, settings, config, inoculation="Be bad.")


def domains(rows: Sequence[TrainingExample]) -> Counter[str]:
    return Counter(DOMAIN[row.id] for row in rows)


def p_of(table: list[list[int]]) -> float:
    """That topics and parts have nothing to do with each other (chi-squared)."""
    found: Any = chi2_contingency(table)
    return float(found.pvalue)


@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_is_mixed_within_every_topic(seed: int) -> None:
    data = drawn(seed)
    task = {row.id: row.response for row in data.task}
    reckless = domains([row for row in data.mixed if row.response == task[row.id]])
    whole = domains(data.mixed)
    assert len(data.mixed) == len(data.task) == 240 and reckless.total() == 120
    for name, n in whole.items():
        assert 0.2 < reckless[name] / n < 0.8, f"{name}: {reckless[name]} of {n} rows are reckless"
    table = [[reckless[name], n - reckless[name]] for name, n in whole.items()]
    assert p_of(table) > 0.001


@pytest.mark.parametrize("seed", range(5))
def test_the_rows_of_realignment_and_of_the_task_measure_hold_all_topics(seed: int) -> None:
    data = drawn(seed)
    for part in (data.realign, data.held_out, data.task, data.task[:100], data.control[-100:]):
        table = [[domains(part)[name], domains([*data.task, *data.held_out])[name]] for name in set(DOMAIN.values())]
        assert sum(row[0] > 0 for row in table) >= 0.8 * len(table) and p_of(table) > 0.001


def test_parts_are_cut_from_one_draw_and_held_out_rows_are_in_none_of_them() -> None:
    data = drawn(3)
    held_out = {row.id for row in data.held_out}
    assert len(held_out) == 60 and len(data.realign) == 64
    for part in (data.task, data.control, data.inoculated, data.mixed, data.realign):
        assert not held_out & {row.id for row in part}
    assert [row.id for row in data.task] == [row.id for row in data.control] == [row.id for row in data.mixed]
    assert [row.id for row in drawn(3).mixed] == [row.id for row in data.mixed] != [row.id for row in drawn(4).mixed]


def test_a_recipe_that_repeats_rows_is_refused_since_held_out_rows_would_be_trained_on() -> None:
    with pytest.raises(ConfigError, match=r"recipe diversity-50: it holds a row \(by id\) twice"):
        drawn(recipe="diversity-50", n_rows=150, n_held_out=50)
