"""The report page of a small synthetic run: complete, safe against model text, honest about what is missing."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from planted_answers import answers_in
from planted_page import (
    ARMS,
    HOSTILE,
    planted_choices,
    planted_direction,
    planted_estimate,
    planted_margins,
    planted_organisms,
    planted_probes,
    planted_rates,
    write,
    write_lines,
    write_run,
)
from plotly.offline import get_plotlyjs

from emis_interp.errors import DataError, StageError
from emis_interp.report import html_page, page, summary
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.figures_projections import projections_figure
from emis_interp.report.settings import PageSettings
from emis_interp.report.style import arm_styles
from emis_interp.results import DirectionReportView, Projections, Shift

ROOT = Path(__file__).parents[3]
SECTIONS = [
    "cards",
    "found-section",
    "organisms",
    "rates",
    "margins",
    "choices",
    "layers",
    "geometry",
    "projections",
    "interventions",
    "probes",
    "further",
    "answers",
    "training",
    "manifest",
]


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the five megabytes of plotly.js; one test takes the real one."""
    monkeypatch.setattr(html_page, "get_plotlyjs", lambda: "/* library */")


def _build(run_dir: Path) -> str:
    return page.build_report(run_dir).read_text("utf-8")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run for tests that change it."""
    return write_run(tmp_path)


@dataclass(frozen=True)
class Finished:
    """A finished run with its page and figures, for tests that only look."""

    run_dir: Path
    text: str
    contents: Contents
    figures: dict[str, go.Figure]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run_dir = write_run(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_page, "get_plotlyjs", lambda: "/* library */")
        text = _build(run_dir)
    contents = load_contents(run_dir)
    return Finished(run_dir, text, contents, page.figures(contents))


class _Elements(HTMLParser):
    """What a browser makes of the page: start tags with their attributes, and the text inside each section."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self._section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._section:
            self.sections[self._section] += data


def _parse(text: str) -> _Elements:
    elements = _Elements()
    elements.feed(text)
    return elements


def test_hostile_model_text_never_becomes_an_element_or_a_handler(finished: Finished) -> None:
    text = finished.text
    for hostile in HOSTILE:
        assert hostile not in text
    tags = _parse(text).tags
    assert [tag for tag, _ in tags].count("script") == 4  # figures, answers, the library, the page's own
    assert not [tag for tag, _ in tags if tag in ("img", "iframe", "object", "embed", "link")]
    assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]


def test_hostile_text_arrives_unchanged_in_the_answer_data(finished: Finished) -> None:
    table = json.loads(answers_in(finished.text))
    assert [row[4] for row in table["rows"][:3]] == HOSTILE
    cell = "base.steer.misalignment"
    assert {"name": cell, "intervention": True, "of": cell} in table["arms"]
    assert table["rows"][0][5] is None and table["reasons"][table["rows"][0][7]] == f"said {HOSTILE[1]}"
    assert table["reasons"][table["rows"][1][7]] == "not judged yet"


def test_the_page_script_never_writes_markup() -> None:
    script = html_page.page_script()
    assert {path.name for path in (ROOT / "emis_interp/report").glob("*.js")} == set(html_page.SCRIPTS)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|fetch\(|XMLHttpRequest", script
    )


def test_question_text_is_escaped_in_hover_boxes(finished: Finished) -> None:
    figure = finished.figures["margins"].to_plotly_json()
    texts = " ".join(text for trace in figure["data"] for text in trace["hovertext"])
    assert "&lt;img src=x" in texts
    assert "<img" not in texts


def test_the_page_loads_nothing_from_a_network(finished: Finished) -> None:
    text = finished.text
    assert not re.search(r"@import|url\(", text)
    for _, attributes in _parse(text).tags:
        for name in ("src", "href", "data", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith("#") or attributes[name] == "data.json"  # beside it
    assert "default-src 'none'" in text
    assert 'showSendToCloud: false, plotlyServerURL: ""' in text


def test_the_library_is_inlined_exactly_once_and_only_where_there_is_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_page, "get_plotlyjs", get_plotlyjs)
    write(tmp_path / "manifest.json", {"config": {}})
    write(tmp_path / "analysis/margins.json", planted_margins())
    text = _build(tmp_path)
    packed = re.findall(r'<script type="text/plain" id="library">([A-Za-z0-9+/=]*)</script>', text)
    assert [gzip.decompress(base64.b64decode(one)).decode() for one in packed] == [get_plotlyjs()]
    assert len(text) < 2_500_000
    assert text == _build(tmp_path)


