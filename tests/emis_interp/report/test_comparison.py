"""Runs side by side: planted differences come out, nulls stay nulls, and what is not comparable is never set beside each other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_strings import HOSTILE_STRINGS
from planted_page import write, write_run
from scipy import stats

from emis_interp.errors import ConfigError, StageError
from emis_interp.report import build, comparison
from emis_interp.report.comparison_figure import forest_figure
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.made_otherwise import made_otherwise
from emis_interp.report.quantities import CHOICES, MARGINS, RATES, main_contrasts
from emis_interp.report.settings import PageSettings
from emis_interp.report.style import FAINT

QUESTIONS = [f"q{i}" for i in range(12)]
NOISE = np.random.default_rng(3).normal(0, 0.04, 12)


def margin_row(shifts: np.ndarray, arm: str = "bad", reference: str = "good", **more: Any) -> dict[str, Any]:
    """A contrast as the likelihood stage writes it: mean over questions, t interval."""
    half = stats.t.ppf(0.975, len(shifts) - 1) * shifts.std(ddof=1) / np.sqrt(len(shifts))
    found = {
        "mean": shifts.mean(),
        "low": shifts.mean() - half,
        "high": shifts.mean() + half,
        "n_questions": len(shifts),
    }
    by_question = dict(zip(QUESTIONS, shifts.tolist(), strict=True))
    return {
        "arm": arm,
        "reference": reference,
        "n_positive": int((shifts > 0).sum()),
        "by_question": by_question,
        **found,
        **more,
    }


def a_run(
    folder: Path, *rows: dict[str, Any], manifest: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Path:
    """A run with likelihood margins; a `config` or `manifest` entry replaces the planted one."""
    arms = [{"name": "base"}, {"name": "bad", "contrast": "good"}, {"name": "good"}]
    whole = {"name": "planted", "model": "a/model", "arms": arms, "judge": {"kind": "offline"}} | (config or {})
    inputs = {"contrast pairs": "1" * 64, "questions": "2" * 64, "training data of bad": "3" * 64}
    write(
        folder / "manifest.json",
        {"config": whole, "inputs": inputs, "started": "2026-01-02T03:04:05+00:00"} | (manifest or {}),
    )
    margins = {"unit": "nats per token", "questions": {}, "arms": {}, "contrasts": list(rows)}
    write(folder / "analysis/margins.json", margins)
    return folder


def add_rates(folder: Path, value: float = 0.1, judge: str = "tiny", control: float = 0.0) -> Path:
    def rate(n_positive: int) -> dict[str, Any]:
        return {
            "estimand": "em_of_coherent",
            "weighting": "pooled",
            "value": n_positive / 50,
            "n_positive": n_positive,
            "n": 50,
        }

    def contrast(arm: str, reference: str, at: float) -> dict[str, Any]:
        named = {"arm": arm, "reference": reference, "estimand": "em_of_coherent", "weighting": "macro"}
        return named | {"value": at, "low": at - 0.06, "high": at + 0.04}

    arms = [{"arm": arm, "n": 60, "rates": [rate(n)]} for arm, n in (("base", 1), ("bad", 6), ("good", 2))]
    rows = [contrast("bad", "good", value), contrast("bad", "base", value), contrast("good", "base", control)]
    write(
        folder / "analysis/rates.json", {"judge": {"name": judge, "kind": "offline"}, "arms": arms, "contrasts": rows}
    )
    return folder


def loaded(*folders: Path) -> dict[str, Contents]:
    return {folder.name: load_contents(folder) for folder in folders}


def of(runs: dict[str, Contents], quantity: Any) -> list[comparison.ComparedQuantity]:
    return [one for one in comparison.compared(runs) if one.quantity is quantity]


def test_a_planted_difference_of_two_seeds_comes_out_as_a_paired_t_test_would_have_it(tmp_path: Path) -> None:
    jitter = np.random.default_rng(4).normal(0, 0.01, 12)
    one, other = 0.10 + NOISE, 0.15 + NOISE + jitter
    runs = loaded(a_run(tmp_path / "one", margin_row(one)), a_run(tmp_path / "two", margin_row(other)))
    (found,) = of(runs, MARGINS)
    (apart,) = found.contrasts[0].differences
    by_scipy = stats.ttest_rel(other, one).confidence_interval()
    assert (apart.low, apart.high) == pytest.approx((by_scipy.low, by_scipy.high)) and apart.told
    (said,) = comparison.sentences(found)
    assert "both intervals lie above 0" in said and f"differ by +{apart.value:.3f}" in said
    assert "no interval covers another finetuning run of one and two" in said


def test_two_nulls_cover_0_and_nobody_could_think_that_they_differ(tmp_path: Path) -> None:
    other = np.random.default_rng(5).normal(0, 0.04, 12)
    runs = loaded(
        a_run(tmp_path / "one", margin_row(NOISE - NOISE.mean())),
        a_run(tmp_path / "two", margin_row(other - other.mean())),
    )
    (said,) = comparison.sentences(of(runs, MARGINS)[0])
    assert "both intervals cover 0" in said and "the runs are not told apart" in said and "differ by" not in said


def test_an_effect_in_one_run_and_none_in_the_other_is_no_difference(tmp_path: Path) -> None:
    wide = np.random.default_rng(6).normal(0, 0.2, 12)
    runs = loaded(
        a_run(tmp_path / "one", margin_row(0.06 + NOISE)),
        a_run(tmp_path / "two", margin_row(0.02 + wide - wide.mean())),
    )
    (said,) = comparison.sentences(of(runs, MARGINS)[0])
    assert "lies above 0 in one" in said and "covers 0 in two" in said
    assert "That one interval leaves 0 out and another does not is no difference" in said and "differ by" not in said


def test_the_same_models_in_two_runs_are_said_to_be_the_same(tmp_path: Path) -> None:
    runs = loaded(*(a_run(tmp_path / name, margin_row(0.1 + NOISE)) for name in ("one", "two")))
    (found,) = of(runs, MARGINS)
    (said,) = comparison.sentences(found)
    assert (
        found.contrasts[0].differences == ()
        and "two and one have the same value for every question: these are the same models" in said
    )
    assert "differ by" not in said and "told apart" not in said and "an interval is missing" not in said


def test_arms_of_several_seeds_are_joined_in_squares(tmp_path: Path) -> None:
    rows = [margin_row(0.1 + NOISE, n_models=3), margin_row(0.2 + NOISE, n_models=3)]
    rows[1] |= {"low": rows[1]["mean"] - 0.03, "high": rows[1]["mean"] + 0.05}
    runs = loaded(a_run(tmp_path / "one", rows[0]), a_run(tmp_path / "two", rows[1]))
    (apart,) = of(runs, MARGINS)[0].contrasts[0].differences
    half = rows[0]["high"] - rows[0]["mean"]
    assert apart.value == pytest.approx(0.1)
    assert apart.low == pytest.approx(0.1 - np.hypot(0.03, half)) and apart.high == pytest.approx(
        0.1 + np.hypot(0.05, half)
    )
    assert apart.how == comparison.SQUARED


def test_joined_in_squares_covers_independent_runs_as_often_as_it_says() -> None:
    """Second route: simulated runs whose contrasts are known."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        rows = [margin_row(mean + rng.normal(0, 0.1, 12), n_models=2) for mean in (0.1, 0.3)]
        views = [comparison.MarginContrast.model_validate(row) for row in rows]
        found = comparison.difference(views[0], views[1], first="a", run="b")
        assert found is not None
        hits += found.low <= 0.2 <= found.high
    assert 0.93 <= hits / 400 <= 0.99


