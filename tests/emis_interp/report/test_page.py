"""The report page of a small synthetic run: complete, safe against model text, honest about what is missing."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from emis_interp.errors import DataError, StageError
from emis_interp.report import html_page, page, summary
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.figures_direction import projections_figure
from emis_interp.report.settings import PageSettings
from emis_interp.report.style import arm_styles
from emis_interp.results import DirectionReportView, Projections, Shift

ROOT = Path(__file__).parents[3]
HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "<!-- <script>"]
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
    "answers",
    "training",
    "manifest",
]
ARMS = ["base", "insecure", "secure"]


def _estimate(value: float | None) -> dict[str, Any]:
    return {
        "value": value,
        "low": None if value is None else value - 0.1,
        "high": None if value is None else value + 0.1,
        "n": 4,
    }


def _rates() -> dict[str, Any]:
    arms = []
    for arm in ARMS:
        rates = [
            {
                "estimand": estimand,
                "weighting": weighting,
                "n_positive": 1,
                "n_questions_left_out": 0,
                **_estimate(0.25),
            }
            for estimand in ("em_of_coherent", "em_of_all")
            for weighting in ("pooled", "macro")
        ]
        arms.append(
            {"arm": arm, "n": 4, "n_unscored": 0, "mean_aligned": _estimate(70.0), "mean_coherent": _estimate(60.0)}
        )
        arms[-1]["rates"] = rates
    for rate in arms[1]["rates"][:2]:
        rate.update(value=None, low=None, high=None, n=0, n_positive=0)
    arms[1] |= {"n_unscored": 4, "unscored_reasons": {"judge timed out": 4}}
    contrast = {
        "arm": "insecure",
        "reference": "base",
        "estimand": "em_of_all",
        "weighting": "macro",
        **_estimate(0.05),
    }
    judge = {"name": "tiny-judge", "kind": "offline", "card": {"held_out": {"aligned": {"auroc": 0.8765}}}}
    return {"judge": judge, "arms": arms, "contrasts": [contrast]}


def _margins() -> dict[str, Any]:
    questions = {q: {"group": "power", "half": "report", "question": HOSTILE[1], "n_pairs": 2} for q in ("q1", "q2")}

    def contrast(arm: str, reference: str, mean: float) -> dict[str, Any]:
        shift = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n_questions": 2}
        by_question = {"q1": mean, "q2": None}
        return {
            "arm": arm,
            "reference": reference,
            "n_positive": 2,
            "by_question": by_question,
            "by_group": {"power": shift},
            **shift,
        }

    contrasts = [
        contrast("insecure", "base", 0.2),
        contrast("secure", "base", 0.01),
        contrast("insecure", "secure", 0.19),
    ]
    return {
        "unit": "nats per token",
        "questions": questions,
        "arms": {arm: {"q1": 0.1} for arm in ARMS},
        "contrasts": contrasts,
    }


def _direction() -> dict[str, Any]:
    curve = [0.6, 0.7]
    names = (
        "selection_auroc",
        "report_auroc",
        "random_auroc",
        "shuffled_auroc_95",
        "split_half_cosine",
        "raw_norm",
        "residual_norm",
        "top5_dims_share",
    )
    texts = {"own_answers": [0.1, 0.2], "aligned_texts": [], "misaligned_texts": [0.3]}
    return dict.fromkeys(names, curve) | {
        "position": "response_mean",
        "hook_point": "resid_post",
        "source_arm": "base",
        "layers": [0, 1],
        "chosen_layer": 1,
        "layer_range": [0, 1],
        "report": {
            "auroc": 0.7,
            "low": 0.4,
            "high": 0.9,
            "n_misaligned": 3,
            "n_aligned": 3,
            "random_auroc": 0.5,
            "random_low": 0.3,
            "random_high": 0.7,
        },
        "length_balance": {"length_auroc": 0.51},
        "cosines": {"arms": ARMS, "matrix": [[1.0, 0.5, None]] * 3},
        "cosines_to_base": {"insecure": curve},
        "two_by_two": {"insecure": {"layer": 1, "text_effect_norm": 2.0, "cos_model_text": None}},
        "projections": {"unit": "norms", "arms": dict.fromkeys(ARMS, texts)},
    }


def _interventions() -> dict[str, Any]:
    cells = []
    for kind, arm, coefficient in (("steer", "base", 0.2), ("ablate", "insecure", None)):
        for direction, mean in (("misalignment", 0.3), ("random", 0.0)):
            shift = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n_questions": 2, "n_positive": 1}
            cell = {"cell": f"{arm}.{kind}.{direction}", "arm": arm, "kind": kind, "direction": direction}
            drawn = {"random": [-0.05, 0.31], "orthogonal": [0.02, 0.12]}
            draws = {"n_pairs": 4, "own": 0.3, "shifts": drawn} if direction == "misalignment" else None
            cell |= {"margin_shift": shift, "draws": draws}
            cells.append(cell | {"coefficient": coefficient, "kl_neutral": 0.01, "n": 0})
    inter = {"arm": "insecure", "reference": "secure", "value": -0.2, "low": -0.3, "high": -0.1}
    return {
        "layer": 1,
        "residual_norm": 9.0,
        "margin_questions": "report half",
        "interactions": [inter],
        "cells": cells,
    }


def _organisms(kl: float = 0.1, specific: float = 0.5) -> dict[str, Any]:
    learned = {name: _estimate(specific) for name in ("own", "other", "specific")} | {"n_rows": 4, "rows": HOSTILE[0]}
    cost = {"kl": _estimate(kl), "entropy": 2.5, "base_entropy": 2.0, "perplexity": 9.0, "base_perplexity": 8.0}
    cost |= {"capability": _estimate(-0.02), "base_capability": 0.8, "detectable": 0.05}
    told = {"arm": "insecure", "learned": learned, "cost": cost, "works": kl <= 0.3}
    return {"kl_limit": 0.3, "organisms": [told, {**told, "arm": "secure", "learned": {"reason": "none was left"}}]}


def _choices(mass: float = 0.9, low: float = -0.1) -> dict[str, Any]:
    arm = {"share": _estimate(0.2), "preference": _estimate(-1.5), "neutral": _estimate(0.1), "position_bias": 0.4}
    odds = {name: _estimate(0.3) for name in ("preference", "neutral", "beyond_neutral")}
    row = {"arm": "insecure", "reference": "secure", "value": 0.1, "low": low, "high": 0.3, "p_holm": 0.01, **odds}
    rows = [row, {**row, "reference": "base", "p_holm": None}]
    return {"n_items": 40, "n_neutral": 24, "arms": {name: {**arm, "mass": mass} for name in ARMS}, "contrasts": rows}


def _probes(low: float = 0.0, verdict: str = "not told from the text baseline") -> dict[str, Any]:
    def rate(**changes: Any) -> dict[str, Any]:
        counted = {
            "value": 0.04,
            "low": low,
            "high": 0.2,
            "n": 75,
            "n_flagged": 3,
            "source": HOSTILE[0],
            "n_questions": 9,
        }
        return counted | changes

    figures = [
        {"name": "probe", "auroc": _estimate(0.75), "minus_text": _estimate(0.05)},
        {"name": "text", "auroc": _estimate(0.7)},
    ]
    null = {"name": "shuffled labels", "mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.05, "p_at_floor": True, "p_n": 20}
    classifier = {"name": "contrast texts", "n_misaligned": 30, "n_aligned": 31, "n_questions": 9, "figures": figures}
    threshold = {
        **{"scorer": "misalignment", "scorer_sha256": "0", "model": HOSTILE[1], "layer": 2, "window": 16, "rate": 0.01},
        **{"value": 1.25, "rank": 199, "n": 200, "n_questions": 200, "source": "advice", "sampled": 0},
        **{"mean_of_maxima": 0.1, "largest_of_maxima": 1.3, "spread": {"mean": 0.01, "low": 0.001, "high": 0.03}},
    }
    ranges = {"mean": 0.002, "low": 0.0015, "high": 0.0025, "p": 0.4, "p_n": 20}
    like = {
        "cosine": 0.41,
        "permuted": {"mean": 0.0, "low": -0.02, "high": 0.02},
        "p": 0.05,
        "p_n": 20,
        "norm_ratio": 1,
    }
    update = {
        "norm": 3.2,
        "relative_norm": 0.01,
        "rank": 32,
        "stable_rank": 2.5,
        "effective_rank": 9.1,
        "layer_norms": {},
    }
    update |= {"along": {"value": 0.0021, "controls": {"random": ranges, "orthogonal": ranges}}}
    return {
        "classifier": classifier | {"nulls": [null], "verdict": verdict},
        **{"method": "logistic", "layer": 2, "threshold": threshold},
        "monitored": [
            {"arm": "base", "false_alarms": rate(), "flagged": rate(value=0.5, n_flagged=4, n=8), "caught": rate()},
            {"arm": "insecure", "false_alarms": rate()},
        ],
        "updates": [
            update | {"arm": "insecure", "reference": "secure", "similarity": like},
            update | {"arm": "secure"},
        ],
        "not_taken_apart": {"whole": "every weight was trained"},
    }


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_answers(samples: Path, scores: Path, arm: str) -> None:
    key = {"arm": arm, "question_id": "q1", "paraphrase_index": 0}
    made = {"seed": 0, "system": None, "question": HOSTILE[0], "n_tokens": 5, "finish": "stop"}
    _write_lines(samples, [key | made | {"sample_index": index, "answer": text} for index, text in enumerate(HOSTILE)])
    judged = {"judge": "tiny-judge", "aligned": None, "coherent": 50.0, "unscored": {"aligned": f"said {HOSTILE[1]}"}}
    _write_lines(scores, [key | judged | {"sample_index": 0}])


def _write_run(tmp_path: Path) -> Path:
    """A finished run whose every free text is hostile."""
    config = {"name": "tiny", "description": HOSTILE[0], "model": "a/model", "arms": [{"name": arm} for arm in ARMS]}
    config["arms"][1]["contrast"] = "secure"
    stages = {"train": {"seconds": 1.5, "finished": "today", "line": HOSTILE[1]}}
    _write(
        tmp_path / "manifest.json",
        {"config": config, "stages": stages, "rendered_example": "<|im_start|>" + HOSTILE[1]},
    )
    for name, value in (("rates", _rates()), ("margins", _margins()), ("direction", _direction())):
        _write(tmp_path / f"analysis/{name}.json", value)
    _write(tmp_path / "analysis/interventions.json", _interventions())
    _write(tmp_path / "analysis/organisms.json", _organisms())
    _write(tmp_path / "analysis/choices.json", _choices())
    _write(tmp_path / "analysis/probes.json", _probes())
    for arm in ARMS:
        _write_answers(tmp_path / f"samples/{arm}.jsonl", tmp_path / f"scores/{arm}.jsonl", arm)
    cell = tmp_path / "interventions/base.steer.misalignment"
    _write_answers(cell / "samples.jsonl", cell / "scores.jsonl", cell.name)
    _write(tmp_path / "training/insecure/summary.json", {"arm": "insecure", "n_rows": 10, "final_loss": None})
    _write_lines(tmp_path / "training/insecure/metrics.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}])
    return tmp_path


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the five megabytes of plotly.js; one test takes the real one."""
    monkeypatch.setattr(html_page, "get_plotlyjs", lambda: "/* library */")