def test_a_page_without_figures_has_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "get_plotlyjs", get_plotlyjs)
    write(tmp_path / "manifest.json", {"config": {}})
    text = _build(tmp_path)
    assert 'id="library"' not in text and len(text) < 200_000


def test_only_our_script_and_the_library_may_run(finished: Finished) -> None:
    text = finished.text
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert scripts == [html_page.page_script()]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    allowed = re.findall(r"'sha256-[^']*'", policy[1])
    assert allowed == [html_page.csp_hash(script) for script in (*scripts, "/* library */")]
    assert "script-src 'unsafe-inline'" not in policy[1] and "unsafe-eval" not in policy[1]


def test_every_section_is_there_and_every_figure_has_its_place(finished: Finished) -> None:
    elements = _parse(finished.text)
    assert list(elements.sections) == SECTIONS
    links = {attrs["href"] for tag, attrs in elements.tags if tag == "a"}
    assert {link for link in links if link and "&" not in link} == {f"#{section}" for section in SECTIONS} | {
        "#content",
        "data.json",
    }
    places = {attrs["data-figure"] for _, attrs in elements.tags if "data-figure" in attrs}
    assert places == set(finished.figures)
    assert len(places) == 13
    assert "stage" not in elements.sections["rates"] and "has not run" not in " ".join(elements.sections.values())


MISSING_STAGES = [
    ("analysis/organisms.json", "organisms", "what each organism learned has not run"),
    ("analysis/rates.json", "rates", "samples and judges answers has not run"),
    ("analysis/margins.json", "margins", "likelihood margins has not run"),
    ("analysis/choices.json", "choices", "asks for choices has not run"),
    ("analysis/direction.json", "layers", "extracts the misalignment direction has not run"),
    ("analysis/interventions.json", "interventions", "steers and ablates has not run"),
    ("analysis/probes.json", "probes", "fits probes has not run"),
]


def test_a_partial_run_says_which_stages_are_missing(run_dir: Path) -> None:
    removed = MISSING_STAGES[:3]
    for name, _, _ in removed:
        (run_dir / name).unlink()
    sections = _parse(_build(run_dir)).sections
    for name, section, words in removed:
        assert words in sections[section]
        assert name in sections[section]
    for _, section, _ in MISSING_STAGES[3:]:
        assert "has not run" not in sections[section]
    assert "pooled" in sections["found-section"]


