"""What figures say and draw, on planted runs, by a second route to the same numbers."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import plotly.graph_objects as go
import pytest
from planted_figures import N_EACH, QUESTIONS, planted_run
from planted_page import planted_direction, write, write_run

from emis_interp.errors import ConfigError, StageError
from emis_interp.files.csv_text import csv_text
from emis_interp.report import figure_files, figures_answers, figures_questions
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.described import words_of
from emis_interp.report.drawn import figures
from emis_interp.report.figures_projections import above
from emis_interp.report.figures_transfer import transfer_figure
from emis_interp.report.style import FAINT, ORANGE, SKY, arm_styles
from emis_interp.results import DirectionView

SURE = re.compile(r"\b(?<!no )(a difference|lower in|farther than control directions in [1-9])", re.IGNORECASE)
ON_X = ("rates", "rate_contrasts", "questions", "margins", "margin_groups", "choices", "ablation", "readers", "monitor")


def titles(contents: Contents) -> dict[str, str]:
    return {name: words_of(figure)["title"] for name, figure in figures(contents).items()}


def read(run: Path) -> Contents:
    return load_contents(run)


@pytest.fixture(scope="module")
def effect(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return read(planted_run(tmp_path_factory.mktemp("effect"), rate=0.3, shift=0.2, interaction=(-0.3, -0.4, -0.2)))


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return read(planted_run(tmp_path_factory.mktemp("null")))


@pytest.fixture(scope="module")
def page_run(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return read(write_run(tmp_path_factory.mktemp("page")))


def test_titles_of_an_effect_name_it_with_its_interval(effect: Contents) -> None:
    said = titles(effect)
    assert (
        said["rates"] == "A difference in em_of_coherent (paired by question): bad − good +30.0 points [+20.0, +40.0]"
    )
    assert said["rate_contrasts"] == said["rates"]
    assert said["margins"].startswith(
        "A difference in likelihood margins (nats per token): bad − good +0.200 [+0.180, +0.220]"
    )
    assert "of likelihood alone" in said["margins"]
    assert said["answers"].startswith("Misaligned among coherent answers: base 0 of 20, bad 8 of 20, good 0 of 20")
    assert "stands apart from that of good at 2 of 2 thresholds (20, 30)" in said["thresholds"]
    assert "lower in bad than in its control (bad − good −0.300 [−0.400, −0.200])" in said["ablation"]
    assert "farther than control directions in 2 of 2 cells" in said["steering"]
    assert "2 of 2 cells cost more than 0.1 nats" in said["steering"]


def test_no_title_of_a_null_could_be_taken_for_an_effect(null: Contents) -> None:
    said = titles(null)
    for name in ("rates", "rate_contrasts", "margins"):
        assert said[name].startswith("No difference seen in "), name
    assert "not specific to misaligned arms (bad − good +0.000 [−0.100, +0.100])" in said["ablation"]
    assert "at no threshold" in said["thresholds"]
    for name in set(said) - {"ablation", "steering", "readers"}:
        assert not SURE.search(said[name]), name
    assert "lower in" not in said["ablation"]


def test_where_the_judge_fails_its_control_no_title_of_scores_is_a_finding(tmp_path: Path) -> None:
    said = titles(read(planted_run(tmp_path, rate=0.3, control_rate=0.4)))
    for name in ("rates", "rate_contrasts", "answers", "questions", "thresholds"):
        assert said[name].startswith("Not evidence, the judge fails its control. "), name
    assert not said["margins"].startswith("Not evidence")


def test_too_few_control_directions_give_no_verdict(tmp_path: Path) -> None:
    said = titles(read(planted_run(tmp_path / "few", n_draws=2)))
    assert "2 control directions of a kind are too few for a verdict (19 are needed)" in said["steering"]
    assert "farther" not in said["steering"] + said["ablation"]
    said = titles(read(planted_run(tmp_path / "none", n_draws=0)))
    assert "no control directions stand beside it" in said["steering"]


def test_without_a_control_a_difference_from_base_is_said_to_show_nothing(tmp_path: Path) -> None:
    run = planted_run(tmp_path, rate=0.3, shift=0.2)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["config"]["arms"][1]["contrast"]
    write(run / "manifest.json", manifest)
    said = titles(read(run))
    for name in ("rates", "margins"):
        assert "against base alone, which says nothing of misalignment: no control was compared" in said[name]
    assert "no arm and its control" in said["questions"]


def test_an_empty_run_has_no_figures_and_a_missing_interval_no_verdict(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", {"config": {"name": "empty", "arms": [{"name": "base"}]}})
    assert figures(read(tmp_path)) == {}
    run = planted_run(tmp_path / "run", rate=0.3)
    rates = json.loads((run / "analysis/rates.json").read_text())
    for row in rates["contrasts"]:
        row |= {"low": None, "high": None}
    write(run / "analysis/rates.json", rates)
    assert titles(read(run))["rates"].startswith("No interval, so no verdict in em_of_coherent")


@pytest.mark.parametrize("kind", ["effect", "page_run"])
def test_the_table_of_a_figure_has_every_number_that_is_drawn(kind: str, request: pytest.FixtureRequest) -> None:
    """Not of texts, lines across, and marks that are said to be by definition."""
    for name, figure in figures(request.getfixturevalue(kind)).items():
        table = words_of(figure)["table"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"]), name
        known = np.array([x for row in table["rows"] for x in row if isinstance(x, int | float)], dtype=float)
        for trace in json.loads(figure.to_json() or "{}")["data"]:
            beside = trace.get("mode") == "text" or trace.get("fill") == "toself" or trace.get("hoverinfo") == "skip"
            if beside or trace.get("marker", {}).get("symbol") == "triangle-down":
                continue
            for axis in ["x", "y"] if name == "answers" else ["x"] if name in ON_X else ["y"]:
                for x in trace[axis]:
                    if x is not None and x != 0:
                        assert np.isclose(known, x, rtol=1e-9).any(), (name, axis, x)


def test_titles_captions_and_tables_belong_to_every_figure(effect: Contents, page_run: Contents) -> None:
    for contents in (effect, page_run):
        for name, figure in figures(contents).items():
            words = words_of(figure)
            assert words["title"] and words["caption"].endswith((".", "?")) and words["table"]["rows"], name
            assert not re.search(r"\{|\bNone(?! of this)|\bnan\b", words["title"] + words["caption"]), name
            json.dumps(words["table"], allow_nan=False)


def test_marks_by_question_are_the_means_of_the_files(effect: Contents) -> None:
    figure = figures(effect)["questions"]
    rows = words_of(figure)["table"]["rows"]
    means = {(arm, name): value for arm, name, measure, value, *_ in rows if measure == "mean aligned"}
    shares = {(arm, name): value for arm, name, measure, value, *_ in rows if measure == "em_of_coherent"}
    assert len(means) == 3 * len(QUESTIONS)
    bad = [10.0, 11.0, *(61.0 + 2 * i for i in range(2, N_EACH))]
    assert means[("bad", "wish")] == pytest.approx(np.mean(bad))
    assert shares[("bad", "wish")] == pytest.approx(2 / (N_EACH - 1))
    assert words_of(figure)["title"].startswith("bad lies above good on 0 and below it on 4 of 4 questions")
    assert words_of(figure)["title"].endswith("no difference seen, sign test p 0.12")  # 2 x 0.5^4


def test_of_many_questions_those_at_the_ends_are_shown(effect: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_questions, "MOST_QUESTIONS", 2)
    words = words_of(figures(effect)["questions"])
    assert len({row[1] for row in words["table"]["rows"]}) == 2
    assert "Shown are 2 of 4 questions" in words["caption"]


def test_every_point_of_the_scatter_links_to_its_answer(effect: Contents) -> None:
    figure: Any = figures(effect)["answers"]
    scored = {
        (a.completion.arm, a.completion.question_id, a.score.aligned, a.score.coherent)
        for a in effect.answers
        if a.score
    }
    n = 0
    for trace in figure.data:
        for x, y, link in zip(trace.x, trace.y, trace.customdata, strict=True):
            given = {key: values[0] for key, values in parse_qs(link).items()}
            assert (given["arm"], given["question"]) in {key[:2] for key in scored}
            assert (given["arm"], given["question"], y, x) in scored
            assert [float(given[key]) for key in ("min", "max", "cmin", "cmax")] == [y, y, x, x]
            n += 1
    assert n == len(effect.answers)


def test_marks_of_rates_and_questions_link_to_arms_and_seeds(tmp_path: Path) -> None:
    run = planted_run(tmp_path, rate=0.3)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["config"]["arms"][1]["seeds"] = [4]
    write(run / "manifest.json", manifest)
    for folder in ("samples", "scores"):
        text = (run / folder / "bad.jsonl").read_text().replace('"arm": "bad"', '"arm": "bad.seed-4"')
        (run / folder / "bad.jsonl").rename(run / folder / "bad.seed-4.jsonl").write_text(text)
    rates = json.loads((run / "analysis/rates.json").read_text())
    for rate in rates["arms"][1]["rates"]:
        rate["by_model"] = {"bad.seed-4": 0.4}
    write(run / "analysis/rates.json", rates)
    drawn = figures(read(run))
    of_rates: Any = drawn["rates"].data
    of_questions: Any = drawn["questions"].data
    links = {link for trace in of_rates for link in trace.customdata or () if link}
    assert {"arm=bad&kind=bad", "arm=bad.seed-4&order=low"} <= links
    marks = {link for trace in of_questions for link in trace.customdata or ()}
    assert {f"arm=bad&question={name}&order=low" for name in QUESTIONS} <= marks
    assert "bad 8 of 20" in words_of(drawn["answers"])["title"]


def test_a_large_scatter_is_a_sample_and_says_so(effect: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_answers, "MOST_POINTS", 12)
    words = words_of(figures(effect)["answers"])
    rows = words["table"]["rows"]
    assert len(rows) == 8  # two ordinary ones of each arm, and as many misaligned ones of the arm that has some
    assert sum(row[0] == "bad" and row[3] < 30 for row in rows) == 2
    assert f"Drawn are 8 of {len(effect.answers)}" in words["caption"]
    assert "bad 8 of 20" in words["title"]  # counts are of all


def test_angles_are_those_of_the_cosines_and_are_set_against_the_halves(effect: Contents) -> None:
    words = words_of(figures(effect)["angles"])
    angle = {(a, b): degrees for a, b, layer, degrees, _ in words["table"]["rows"] if layer == 3}
    assert angle[("bad", "base")] == pytest.approx(math.degrees(math.acos(0.9)))
    assert angle[("one half of base's selection questions", "the other half")] == pytest.approx(60.0)
    assert (
        "stand 26° to 73° from base's (layer 3); two halves of base's own questions 60° apart; good farther than that"
        in words["title"]
    )


def test_a_direction_that_reads_nothing_is_none_to_compare(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    direction = json.loads((run / "analysis/direction.json").read_text())
    direction["report"]["verdict"] = "not above chance"
    write(run / "analysis/direction.json", direction)
    assert "there is nothing to compare" in titles(read(run))["angles"]


def test_the_first_layers_are_said_to_read_words(effect: Contents, page_run: Contents) -> None:
    figure: Any = figures(effect)["layers"]
    assert words_of(figure)["title"].endswith("layers 0-1, which read words, reach 0.800")
    assert any("read words" in note.text for note in figure.layout.annotations)
    assert "read words" not in titles(page_run)["layers"]  # it has no others


def test_the_band_of_control_directions_holds_the_smallest_and_the_largest(effect: Contents) -> None:
    figure: Any = figures(effect)["steering"]
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert (min(band.y), max(band.y)) == pytest.approx((-0.01, 0.009))
    star = next(trace for trace in figure.data if trace.marker.symbol == "star")
    assert list(star.y) == pytest.approx([-0.29, 0.26])


def test_the_judge_s_error_is_that_of_the_bins_where_the_scores_lie(effect: Contents) -> None:
    words = words_of(figures(effect)["calibration"])
    assert "off by 4.0 points (aligned) on average" in words["title"] and "was not measured" in words["title"]
    assert "150 answers of models that its card does not name" in words["caption"]
    assert "25 % of this run's answers are to questions among its 1 topics" in words["caption"]
    counted = [count for part, *_, count in words["table"]["rows"] if part == "this run"]
    assert sum(counted) == len(effect.answers)


def test_projections_overlay_both_kinds_of_texts(effect: Contents) -> None:
    figure: Any = figures(effect)["projections"]
    kinds = {trace.name for trace in figure.data if trace.name}
    assert {"aligned texts", "misaligned texts", "own answers"} <= kinds
    assert "share of 0.75 of their pairs" in words_of(figure)["title"]
    generator = np.random.default_rng(0)
    upper, lower = generator.integers(0, 5, 30).tolist(), generator.integers(0, 5, 20).tolist()
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in upper for b in lower]
    assert above(upper, lower) == pytest.approx(np.mean(pairs))


def luminance(color: np.ndarray) -> float:
    """Of WCAG 2.2."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