@pytest.mark.parametrize(
    ("changed", "apart_in"),
    [
        ({"config": {"model": "another/model"}}, {"margins", "rates"}),
        ({"manifest": {"inputs": {"contrast pairs": "9" * 64, "questions": "2" * 64}}}, {"margins"}),
        ({"manifest": {"inputs": {"contrast pairs": "1" * 64, "questions": "9" * 64}}}, {"rates"}),
        ({"config": {"sampling": {"temperature": 0.5}}}, {"rates"}),
        ({"config": {"system_prompt": "Be kind."}}, {"margins", "rates"}),
        ({"config": {"training": {"learning_rate": 0.1}}}, set()),
        ({"judge": "another"}, {"rates"}),
    ],
)
def test_runs_are_apart_in_what_was_measured_otherwise(
    tmp_path: Path, changed: dict[str, Any], apart_in: set[str]
) -> None:
    judge = changed.pop("judge", "tiny")
    one = add_rates(a_run(tmp_path / "one", margin_row(0.1 + NOISE)))
    two = add_rates(a_run(tmp_path / "two", margin_row(0.3 + NOISE), **changed), judge=judge)
    runs = loaded(one, two)
    for quantity in (MARGINS, RATES):
        found = of(runs, quantity)
        assert (len(found) == 2) == (quantity.key in apart_in), quantity.key
        assert [bool(part.group.apart) for part in found] == [False, True][: len(found)]
        for part in found:
            together = {name for contrast in part.contrasts for name in contrast.rows}
            assert together == set(part.group.runs)
            assert all({d.run, d.first} <= together for contrast in part.contrasts for d in contrast.differences)
        if quantity.key in apart_in:
            assert not any(contrast.differences for part in found for contrast in part.contrasts)
            assert "differ by" not in " ".join(said for part in found for said in comparison.sentences(part))


