"""Prevention: rows that are cut hold all topics, held-out rows are never trained on, and every margin stays in the record."""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from emis_interp.config.run_config import RunConfig, load_config
from emis_interp.errors import ConfigError
from emis_interp.records import TrainingExample
from training.data_sets.shipped import row_groups
from training.recipes import load_recipe
from training.studies.prevention_study import (
    CONTROL,
    FAMILY,
    UNTREATED,
    Data,
    Remedy,
    against,
    against_words,
    correct,
    save_whole,
    summary,
)

SETTINGS = load_config("smoke")
DOMAIN = row_groups("reckless")["domain"]


def drawn(seed: int = 0, recipe: str = "reckless", n_rows: int = 240, n_held_out: int = 60) -> Data:
    args = Namespace(n_rows=n_rows, control="careful", n_realign=64)
    settings: RunConfig = SETTINGS.model_copy(update={"seed": seed})
    return Data.draw(load_recipe(recipe, [f"data.n_rows={n_rows + n_held_out}"]), args, settings, inoculation="Be bad.")


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


def test_the_record_keeps_the_margins_of_every_seed_beside_their_shifts() -> None:
    base = {"margin": {"a": -0.5, "b": -0.2}, "task": [0.0], "kl_neutral": 0.0}
    seeds = [
        against({"margin": {"a": -0.4 + x, "b": -0.1 + x}, "task": [1.0], "kl_neutral": 0.1}, base) for x in (0, 0.1)
    ]
    found = summary(Remedy("mix"), seeds, seeds)
    assert found["margins"] == [{"a": -0.4, "b": -0.1}, {"a": pytest.approx(-0.3), "b": 0.0}]
    assert found["margin_shift"]["value"] == pytest.approx(0.15)


def test_of_remedies_that_do_nothing_few_studies_show_one_and_a_real_one_is_shown() -> None:
    """Ten remedies and no effect: one interval in twenty leaves 0 out, so two studies of five would have a finding."""
    rng = np.random.default_rng(0)

    def study(effect: float) -> list[dict[str, Any]]:
        def seed(shift: float = 0.0) -> dict[str, Any]:
            margin = {str(i): float(value) for i, value in enumerate(rng.normal(shift, 0.05, 15))}
            return {"margins": margin, "margin": margin, "task": [0.0, 1.0], "kl_neutral": 0.0}

        untreated = [seed()]
        names = [UNTREATED, CONTROL, *(f"remedy {i}" for i in range(10))]
        rows = [
            summary(Remedy(name), untreated if name == UNTREATED else [seed(effect * (name == "remedy 3"))], untreated)
            for name in names
        ]
        correct(rows)
        return rows

    found: list[list[dict[str, Any]]] = [study(0.0) for _ in range(100)]
    shown = {
        key: sum(any(row["against_untreated"][key] < 0.05 for row in rows[2:]) for rows in found)
        for key in ("p", "p_holm")
    }
    assert shown["p"] > 25 and shown["p_holm"] <= 10
    rows = study(-0.2)
    told = [row["name"] for row in rows if (row["against_untreated"].get("p_holm") or 1.0) < 0.05]
    assert told == ["remedy 3"] and "p_holm" not in rows[1]["against_untreated"]  # the control is no remedy
    assert " p " in against_words(rows[5]) and against_words(rows[0]) == ""
    assert "corrected for the number of remedies" in FAMILY


class Part:
    """A model or tokenizer whose saving is killed half way, `n_kills` times."""

    def __init__(self, name: str, n_kills: int) -> None:
        self.name, self.n_kills = name, n_kills

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / f"{self.name}.json").write_text("")
        self.n_kills -= 1
        if self.n_kills >= 0:
            raise KeyboardInterrupt
        (folder / f"{self.name}.safetensors").write_text("")


@pytest.mark.parametrize("kills", [(1, 0), (0, 1), (1, 1)])
def test_a_model_that_was_killed_while_it_was_saved_is_saved_anew(tmp_path: Path, kills: tuple[int, int]) -> None:
    """The second training of `realign` starts from it, and `config.json` is written first."""
    chat_model: Any = Namespace(model=Part("config", kills[0]), tokenizer=Part("tokenizer", kills[1]))
    for _ in range(sum(kills)):
        with pytest.raises(KeyboardInterrupt):
            save_whole(chat_model, tmp_path / "start")
        assert not (tmp_path / "start").exists()
    save_whole(chat_model, tmp_path / "start")
    assert len(list((tmp_path / "start").iterdir())) == 4 and len(list(tmp_path.iterdir())) == 1