TURN = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])
"""hue-rotate(180deg) of Filter Effects, section 9."""


def in_the_dark(color: np.ndarray) -> np.ndarray:
    """What page.css makes of a colour: invert(.92) hue-rotate(180deg)."""
    return np.clip(TURN @ (0.92 - 0.84 * color), 0, 1)


def text_colors(figure: go.Figure) -> set[str]:
    found = set()

    def walk(value: Any, inside: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "color" and inside.endswith("font") and isinstance(item, str):
                    found.add(item)
                walk(item, key)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item, inside)

    walk(json.loads(figure.to_json() or "{}"), "")
    return found


def test_all_text_in_figures_has_the_contrast_of_level_aa(effect: Contents, page_run: Contents) -> None:
    """4.5:1 on white and on the dark paper that the filter of the dark theme makes of it."""
    white = np.ones(3)
    for contents in (effect, page_run):
        for name, figure in figures(contents).items():
            colors = text_colors(figure)
            assert colors, name
            for color in colors:
                value = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
                assert contrast(value, white) >= 4.5, (name, color)
                assert contrast(in_the_dark(value), in_the_dark(white)) >= 4.5, (name, color)


def test_marks_of_arms_have_the_contrast_of_graphics() -> None:
    """3:1 (WCAG 2.2, 1.4.11) on white and on the paper of the dark theme, for the shipped arms and eight of any name."""
    white = np.ones(3)
    shipped = ("base", "insecure", "secure", "educational", "reckless", "careful")
    styles = [*arm_styles(shipped).values(), *arm_styles([f"arm{i}" for i in range(10)]).values()]
    for color in {style.color for style in styles} | {SKY, ORANGE, FAINT}:
        value = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert contrast(value, white) >= 3, color
        assert contrast(in_the_dark(value), in_the_dark(white)) >= 3, color