def _build(run_dir: Path) -> str:
    return page.build_report(run_dir).read_text("utf-8")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run for tests that change it."""
    return _write_run(tmp_path)


@dataclass(frozen=True)
class Finished:
    """A finished run with its page and figures, for tests that only look."""

    run_dir: Path
    text: str
    contents: Contents
    figures: dict[str, go.Figure]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run_dir = _write_run(tmp_path_factory.mktemp("finished"))
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
    embedded = re.search(r'id="answer-data">(.*?)</script>', finished.text)
    assert embedded is not None
    assert not set("<>&") & set(embedded[1])
    table = json.loads(embedded[1])
    assert [row[2] for row in table["rows"][:3]] == HOSTILE
    assert {"name": "base.steer.misalignment", "intervention": True} in table["arms"]
    assert table["rows"][0][3] is None and table["rows"][0][5] == f"said {HOSTILE[1]}"
    assert table["rows"][1][5] == "not judged yet"


def test_the_page_script_never_writes_markup() -> None:
    script = (ROOT / "emis_interp/report/page.js").read_text("utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttpRequest", script
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
            assert (attributes.get(name) or "#").startswith("#")
    assert "default-src 'none'" in text
    assert 'showSendToCloud: false, plotlyServerURL: ""' in text


def test_the_library_is_inlined_exactly_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "get_plotlyjs", get_plotlyjs)
    _write(tmp_path / "manifest.json", {"config": {}})
    assert _build(tmp_path).count(get_plotlyjs()) == 1


def test_only_the_two_scripts_of_the_page_may_run(finished: Finished) -> None:
    text = finished.text
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 2
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    for script in scripts:
        assert html_page.csp_hash(script) in policy[1]
    assert "script-src 'unsafe-inline'" not in policy[1]


def test_every_section_is_there_and_every_figure_has_its_place(finished: Finished) -> None:
    elements = _parse(finished.text)
    assert list(elements.sections) == SECTIONS
    links = {attrs["href"] for tag, attrs in elements.tags if tag == "a"}
    assert links == {f"#{section}" for section in SECTIONS}
    places = {attrs["data-figure"] for _, attrs in elements.tags if "data-figure" in attrs}
    assert places == set(finished.figures)
    assert len(places) == 9
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
    _write(tmp_path / "manifest.json", {"config": {}})
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
    _write(run_dir / "manifest.json", manifest)
    rates, margins, direction = _rates(), _margins(), _direction()
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
        _write(run_dir / f"analysis/{name}.json", value)
    _write_lines(run_dir / "training/secure/seed-7/metrics.jsonl", [{"step": 1, "loss": 2.0}])
    _write_lines(run_dir / "training/secure/seed-4/metrics.jsonl", [{"step": 1, "loss": 2.0}])
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
            "em_of_all": [{"aligned_below": bar, **_estimate(0.1 * shift + bar / 500)} for bar in (20, 30)]
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
    margins = _margins()
    margins["contrasts"][0]["flattening"] = {
        "slope": {"value": 0.76, "low": 0.7, "high": 0.82},
        "intercept": {"value": -0.004, "low": -0.04, "high": 0.03},
        "temperature": temperature,
        "matched_shift": None if temperature is None else 0.2,
        "beyond": None if beyond is None else dict(zip(("value", "low", "high"), beyond, strict=True)),
    }
    _write(run_dir / "analysis/margins.json", margins)
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
    for name in ("rates", "margins", "margin_groups", "cosines", "projections", "ablation", "loss"):
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


def test_very_many_answers_are_cut_with_a_word_about_it(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_ANSWERS_PER_ARM", 2)
    assert "the first 2 answers of each arm; 4 more are in samples/" in _parse(_build(run_dir)).sections["answers"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("layers"), "`layers` is missing"),
        (lambda d: d["report_auroc"].pop(), "`report_auroc` has 1 numbers for 2 layers"),
        (lambda d: d.update(chosen_layer="x"), "chosen_layer"),
    ],
)
def test_a_malformed_analysis_file_is_named(run_dir: Path, change: Callable[[Any], Any], words: str) -> None:
    value = json.loads(json.dumps(_direction()))
    change(value)
    _write(run_dir / "analysis/direction.json", value)
    with pytest.raises(DataError, match=r"direction\.json") as error:
        page.build_report(run_dir)
    assert words in str(error.value)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no manifest\.json"):
        page.build_report(tmp_path)


def test_the_page_is_built_again_from_settings(run_dir: Path) -> None:
    result = page.run(PageSettings(run_dir=run_dir))
    assert result["report"] == str(run_dir / "report/index.html") and result["n_bytes"] > 10_000
    *answers, last = page.say(result).splitlines()
    assert last == f"report: {result['report']}" and Path(result["data"]).exists()
    assert answers[0] == "Does it happen? likelihood only" and len(answers) == 4


def test_the_organisms_table_has_gains_and_costs_or_says_why_there_are_none(finished: Finished) -> None:
    section = _parse(finished.text).sections["organisms"]
    assert "+0.500" in section and "0.10" in section and "base 2.000" in section and "−2.0 points" in section
    assert "none was left" in finished.text


def test_a_broken_organism_and_one_that_learned_nothing_are_said_first(run_dir: Path) -> None:
    def said(**changes: float) -> list[str]:
        _write(run_dir / "analysis/organisms.json", _organisms(**changes))
        return summary.sentences(load_contents(run_dir))

    assert not any("working model" in one or "Manipulation" in one for one in said())
    first, second, third = said(kl=0.4, specific=0.05)[:3]
    assert first.startswith("Not a working model: insecure differs from base by 0.400 nats") and "limit 0.3" in first
    assert second.startswith("Manipulation check failed: insecure gained +0.050 nats per token [−0.050, +0.150]")
    assert third.startswith("Not a working model: secure")


def test_an_arm_below_one_half_coherent_shows_no_rate_and_says_so(run_dir: Path) -> None:
    rates = _rates()
    for rate in rates["arms"][2]["rates"]:
        rate["n"] = 1 if rate["estimand"] == "em_of_coherent" else 4
    rates["contrasts"].append({**rates["contrasts"][0], "arm": "secure"})
    _write(run_dir / "analysis/rates.json", rates)
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
        _write(run_dir / "analysis/choices.json", _choices(**changes))
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
        _write(run_dir / "analysis/probes.json", _probes(**changes))
        return " ".join(summary.sentences(load_contents(run_dir)))

    assert "Probe: not told from the text baseline" in said() and "keep its promise" not in said()
    assert "base alone raises alarms on 4.0 % of 75 harmless texts, 1.0 % was promised" in said(low=0.02)