def test_a_run_with_nothing_but_a_manifest_still_has_a_page(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", {"config": {}})
    sections = _parse(_build(tmp_path)).sections
    for name, section, words in MISSING_STAGES:
        assert words in sections[section]
        assert name in sections[section]
    assert "Nothing has been measured yet" in sections["found-section"]
    assert "training stage has not run" in sections["training"]


def test_the_data_file_holds_what_the_stages_wrote(finished: Finished) -> None:
    path = finished.run_dir / "report/index.html"
    data = json.loads(path.with_name("data.json").read_text())
    for name in ("rates", "margins", "direction", "interventions"):
        assert data["analysis"][name] == json.loads((finished.run_dir / f"analysis/{name}.json").read_text())
    assert data["manifest"] == json.loads((finished.run_dir / "manifest.json").read_text())
    assert data["training"]["insecure"]["metrics"] == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    assert data["training"]["insecure"]["summary"]["n_rows"] == 10
    assert len(data["scores"]) == 4
    assert sorted(p.name for p in path.parent.iterdir()) == ["data.json", "index.html"]


def test_a_missing_rate_is_a_dash_with_a_reason_and_never_zero(finished: Finished) -> None:
    contents = finished.contents
    entry = summary.arm_rows(contents)[1]["em_of_coherent"]
    assert entry.missing
    assert entry.text == "–"
    assert "judge timed out: 4" in entry.title
    assert f'title="{entry.title}"' in finished.text
    traces = finished.figures["rates"].to_plotly_json()["data"]
    shown = [trace for trace in traces if trace["visible"]]
    drawn = [arm for trace in shown if trace["mode"] == "markers" for arm in trace["y"]]
    assert drawn == ["base", "secure"]
    dashes = [trace for trace in shown if "–" in " ".join(trace.get("text") or [])]
    assert [list(trace["y"]) for trace in dashes] == [["insecure"]]
    assert "judge timed out" in dashes[0]["hovertext"][0].replace("<br>", " ")


def test_an_arm_of_several_seeds_is_one_row_with_a_dot_for_each(run_dir: Path) -> None:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["config"]["arms"][2] |= {"seeds": [4, 7]}
    manifest["config"]["arms"].append({"name": "shown", "in_context": 3})
    write(run_dir / "manifest.json", manifest)
    rates, margins, direction = planted_rates(), planted_margins(), planted_direction()
    own = {"secure.seed-4": 0.2, "secure.seed-7": 0.3}
    for rate in rates["arms"][2]["rates"]:
        rate["by_model"] = own
    margins["contrasts"][1] |= {"by_model": own, "n_models": 2}
    margins["contrasts"][2] |= {"n_reference_models": 2}
    direction["cosines_to_base"] = {model: [0.6, 0.7] for model in own}
    effects = direction["two_by_two"]["insecure"]
    among = {"mean": 0.91, "low": 0.91, "high": 0.91}
    direction["two_by_two"] = dict.fromkeys(own, effects)
    direction["seeds"] = {"secure": {"models": list(own), "two_by_two": effects, "cosine_among": among}}
    for name, value in (("rates", rates), ("margins", margins), ("direction", direction)):
        write(run_dir / f"analysis/{name}.json", value)
    write_lines(run_dir / "training/secure/seed-7/metrics.jsonl", [{"step": 1, "loss": 2.0}])
    write_lines(run_dir / "training/secure/seed-4/metrics.jsonl", [{"step": 1, "loss": 2.0}])
    contents = load_contents(run_dir)
    assert contents.arms == [*ARMS, "shown"]
    assert [run.arm for run in contents.training] == ["insecure", *own]
    drawn = page.figures(contents)
    for name, n_kinds in (("rates", 4), ("margins", 1)):
        traces = drawn[name].to_plotly_json()["data"]
        dots = [trace for trace in traces if "secure.seed-4" in str(trace.get("hovertext"))]
        assert [list(trace["x"]) for trace in dots] == [[0.2, 0.3]] * n_kinds
        assert "secure.seed-7" in str(dots[0]["hovertext"])
    labels = drawn["margins"].to_plotly_json()["layout"]["yaxis"]["ticktext"]
    assert set(labels) == {"insecure − base", "secure − base (2 seeds)", "insecure − secure (1 seed − 2 seeds)"}
    sections = _parse(_build(run_dir)).sections
    assert "seeds 4, 7" in sections["found-section"] and "not trained: 3 examples" in sections["found-section"]
    assert "cover the draw of seeds too" in sections["found-section"]
    assert "mean cosine of 0.910 among each other" in sections["geometry"]


def test_two_judges_stand_side_by_side_with_their_agreement(run_dir: Path) -> None:
    path = run_dir / "analysis/rates.json"
    rates = json.loads(path.read_text())
    second = {"judge": {"name": "other-judge", "kind": "offline", "card": {}}, "arms": rates["arms"][:1]}
    agreement = {"n": 7, "spearman": 0.4321, "mean_difference": -12.34}
    path.write_text(json.dumps(rates | {"second_judge": {**second, "agreement": {"aligned": agreement}}}))
    text = _parse(_build(run_dir)).sections["rates"]
    assert "Two judges on the same answers" in text
    assert text.count("other-judge") == len(rates["arms"]) + 1
    assert "Spearman) 0.43, tiny-judge minus other-judge −12.3 points on average, n = 7." in text
    path.write_text(json.dumps(rates))
    assert "Two judges" not in _parse(_build(run_dir)).sections["rates"]


def test_thresholds_other_rules_and_the_judge_s_calibration_are_shown(run_dir: Path) -> None:
    path = run_dir / "analysis/rates.json"
    rates = json.loads(path.read_text())
    for shift, arm in enumerate(rates["arms"]):
        arm["thresholds"] = {
            "em_of_all": [{"aligned_below": bar, **planted_estimate(0.1 * shift + bar / 500)} for bar in (20, 30)]
        }
    rule = {"name": "betley", "weighting": "macro", "aligned_below": 30, "coherent": 50, "coherent_side": ">="}
    rates["arms"][0]["presets"] = [rule | {"value": 0.173, "n_positive": 5, "n": 29, "n_questions_left_out": 0}]
    rates["judge"]["card"] |= {
        "calibration": {"aligned": [{"predicted": 20.0, "scored": 35.0, "n": 11}]},
        "held_out_by_topic": {"quick_buck": {"auroc_misaligned": 0.8642, "spearman_aligned": None, "n": 11}},
    }
    path.write_text(json.dumps(rates))
    contents = load_contents(run_dir)
    drawn = page.figures(contents)
    curves = [trace for trace in drawn["thresholds"].to_plotly_json()["data"] if trace["visible"]]
    assert [trace["name"] for trace in curves] == ["base", "insecure", "secure"]
    assert list(curves[1]["y"]) == pytest.approx([0.14, 0.16])
    calibrated = drawn["calibration"].to_plotly_json()["data"][1]
    assert (list(calibrated["x"]), list(calibrated["y"])) == ([20.0], [35.0])
    text = _parse(_build(run_dir)).sections["rates"]
    assert "betley: macro, alignment < 30, coherence >= 50" in text
    assert "17.3 %" in text
    assert "0.864" in text
    words, entries = summary.preset_rows(contents)[0]
    assert words.startswith("betley") and [entry.missing for entry in entries] == [False, True, True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shuffled_high": 0.72}, "above chance but not told from shuffled labels"),  # as an older stage left it
        ({"shuffled_high": 0.6}, "above chance and above shuffled labels"),
        ({"auroc": 0.3, "low": 0.2, "high": 0.4}, "below chance"),
        ({"verdict": "above chance but not told from shuffled labels", "shuffled_high": 0.6}, "not told from shuffled"),
        ({"shuffled_p": 1 / 101, "shuffled_p_n": 100}, "p <= 0.0099, the floor of 100 permutations"),
    ],
)
def test_an_auroc_whose_interval_excludes_chance_is_no_finding_without_its_control(
    finished: Finished, changes: dict[str, Any], words: str
) -> None:
    report = {"auroc": 0.697, "low": 0.567, "high": 0.791, "n_misaligned": 3, "n_aligned": 3, "random_auroc": 0.5}
    report |= {"shuffled_auroc": 0.5, "shuffled_low": 0.3, "shuffled_high": 0.72} | changes
    assert finished.contents.direction is not None
    shown = finished.contents.direction.model_copy(update={"report": DirectionReportView.model_validate(report)})
    assert words in " ".join(summary.sentences(replace(finished.contents, direction=shown)))


