"""What foresight scores of a set: rows from all over it."""

import pytest

from emis_interp.records import TrainingExample
from training.studies.forecast import spread

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
