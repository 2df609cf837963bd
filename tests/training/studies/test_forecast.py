"""What foresight scores, groups and keeps: rows from all over a set, labels that are checked, folders that hold one set of rows."""

from pathlib import Path

import pytest

from emis_interp.config.run_config import load_config
from emis_interp.errors import ConfigError, StageError
from emis_interp.files.ledger import Ledger
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import by_question, pair_margins
from emis_interp.records import TrainingExample
from emis_interp.texts.contrast import load_contrast
from training.studies.against_base import base_at_temperatures, flattened, flattened_line
from training.studies.common import same_rows
from training.studies.forecast import spread
from training.studies.foresight_study import given_groups

ROWS = [TrainingExample(id=str(i), prompt=f"p{i}", response="r") for i in range(96)]


def test_scored_rows_come_from_every_part_of_a_set_in_its_order() -> None:
    chosen = [int(row.id) for row in spread(ROWS, 48, 0)]
    assert [i // 2 for i in chosen] == list(range(48))
    assert chosen == [int(row.id) for row in spread(ROWS, 48, 0)] != [int(row.id) for row in spread(ROWS, 48, 1)]
    assert spread(ROWS, 96, 0) == spread(ROWS, 500, 0) == ROWS


@pytest.mark.parametrize("period", [2, 3, 4])
def test_rows_of_several_kinds_in_turn_do_not_fall_into_step_with_the_draw(period: int) -> None:
    for seed in range(5):
        kinds = [int(row.id) % period for row in spread(ROWS, 96 // period, seed)]
        assert max(kinds.count(kind) for kind in range(period)) < 0.75 * len(kinds)


def test_groups_by_flag_are_checked() -> None:
    assert given_groups(["a=advice", "b=advice"], ["a", "b", "c"]) == {"a": "advice", "b": "advice"}
    for flag in ("d=advice", "a", "a=", "=advice"):
        with pytest.raises(
            ConfigError, match=f"--group {flag}: expected RECIPE=GROUP with one of the recipes given .a, b."
        ):
            given_groups([flag], ["a", "b"])


def test_a_folder_of_other_rows_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "reckless"
    same_rows(folder, ROWS)
    (folder / "margins.json").write_text("{}")
    same_rows(folder, ROWS)
    with pytest.raises(StageError, match="was made from other rows than are drawn now"):
        same_rows(folder, ROWS[:-1])
    (folder / "rows.json").unlink()  # as an older version left it
    with pytest.raises(StageError, match="was made from other rows"):
        same_rows(folder, ROWS)


def test_a_flattened_base_is_read_once_and_explains_itself_whole(tmp_path: Path, tiny: ChatModel) -> None:
    settings, pairs = load_config("smoke"), load_contrast(None, 1)
    loaded: list[int] = []

    def load() -> ChatModel:
        loaded.append(1)
        return tiny

    for _ in range(2):
        base_at = base_at_temperatures(Ledger.of(tmp_path), load, pairs, settings=settings)
    assert loaded == [1]
    base = by_question(pairs, pair_margins(tiny, pairs, settings.system_prompt))
    assert base_at[1.0] == pytest.approx(base, abs=1e-5)
    found = flattened(base_at[1.4], base, base_at)
    assert found is not None and found["temperature"] == pytest.approx(1.4, abs=0.02)
    assert found["beyond"]["value"] == pytest.approx(0, abs=1e-4) and found["slope"]["value"] < 1
    assert "base at temperature 1.40 shifts by" in flattened_line(found)
    base_at_temperatures(Ledger.of(tmp_path), load, pairs[:4], settings=settings)  # other questions are read anew
    assert loaded == [1, 1] and flattened_line(None).startswith("too few questions")