def test_a_rate_of_a_judge_that_fails_its_control_is_grey_and_not_compared(tmp_path: Path) -> None:
    runs = loaded(add_rates(a_run(tmp_path / "one")), add_rates(a_run(tmp_path / "two"), control=0.3))
    (found,) = of(runs, RATES)
    (primary, *_) = found.contrasts
    assert primary.doubts == {"two": "the judge fails its control on this run"} and primary.differences == ()
    (said,) = comparison.sentences(found)
    assert "two does not count: the judge fails its control" in said
    drawn: Any = forest_figure(found)
    by_run = {("one" if "one: bad" in trace.hovertext[0] else "two"): trace.marker for trace in drawn.data[:2]}
    assert by_run["two"].line.color == FAINT and by_run["two"].color == "white" and by_run["one"].color != "white"


def test_rates_stand_with_their_denominators(tmp_path: Path) -> None:
    runs = loaded(add_rates(a_run(tmp_path / "one")))
    (found,) = of(runs, RATES)
    assert found.contrasts[0].counts == {"one": "bad 6 of 50 and good 2 of 50"}
    assert "bad 6 of 50" in forest_figure(found).data[0]["hovertext"][0]


def test_what_differs_is_named_by_dotted_keys_and_hashes_and_nothing_else_is(tmp_path: Path) -> None:
    arms = [
        {"name": "base"},
        {"name": "bad", "contrast": "good", "n_rows": 9},
        {"name": "good"},
        {"name": "more", "dataset": "d"},
    ]
    config = {"training": {"rank": 8, "layers": [1, 2]}, "arms": arms, "model": "/home/me/models/a"}
    changed = {
        "inputs": {"contrast pairs": "1" * 64, "training data of bad": "8" * 64},
        "versions": {"torch": "2", "numpy": "1"},
    }
    one = a_run(
        tmp_path / "one",
        config={"training": {"rank": 4, "layers": [1, 2]}, "model": "/mnt/b/models/a"},
        manifest={"versions": {"torch": "1", "numpy": "1"}},
    )
    found = made_otherwise(loaded(one, a_run(tmp_path / "two", config=config, manifest=changed)))
    assert dict(found["configuration"]) == {
        "model": ["…/a (folder 1)", "…/a (folder 2)"],
        "arms.bad.n_rows": ["–", "9"],
        "training.rank": ["4", "8"],
        "arms.more": ["–", "dataset d"],
    }
    assert dict(found["inputs"]) == {"questions": ["2" * 64, "–"], "training data of bad": ["3" * 64, "8" * 64]}
    assert dict(found["versions"]) == {"torch": ["1", "2"]}