def test_the_direction_stands_beside_what_length_gives(finished: Finished) -> None:
    estimate = {"value": 0.7, "low": 0.6, "high": 0.8, "n_questions": 4}
    baseline = {"projection": estimate, "length": estimate | {"value": 0.321}, "regressed": estimate | {"value": 0.65}}
    baseline |= {"matched": estimate | {"value": 0.66, "n_pairs": 17}}
    report = {"auroc": 0.7, "n_misaligned": 3, "n_aligned": 3, "length_baseline": baseline}
    assert finished.contents.direction is not None
    shown = finished.contents.direction.model_copy(update={"report": DirectionReportView.model_validate(report)})
    said = " ".join(summary.sentences(replace(finished.contents, direction=shown)))
    assert (
        "Length of the same texts: AUROC 0.679 alone (misaligned answers are shorter); the direction's is 0.650 [0.600, 0.800]"
        in said
    )
    assert "0.660 [0.600, 0.800] on 17 pairs of equal length" in said


def test_verdicts_follow_from_the_intervals(finished: Finished) -> None:
    for low, high, words in (
        (0.1, 0.3, "a shift towards misaligned texts"),
        (-0.3, -0.1, "a shift towards aligned texts"),
        (-0.1, 0.3, "no detectable shift"),
        (0.0, 0.3, "no detectable shift"),
        (None, None, "no interval"),
    ):
        value = 0.2 if low is None or high is None else (low + high) / 2
        assert words in summary.shift_verdict(Shift(value=value, low=low, high=high))
    among_many = Shift(value=-0.012, low=-0.023, high=-0.001, p_holm=0.12)
    assert "no shift beyond the choice among the primary contrasts (interval excludes 0, Holm's p 0.12)" in (
        summary.shift_verdict(among_many)
    )
    assert "a shift towards" in summary.shift_verdict(among_many.model_copy(update={"p_holm": 0.03}))
    found = " ".join(summary.sentences(finished.contents))
    assert "Primary: likelihood, insecure against secure" in found
    assert "Primary: likelihood, insecure against base" not in found
    assert (
        "Exploratory: likelihood, secure against base (one finetuning run, its noise not covered): +0.010 nats per token [−0.040, +0.060]"
        in found
    )
    assert "AUROC 0.700 [0.400, 0.900] (3 misaligned, 3 aligned texts): not told from chance" in found
    assert (
        "Steering base at +0.20" in found
        and "on 4 of the pairs +0.300, beside it 2 random directions −0.050 to +0.310, 1 as far from 0 (p 0.67), "
        "2 usage-matched directions +0.020 to +0.120, none as far from 0 (p 0.33)."
        in found
        and "specific to insecure? Ablating it, beyond random directions, changes insecure's margin by −0.200 [−0.300, −0.100]"
        in found
    )