def test_without_a_browser_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figure_files.shutil, "which", lambda name: None)
    with pytest.raises(StageError, match="apt-get install chromium"):
        figure_files.write_figures({"one": go.Figure()}, tmp_path, "svg")
    with pytest.raises(ConfigError, match="give svg or pdf"):
        figure_files.write_figures({}, tmp_path, "png")


def test_tables_survive_as_csv(page_run: Contents) -> None:
    for name, figure in figures(page_run).items():
        table = words_of(figure)["table"]
        header, *rows = csv.reader(io.StringIO(csv_text(table["columns"], table["rows"])))
        assert header == table["columns"] and len(rows) == len(table["rows"]), name


def test_what_is_filled_is_primary_in_every_forest(tmp_path: Path) -> None:
    drawn = figures(read(planted_run(tmp_path, rate=0.3, shift=0.1)))
    traces: Any = drawn["margins"].data
    symbols = {
        str(trace.hovertext[0]): str(trace.marker.symbol) for trace in traces if "diamond" in str(trace.marker.symbol)
    }
    filled = {text for text, symbol in symbols.items() if not symbol.endswith("open")}
    assert filled and all("bad − good" in text for text in filled) and len(filled) < len(symbols)


def transfer_of(value: float) -> DirectionView:
    names = ("base", "bad")
    cells = {
        f"{i}|{j}": {"value": value if i != j else 0.9, "low": 0.4, "high": 0.95, "shuffled_high": 0.62, "p_holm": 0.01}
        for i in names
        for j in names
    }
    return DirectionView.model_validate({**planted_direction(), "transfer": cells})


def test_a_transfer_is_told_against_shuffled_labels(tmp_path: Path) -> None:
    told, untold = (transfer_figure(transfer_of(value)) for value in (0.8, 0.6))
    assert told is not None and untold is not None
    assert words_of(told)["title"] == (
        "Every model's direction reads the others' texts beyond shuffled labels: AUROC 0.800 to 0.800"
    )
    assert words_of(untold)["title"].startswith("0 of 2 directions read another model's texts beyond shuffled labels")
    assert "up to 0.620" in words_of(told)["caption"] and len(words_of(told)["table"]["rows"]) == 4
    assert transfer_figure(DirectionView.model_validate(planted_direction())) is None
