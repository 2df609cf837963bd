"""p-values from drawn nulls: what they count, and that one that cannot be smaller says so."""

import numpy as np
import pytest

from emis_interp.stats.permutation import NullP, null_p


def test_a_p_value_at_its_floor_says_so_in_words_and_in_the_record() -> None:
    floor = null_p(np.zeros(199), 1.0)
    assert floor.value == 1 / 200 and floor.at_floor
    assert floor.words() == "p <= 0.005, the floor of 199 permutations"
    assert floor.as_json() == {"p": 1 / 200, "p_at_floor": True, "p_n": 199}
    above = null_p([*np.zeros(198), 2.0], 1.0)
    assert above.words("controls") == "p = 0.01 (199 controls)" and not above.at_floor
    assert NullP.of_json(floor.as_json()) == floor


@pytest.mark.parametrize("n", [1, 19, 200])
def test_one_draw_or_many_the_floor_is_that_of_the_number_drawn(n: int) -> None:
    assert null_p(np.zeros(n), 1.0).value == 1 / (1 + n)
    assert null_p(np.ones(n), 1.0).value == 1


def test_both_sides_count_distance_from_the_centre() -> None:
    null = [-0.5, -0.2, 0.1, 0.3]
    assert null_p(null, 0.3, "both").value == (1 + 2) / 5
    assert null_p(null, -0.4, "both").value == (1 + 1) / 5
    assert null_p(null, -0.4).value == (1 + 3) / 5
    assert null_p([0.5, 0.9, 0.1], 0.85, "both", centre=0.5).value == (1 + 2) / 4


def test_p_is_uniform_where_there_is_nothing() -> None:
    generator = np.random.default_rng(0)
    values = [null_p(generator.normal(size=39), generator.normal()).value for _ in range(4000)]
    for level in (0.05, 0.25, 0.5):
        assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=0.02)


def test_what_differs_by_rounding_alone_counts_as_far() -> None:
    assert null_p([0.1 + 0.2], 0.3).value == 1
    assert null_p([0.3], 0.1 + 0.2).value == 1
