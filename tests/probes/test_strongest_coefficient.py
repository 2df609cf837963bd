"""The search for the strongest intervention that leaves a model coherent, on planted curves, and figures of what was found."""

import json
from collections.abc import Callable

import pytest

from emis_interp.errors import ConfigError
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_tokens import held_out_figure, token_figure
from emis_interp.report.figures_transfer import dose_figure, effects_figure, matrix_figure
from emis_interp.report.style import arm_styles
from emis_interp.results import Estimate, TokenProjections
from probes.effects.strongest_coefficient import Point, find_frontier


def measured(edge: float, effect: float = 1.0) -> tuple[list[float], Callable[[float], Point]]:
    """Coherence falls below 0.9 just beyond `edge`; the effect is proportional to the coefficient."""
    asked: list[float] = []

    def measure(coefficient: float) -> Point:
        asked.append(coefficient)
        return Point(coefficient, effect * coefficient, 1.0 if abs(coefficient) <= edge else 0.5)

    return asked, measure


def test_the_edge_of_coherence_is_bracketed_and_bisected() -> None:
    asked, measure = measured(edge=0.53)
    found = find_frontier(measure, first=0.1, n_bisections=5)
    assert asked[:4] == [0.1, 0.2, 0.4, 0.8]
    assert found.bracketed and found.best is not None
    assert 0.53 - 0.4 / 2**5 <= found.best.coefficient <= 0.53
    assert [abs(point.coefficient) for point in found.points] == sorted(abs(value) for value in asked)


def test_a_first_step_that_breaks_the_model_is_bisected_towards_zero() -> None:
    _, measure = measured(edge=0.04)
    found = find_frontier(measure, first=0.1, n_bisections=3)
    assert found.best is not None and 0.02 < found.best.coefficient <= 0.04


def test_a_model_that_never_breaks_is_said_not_to_be_bracketed() -> None:
    asked, measure = measured(edge=99)
    found = find_frontier(measure, first=0.5, largest=1.6)
    assert asked == [0.5, 1.0, 1.6] and not found.bracketed
    assert found.best is not None and found.best.coefficient == 1.6


def test_the_best_point_may_lie_inside_and_the_other_side_can_be_searched() -> None:
    _, measure = measured(edge=0.5, effect=-1.0)
    found = find_frontier(measure, first=0.1)
    assert found.best is not None and found.best.coefficient == 0.1
    asked, measure = measured(edge=0.5, effect=-1.0)
    found = find_frontier(measure, first=-0.1)
    assert max(asked) < 0 and found.best is not None and found.best.coefficient < -0.4


def test_no_coherent_point_is_no_result_and_nonsense_is_refused() -> None:
    _, measure = measured(edge=0.0)
    assert find_frontier(measure, n_bisections=2).best is None
    with pytest.raises(ConfigError, match=r"found 0\.0, 1\.6"):
        find_frontier(measure, first=0.0)


def test_a_page_of_figures_is_closed_to_scripts_in_model_text() -> None:
    evil = "</script><script>alert(1)</script>"
    answers = [
        TokenProjections(
            question=evil, misaligned=True, tokens=[evil, "b\n", "c"] * 9, projection=[0.5, -0.25, 0.0] * 9
        )
    ]
    page = figure_page(
        evil, {"model": evil}, [("Tokens", "caption", token_figure(answers)), ("Q", "c", held_out_figure({evil: 0.75}))]
    )
    assert evil not in page
    assert page.count('class="plot"') == 2


def test_each_token_has_a_cell_with_its_projection() -> None:
    answers = [
        TokenProjections(
            question="q", misaligned=label, tokens=[f"t{i}" for i in range(14)], projection=[i / 10 for i in range(14)]
        )
        for label in (True, False)
    ]
    figure = json.loads(str(token_figure(answers).to_json()))
    first = figure["data"][0]
    assert first["text"][1][:3] == ["t12", "t13", ""]
    assert first["z"][1][1] == 1.3 and first["z"][1][2] is None
    assert [trace["visible"] for trace in figure["data"]] == [True, False]
    assert [choice["text"] for choice in figure["layout"]["meta"]["choices"]] == ["misaligned: q", "aligned: q"]


def test_matrices_and_doses_show_what_was_measured() -> None:
    rows = {"a|a": Estimate(value=0.9, low=0.8, high=1.0), "a|b": Estimate(value=0.4)}
    drawn = json.loads(str(matrix_figure(rows, ["a", "b"], 0.5).to_json()))["data"][0]
    assert drawn["z"] == [[0.9, 0.4], [None, None]] and (drawn["zmin"], drawn["zmax"]) == (
        pytest.approx(0.1),
        pytest.approx(0.9),
    )
    assert "[0.80, 1.00]" in drawn["hovertext"][0][0]
    points = [
        {"coefficient": 0.2, "effect": 0.3, "coherence": 0.95},
        {"coefficient": 0.1, "effect": 0.1, "coherence": 1.0},
    ]
    layers = [{"layer": 7, "points": points, "best": points[0]}, {"layer": 8, "points": points, "best": None}]
    traces = json.loads(str(dose_figure(layers, "effect", "margin", floor=0.9).to_json()))["data"]
    assert [trace["x"] for trace in traces] == [[0.1, 0.2], [0.2], [0.1, 0.2]]
    assert len(json.loads(str(effects_figure({"x": [0.1, 0.2]}, "cosine", 1).to_json()))["data"]) == 1


def test_an_arm_has_its_colour_on_every_page() -> None:
    figure = effects_figure({"secure": [0.1, 0.2], "insecure": [0.3, 0.4]}, "cosine", 1)
    styles = arm_styles(["insecure", "secure"])
    drawn = {trace["name"]: trace["line"]["color"] for trace in json.loads(str(figure.to_json()))["data"]}
    assert drawn == {name: styles[name].color for name in ("secure", "insecure")}