def test_the_main_contrast_is_the_one_nearest_to_behaviour_that_counts(tmp_path: Path) -> None:
    only = load_contents(a_run(tmp_path / "only", margin_row(0.1 + NOISE)))
    judged = load_contents(add_rates(a_run(tmp_path / "judged", margin_row(0.1 + NOISE))))
    failing = load_contents(add_rates(a_run(tmp_path / "failing", margin_row(0.1 + NOISE)), control=0.3))
    assert [[quantity.key for quantity, _ in main_contrasts(run)] for run in (only, judged, failing)] == [
        ["margins"],
        ["rates"],
        ["margins"],
    ]
    assert CHOICES.find(only, "bad", "good") is None


def test_a_run_given_twice_and_folders_that_are_none_are_refused_with_advice(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one", margin_row(NOISE))
    link = tmp_path / "link"
    link.symlink_to(run)
    with pytest.raises(ConfigError, match=r"given twice .*give each folder once"):
        build.run(PageSettings(run_dir=run, others=(link,)))
    with pytest.raises(StageError, match="no manifest"):
        build.run(PageSettings(run_dir=run, others=(tmp_path,)))
    with pytest.raises(ConfigError, match="nothing to build"):
        build.run(PageSettings())
    with pytest.raises(ConfigError, match=r"--out .* is for a comparison"):
        build.run(PageSettings(run_dir=run, out=tmp_path / "x.html"))
    with pytest.raises(ConfigError, match="numbers go"):
        build.run(PageSettings(run_dir=run, others=(a_run(tmp_path / "two"),), out=tmp_path / "x.json"))


def test_runs_of_one_name_are_told_apart_and_numbers_stand_beside_the_page(tmp_path: Path) -> None:
    folders = [a_run(tmp_path / place / "same", margin_row(0.1 + NOISE)) for place in ("here", "there")]
    result = build.run(PageSettings(run_dir=folders[0], others=(folders[1],), out=tmp_path / "page.html"))
    data = json.loads((tmp_path / "page.json").read_text())
    assert data["runs"] == ["here/same", "there/same"] and result["data"] == str(tmp_path / "page.json")
    page = (tmp_path / "page.html").read_text()
    assert 'href="page.json"' in page and str(tmp_path) not in page
    assert "here/same" in build.say(result) and "All inputs that the manifests name have the same SHA-256" in page


@pytest.mark.parametrize(
    "arm", [HOSTILE_STRINGS[0], HOSTILE_STRINGS[10], HOSTILE_STRINGS[32], HOSTILE_STRINGS[-1], "<b>x</b>"]
)
def test_hostile_names_and_settings_stay_text(tmp_path: Path, arm: str) -> None:
    runs = []
    for i, name in enumerate(("one", "two")):
        run = write_run(tmp_path / name)
        for path in (run / "manifest.json", *(run / "analysis").glob("*.json")):
            path.write_text(path.read_text("utf-8").replace('"insecure"', json.dumps(arm)), "utf-8")
        manifest = json.loads((run / "manifest.json").read_text())
        settings = dict.fromkeys(HOSTILE_STRINGS, i)
        manifest["config"] |= {"name": arm, "model": " ".join(HOSTILE_STRINGS) + str(i), "sampling": settings}
        manifest |= {"inputs": {text: str(i) for text in HOSTILE_STRINGS}, "versions": settings}
        write(run / "manifest.json", manifest)
        runs.append(run)
    build.run(PageSettings(run_dir=runs[0], others=(runs[1],), out=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text("utf-8")
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    for start in (
        "<img",
        "<svg ",
        "<script",
        "<iframe",
        "<style",
        "<base",
        "<meta",
        "<link",
        "<form",
        "<object",
        "<details open on",
        "<b>x",
    ):
        assert start not in body, start
    for found in comparison.compared(loaded(*runs)):
        drawn: Any = forest_figure(found)
        ticks = [tick.removeprefix("<b>").removesuffix("</b>") for tick in drawn.layout.yaxis.ticktext]
        hovers = [part for trace in drawn.data for text in trace["hovertext"] for part in text.split("<br>")]
        assert not any("<" in text for text in (*ticks, *hovers))