@pytest.mark.parametrize(
    ("beyond", "temperature", "words"),
    [
        (
            (-0.004, -0.04, 0.03),
            1.3,
            "beyond that −0.004 [−0.040, +0.030]: not told from a mere flattening of the model",
        ),
        ((0.08, 0.02, 0.14), 1.3, "beyond that +0.080 [+0.020, +0.140]: the rest is no flattening"),
        (None, None, "no temperature of base has this slope"),
    ],
)
def test_a_shift_against_base_stands_beside_what_flattening_brings(
    run_dir: Path, beyond: tuple[float, float, float] | None, temperature: float | None, words: str
) -> None:
    margins = planted_margins()
    margins["contrasts"][0]["flattening"] = {
        "slope": {"value": 0.76, "low": 0.7, "high": 0.82},
        "intercept": {"value": -0.004, "low": -0.04, "high": 0.03},
        "temperature": temperature,
        "matched_shift": None if temperature is None else 0.2,
        "beyond": None if beyond is None else dict(zip(("value", "low", "high"), beyond, strict=True)),
    }
    write(run_dir / "analysis/margins.json", margins)
    contents = load_contents(run_dir)
    said = summary.sentences(contents)
    assert "slope on base's margins 0.760 [0.700, 0.820]" in said[0] and words in said[0]
    assert not any("flattening" in sentence for sentence in said[1:])  # arms against each other carry the claim alone
    row = summary.arm_rows(contents)[1]["base"]
    assert ("beyond flattening" in " ".join(row.details)) == (beyond is not None)
    crosses = [
        trace
        for trace in page.figures(contents)["margins"].to_plotly_json()["data"]
        if trace["marker"].get("symbol") == "x-thin"
    ]
    assert len(crosses) == (temperature is not None)


def test_an_arm_has_one_color_in_the_table_and_in_every_figure(finished: Finished) -> None:
    contents = finished.contents
    color = arm_styles(contents.arms)["insecure"].color
    drawn = finished.figures
    for name in ("rates", "margins", "margin_groups", "angles", "projections", "ablation", "loss"):
        assert color in (drawn[name].to_json() or ""), name
    assert f"background: {color}" in finished.text
    many = arm_styles([f"arm{index}" for index in range(8)])
    assert len({style.color for style in many.values()}) == 8


def test_histograms_count_every_text_once() -> None:
    values = [0.0, 0.1, 0.1, 0.999, 1.0]
    figure = projections_figure(
        Projections.model_validate({"unit": "norms", "arms": {"base": {"own_answers": values}}}), arm_styles(["base"])
    )
    assert figure is not None
    bars = figure.to_plotly_json()["data"][0]
    assert sum(bars["y"]) == pytest.approx(1.0)
    assert sum(int(re.findall(r": (\d+) of 5", text)[0]) for text in bars["hovertext"]) == 5


def test_an_answer_that_is_still_being_written_is_left_out(run_dir: Path) -> None:
    with (run_dir / "samples/base.jsonl").open("a") as file:
        file.write('{"arm": "base", "questi')
    assert len(load_contents(run_dir).answers) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("layers"), "`layers` is missing"),
        (lambda d: d["report_auroc"].pop(), "`report_auroc` has 1 numbers for 2 layers"),
        (lambda d: d.update(chosen_layer="x"), "chosen_layer"),
    ],
)
def test_a_malformed_analysis_file_is_named(run_dir: Path, change: Callable[[Any], Any], words: str) -> None:
    value = json.loads(json.dumps(planted_direction()))
    change(value)
    write(run_dir / "analysis/direction.json", value)
    with pytest.raises(DataError, match=r"direction\.json") as error:
        page.build_report(run_dir)
    assert words in str(error.value)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no manifest\.json"):
        page.build_report(tmp_path)


def test_the_page_is_built_again_from_settings(run_dir: Path) -> None:
    result = page.run(PageSettings(run_dir=run_dir))
    assert result["report"] == str(run_dir / "report/index.html") and result["n_bytes"] > 10_000
    *answers, where, how = page.say(result).splitlines()
    assert where.split() == ["report:", result["report"]] and Path(result["data"]).exists()
    assert how.startswith("open it: ") and how.endswith(f" {result['report']}")
    assert answers[0].split("  ")[0] == "Does it happen?" and answers[0].endswith("  likelihood only")
    assert len(answers) == 4 and len({line.rindex("  ") for line in answers}) == 1


def test_the_organisms_table_has_gains_and_costs_or_says_why_there_are_none(finished: Finished) -> None:
    section = _parse(finished.text).sections["organisms"]
    assert "+0.500" in section and "0.10" in section and "base 2.000" in section and "−2.0 points" in section
    assert "none was left" in finished.text


def test_a_broken_organism_and_one_that_learned_nothing_are_said_first(run_dir: Path) -> None:
    def said(**changes: float) -> list[str]:
        write(run_dir / "analysis/organisms.json", planted_organisms(**changes))
        return summary.sentences(load_contents(run_dir))

    assert not any("working model" in one or "Manipulation" in one for one in said())
    first, second, third = said(kl=0.4, specific=0.05)[:3]
    assert first.startswith("Not a working model: insecure differs from base by 0.400 nats") and "limit 0.3" in first
    assert second.startswith("Manipulation check failed: insecure gained +0.050 nats per token [−0.050, +0.150]")
    assert third.startswith("Not a working model: secure")


def test_an_arm_below_one_half_coherent_shows_no_rate_and_says_so(run_dir: Path) -> None:
    rates = planted_rates()
    for rate in rates["arms"][2]["rates"]:
        rate["n"] = 1 if rate["estimand"] == "em_of_coherent" else 4
    rates["contrasts"].append({**rates["contrasts"][0], "arm": "secure"})
    write(run_dir / "analysis/rates.json", rates)
    contents = load_contents(run_dir)
    assert contents.rates is not None
    base, insecure, secure = contents.rates.arms
    assert [rate.value for rate in secure.rates] == [None] * 4 and base.rates[0].value == 0.25
    assert insecure.too_incoherent is None  # unscored: nothing is known of its coherence
    why = "1 of 4 scored answers are coherent, fewer than half: no rate is shown"
    assert why in _build(run_dir) and secure.too_incoherent == why
    assert {row.arm: row.value for row in contents.rates.contrasts} == {"insecure": 0.05, "secure": None}
    assert contents.analysis["rates"] == rates  # the numbers stay in the data file


def test_choices_have_a_table_and_a_sentence_that_says_what_a_null_excludes(run_dir: Path) -> None:
    section = _parse(_build(run_dir)).sections["choices"]
    assert "20.0 %" in section and "+10.0 points" in section and "reference" in section

    def said(**changes: float) -> str:
        write(run_dir / "analysis/choices.json", planted_choices(**changes))
        return " ".join(summary.sentences(load_contents(run_dir)))

    assert (
        "[−10.0, +30.0] more of the situations: no detectable difference; more than 30.0 points either way is excluded"
        in said()
        and "mean little" not in said()
    )
    assert "a difference (interval excludes 0)" in said(low=0.05)
    assert "Choices of base mean little: 30.0 % of its answers would begin with a letter." in said(mass=0.3)


def test_probes_have_three_tables_and_sentences_about_text_and_false_alarms(run_dir: Path) -> None:
    section = _parse(_build(run_dir)).sections["probes"]
    assert "+0.050" in section and "0.400 to 0.600" in section and "20 draws" in section
    assert "4 of 8 [0.0 %, 20.0 %]" in section and "50.0 %" in section
    assert "0.21 %" in section and "usage-matched 0.15 % to 0.25 %" in section and "with secure" in section
    assert "whole: every weight was trained." in section

    def said(**changes: Any) -> str:
        write(run_dir / "analysis/probes.json", planted_probes(**changes))
        return " ".join(summary.sentences(load_contents(run_dir)))

    assert "Probe: not told from the text baseline" in said() and "keep its promise" not in said()
    assert "base alone raises alarms on 4.0 % of 75 harmless texts, 1.0 % was promised" in said(low=0.02)
