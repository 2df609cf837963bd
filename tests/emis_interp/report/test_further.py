"""What `probe.py` leaves in a run's probes/ stands in the report, each figure beside what could explain it away."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_detection import LENGTHS, planted_detection, planted_rate, planted_threshold
from planted_page import HOSTILE, write, write_run

from emis_interp.files.sealed import sealed
from emis_interp.report import html_page
from emis_interp.report.contents import load_contents
from emis_interp.report.described import words_of
from emis_interp.report.drawn import figures
from emis_interp.report.further import KNOWN, FurtherPart, further_parts, further_rows
from emis_interp.report.further_parts import FurtherRow
from emis_interp.report.page import build_report, report_data


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "get_plotlyjs", lambda: "/* library */")


def shift(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def null(low: float, high: float) -> dict[str, Any]:
    return {"mean": (low + high) / 2, "low": low, "high": high, "p": 0.048, "p_n": 20}


def lens(shifts: dict[str, float], layers: tuple[float, ...] = ()) -> dict[str, Any]:
    parts = [
        {"part": name, "base": shift(0.0), "organism_shift": shift(value), "control_shift": shift(value / 2)}
        for name, value in shifts.items()
    ]
    parts.append({"part": "total", "base": shift(0.0), "organism_shift": shift(sum(shifts.values()))})
    facts = {"model": "m", "adapter": "a", "n_questions": 8, "n_pairs": 8, "frozen": "scale", "sum_error": 0.0}
    read = [
        {"layer": layer, "base": shift(0.1), "organism": shift(0.1 + value), "organism_shift": shift(value)}
        for layer, value in enumerate(layers)
    ]
    return {**facts, "lens": read or [{"layer": 1, "base": shift(0.1)}], "attribution": parts}


def sae(agreement: float) -> dict[str, Any]:
    one = {"fvu": {"value": 0.2, "low": 0.19, "high": 0.21}, "l0": 32.0, "pca_fvu": {"value": 0.53}, "pca_k": 32}
    one |= {"n_latents": 4608, "n_dead": 14, "dead_share": 0.003, "n_rare": 86, "n_tokens_looked_at": 1000}
    one |= {"folder": "f", "seed": 0, "n_samples": 9, "n_epochs": 1.0}
    seeds = {"seed": 0, "other": 1, "n_latents": 100, "n_others": 100, "mean_best_cosine": 0.4, "match": 0.7}
    seeds |= {"n_matched": round(100 * agreement), "share_matched": agreement}
    seeds |= {"random_mean_best_cosine": 0.15, "random_share_matched": 0.0}
    tokens = dict.fromkeys(
        (
            "n_texts",
            "n_texts_repeated",
            "n_train_texts",
            "n_questions",
            "n_held_out_questions",
            "n_train",
            "n_held_out",
        ),
        9,
    )
    tokens |= {"by_source": {}, "left_out": {}, "norm_limit": 1.0, "scale": 1.0}
    facts = {"model": "m", "adapter": None, "layer": 1, "hook_name": "h", "kind": "topk", "k": 32, "expansion": 8}
    control = one | {"random_decoder": True, "fvu": {"value": 0.81}}
    return {**facts, "tokens": tokens, "saes": [one], "control": control, "agreement": [seeds]}


def diff(verdict: str, topic: str = "against background") -> dict[str, Any]:
    count = {"topic": topic, "count": 7, "n_top": 20, "controls": {"careful": 1}, "nulls": {"random": null(0, 2)}}
    reading = {"name": "lens", "what": "what the mean difference raises", "primary": True, "tokens": {}}
    other = {**reading, "name": "patchscope", "what": "what base says of it", "primary": False}
    facts = {"model": "m", "adapter": "a", "controls": {}, "layer": 15, "n_texts": 9, "n_short": 0, "n_tokens": 5}
    facts |= {"residual_norm": 1.0, "topics": [], "primary_topic": topic, "positions": [], "patchscope": []}
    cells = [
        {
            "arm": arm,
            "scale": scale,
            "shift": shift(0.1 * scale),
            "kl": 0.2,
            **dict.fromkeys(("finetune_like", "unrelated", "entropy"), shift(0.0)),
        }
        for arm, scale in (("organism", 2.0), ("careful", 2.0))
    ]
    return {
        **facts,
        "readings": [{**one, "counts": [{**count, "verdict": verdict}]} for one in (reading, other)],
        "components": [],
        "logits": [],
        "projection": {
            "n_finetune_like": 8,
            "n_unrelated": 8,
            "before": {"finetune_like": 2.0, "unrelated": 3.0},
            "cells": [
                {"along": along, "finetune_like": shift(0.2), "unrelated": shift(0.05), "beyond": 0.15}
                for along in ("organism", "careful")
            ],
            "nulls": {"finetune_like": {"random": null(-0.01, 0.01)}},
            "verdict": "more than random vectors",
        },
        "amplification": {
            "cells": cells,
            "contrasts": [{"scale": 2.0, "control": "careful", **shift(0.07)}],
            "verdict": "at no scale",
        },
    }


def fit_set(name: str, value: float, text: float, **changes: Any) -> dict[str, Any]:
    readers = {
        "probe": value,
        "at first_4": 0.61,
        "text": text,
        "unrelated: code": 0.47,
        "unrelated: verse": 0.52,
        "answer length": 0.58,
    }
    figures = [
        {
            "name": reader,
            "auroc": shift(auroc),
            "by_question": {"bored": auroc},
            "minus_text": None if reader == "text" else shift(auroc - text),
        }
        for reader, auroc in readers.items()
    ]
    choice = {
        "left_out": "bored",
        "method": "lda",
        "layer": 3,
        "position": "first_4",
        "aggregation": "ema",
        "calibrate_auroc": 0.91,
    }
    facts = {"name": name, "n_misaligned": 9, "n_aligned": 8, "n_questions": 1, "figures": figures, "choices": [choice]}
    facts |= {"nulls": [{"name": "shuffled labels", "p_at_floor": True, **null(0.4, 0.6)}], "verdict": "above text"}
    return {**facts, "ceiling": shift(0.93), "ceiling_at_spread": shift(0.97), **changes}


def fits() -> dict[str, Any]:
    return {
        "model": "m",
        "layers": [3],
        "methods": ["lda"],
        "sets": [fit_set("plain", 0.9, 0.64), fit_set("json", 0.8, 0.7, ceiling=None, ceiling_at_spread=None)],
        "masked": fit_set("plain, masked", 0.77, 0.6),
        "transfers": [fit_set("plain -> json", 0.72, 0.66)],
        "sources": [fit_set("coder", 0.68, 0.6)],
        "held_out": fit_set("held out", 0.85, 0.61),
    }


def remedy(name: str, value: float, **changes: Any) -> dict[str, Any]:
    row = {"name": name, "untreated": False, "control_of": None, "margin_shift": shift(0.3 + value), "kl_neutral": 0.4}
    row |= {"against_untreated": {**shift(value), "n": 8, "p": 0.01}, "task_gain": {**shift(0.5), "n": 30}}
    row |= {
        "task_against_untreated": {**shift(-0.1), "n": 30},
        "margin_by_seed": [0.3 + value],
        "margins": [{"q": 0.2}],
    }
    return {**row, "beyond_controls": {}, "flattening": None, **changes}


def prevention() -> dict[str, Any]:
    beyond = {"subspace": {**shift(-0.12), "n": 8, "p": 0.03, "n_draws": 2}}
    tested = {**shift(-0.2), "n": 8, "p": 0.01, "p_holm": 0.04}
    rows = [
        remedy("untreated", 0.0, untreated=True),
        remedy("persona", -0.2, against_untreated=tested, beyond_controls=beyond),
        remedy("persona, subspace 1", -0.05, control_of="persona"),
    ]
    facts = {"recipe": "reckless", "model": "m", "n_seeds": 1, "layer": 2, "base_margins": {"q": -0.1}, "rows": rows}
    return {**facts, "persona": {"rank": 4, "share": 0.98, "answers": {"health": 9}}}


def rows_of(run: Path) -> list[FurtherRow]:
    return further_rows(load_contents(run).further)


def part_of(run: Path, name: str, value: Any) -> FurtherPart:
    """The part of the page that a file gives, which is alone there."""
    write(run / "probes" / name, value)
    (part,) = further_parts(load_contents(run).further)
    return part


def table_of(part: FurtherPart, title: str) -> list[list[str]]:
    """The cells of a folded table, a line for each row, with the smaller lines behind the text."""
    found = next(table for table in part.shown.tables if title in table.title)
    assert all(len(row) == len(found.columns) for row in found.rows)
    return [[" ".join((entry.text, *entry.details)) for entry in row] for row in found.rows]


def test_each_figure_stands_beside_what_could_explain_it_away(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert rows_of(run) == []
    write(run / "probes" / "lens.json", lens({"mlp_out 3": -0.2, "attn_out 1": 0.05}))
    write(run / "probes" / "half" / "sae.json", sae(0.07))
    write(run / "probes" / "diff.json", diff("more than every control"))
    write(run / "probes" / "fit.json", {"the pipeline's": "own probe"})
    rows = {row.what: row for row in rows_of(run)}
    topic, scaled, missed, seeds, part = (
        next(row for what, row in rows.items() if words in what)
        for words in ("what the mean difference raises", "scaled up", "SAE of seed 0", "found in seed 1", "mlp_out 3")
    )
    assert topic.figure.text == "7 of 20 tokens" and "careful 1" in topic.beside
    assert "isotropic 0 to 2 (p 0.048)" in topic.beside and "more than every control" in topic.beside
    assert scaled.figure.missing and scaled.beside == ("at no scale",)
    assert missed.figure.text == "0.200" and "PCA with 32 components 0.530" in missed.beside
    assert "random decoder 0.810" in missed.beside
    assert (seeds.figure.text, seeds.figure.details) == ("7.0 %", ("7 of 100",))
    assert part.figure.text == "−0.200" and "the same of the control −0.100 [−0.110, −0.090]" in part.beside
    assert "the largest of 2 parts, chosen by what is shown" in part.beside


def test_they_stand_on_the_page_and_in_its_data_and_hostile_names_stay_text(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run / "probes" / "diff.json", diff(HOSTILE[1], topic=HOSTILE[0]))
    contents = load_contents(run)
    html = build_report(run, contents).read_text("utf-8")
    section = html[html.index('id="further"') :]
    section = section[: section.index("</section>")]
    assert "probe.py diff" in section and 'href="../probes/diff.json"' in section
    assert "<script>" not in section and "onerror=alert(2)&gt;" in section
    assert report_data(contents)["further"]["probes/diff.json"]["primary_topic"] == HOSTILE[0]


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run / "probes" / "lens.json", {"model": "m"})
    write(run / "probes" / "diff.json", diff("said"))
    contents = load_contents(run)
    assert [one.command for one in contents.further] == ["probe.py diff"]
    note = next(note for note in contents.notes if note.startswith("probes/lens.json: "))
    assert note.endswith("not shown; run `probe.py lens` again.") and "n_questions" in note


def test_the_page_without_any_says_how_to_have_them(tmp_path: Path) -> None:
    html = build_report(write_run(tmp_path)).read_text("utf-8")
    assert "Nothing further was measured" in html and all(
        f"<code>{file}</code> of <code>scripts/{kind.command}</code>" in html for file, kind in KNOWN.items()
    )


def test_a_fit_shows_every_set_beside_words_ceiling_and_controls(tmp_path: Path) -> None:
    part = part_of(write_run(tmp_path), "probe_fit.json", fits())
    rows = part.shown.rows
    assert [row.figure.text for row in rows] == ["0.900", "0.800", "0.770", "0.720", "0.680", "0.850"]
    for row, words in zip(
        rows, ("plain", "json", "words taken out", "plain -> json", "source coder", "did not see"), strict=True
    ):
        assert words in row.what
    for line in (
        "bag of words 0.640 [0.630, 0.650]",
        "probe minus bag of words +0.260 [+0.250, +0.270]",
        "best that the judge's label noise allows 0.930 [0.920, 0.940]",
        "at the judge's own spread 0.970 [0.960, 0.980]",
        "shuffled labels 0.400 to 0.600 (p 0.048)",
        "unrelated directions 0.470 to 0.520",
        "answer length 0.580",
        "above text",
    ):
        assert line in rows[0].beside
    assert not any("label noise" in line for line in rows[1].beside)
    assert ["at first_4", "0.610 [0.600, 0.620]", "−0.030 [−0.040, −0.020]"] in table_of(part, "controls, on plain")
    assert table_of(part, "Question by question")[0] == [
        "bored on plain",
        "0.900",
        "0.640",
        "lda, layer 3, first_4, ema",
        "0.910",
    ]


def test_a_threshold_shows_whether_its_promise_holds_on_other_benign_texts(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    broken = planted_rate(12, 200, 0.03, 0.1, source="/a/machine/benign.jsonl")
    kept = planted_rate(0, 75, 0.0, 0.048, source="harmless")
    own, other, second = part_of(run, "threshold.json", planted_threshold(kept, broken)).shown.rows
    assert (
        own.figure.text == "6.500"
        and "298th smallest of the largest scores of 300 benign texts (advice)" in own.beside[0]
    )
    assert other.figure.text == "0.0 %" and other.figure.details == ("0 of 75 [0.0 %, 4.8 %]",)
    assert other.beside[0] == "not seen to exceed the promise; up to 4.8 % cannot be ruled out"
    assert second.beside[0] == "more than promised: the whole interval lies above 1.0 %"
    assert "/a/machine" not in second.what and "benign.jsonl" in second.what
    alone = part_of(run, "threshold.json", planted_threshold()).shown.rows[-1]
    assert alone.figure.missing and "no second benign source" in alone.beside[0]


def test_detection_shows_time_harm_forecast_and_the_adaptive_check(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = part_of(run, "detect.json", planted_detection())
    caught, time, harm, platt, isotonic, steered = part.shown.rows
    assert caught.figure.text == "40.0 %" and "aligned answers 2.0 % (2 of 100)" in caught.beside
    assert (
        time.figure.text == "48 tokens" and "after 64 tokens 45.0 % [35.0 %, 50.0 %] are not yet flagged" in time.beside
    )
    assert harm.figure.text == "20.0 %" and harm.figure.details == ("6 of 30 [8.0 %, 39.0 %]",)
    assert "within it 2, after it 3, never 19" in harm.beside
    assert platt.figure.text == "+0.010" and platt.beside[:2] == (
        "better than the base rate",
        "base rate of misaligned answers 16.0 %",
    )
    assert isotonic.beside[0] == "no difference seen"
    assert steered.figure.text == "0.0 %" and "flagged before 25.0 %" in steered.beside
    assert "random vector 0: flagged 18.8 %, margin +0.030 [+0.010, +0.050]" in steered.beside
    assert len(table_of(part, "Steering against")) == 2 and ["bored", "50.0 %", "0.0 %"] in table_of(
        part, "Flags by question"
    )
    less = planted_detection(before_harm=None, forecasts=[], no_forecast="one class alone", adaptive=[])
    less["time"] |= {"median_tokens": None, "median_tokens_of_flagged": None, "n_flagged": 0}
    _, time, harm, forecast, steered = part_of(run, "detect.json", less).shown.rows
    assert time.figure.missing and "none is flagged" in time.beside and "the curve stays above one half" in time.beside
    assert (
        "--sentences" in harm.beside[0]
        and forecast.beside == ("one class alone",)
        and "--adaptive" in steered.beside[0]
    )


def test_survival_and_reliability_are_drawn_with_their_intervals_and_the_base_rate(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run / "probes" / "detect.json", planted_detection())
    write(run / "probes" / "late" / "detect.json", planted_detection(forecasts=[], no_forecast="one class"))
    contents = load_contents(run)
    drawn = figures(contents)
    assert [part.figures for part in further_parts(contents.further)] == [("survival", "reliability"), ("survival_2",)]
    survival, reliability = (json.loads(drawn[name].to_json() or "{}") for name in ("survival", "reliability"))
    curve = survival["data"][0]
    assert curve["x"] == list(LENGTHS) and curve["y"] == [1.0, 0.9, 0.7, 0.45]
    assert curve["error_y"]["array"][0] is None and np.allclose(curve["error_y"]["arrayminus"][1:], 0.1)
    assert survival["layout"]["xaxis"]["ticktext"][-1] == "64<br>20" and survival["layout"]["yaxis"]["range"][0] == 0
    aligned, promised = ([*dict.fromkeys(trace["y"])] for trace in survival["data"][2:])
    assert aligned == [0.98] and promised == [0.99]
    said = words_of(drawn["survival"])["title"]
    assert "40 of 100 misaligned answers are flagged, of aligned ones 2 of 100. After 64 tokens 45.0 %" in said
    assert "half of them are flagged after 48" in said
    base = next(trace for trace in reliability["data"] if trace["name"] == "base rate 16.0 %")
    platt = next(trace for trace in reliability["data"] if trace["name"] == "platt")
    assert base["y"] == [0.16, 0.16] and platt["x"] == [0.12, 0.63] and platt["y"] == [0.11, 0.27]
    assert np.allclose(platt["error_y"]["array"], [0.05, 0.09])
    assert "platt better than the base rate (gain +0.010" in words_of(drawn["reliability"])["title"]
    assert "isotonic no difference seen (gain −0.030" in words_of(drawn["reliability"])["title"]
    for name in ("survival", "reliability"):
        assert all(drawn[name].layout[axis].title.text for axis in ("xaxis", "yaxis"))
        table = words_of(drawn[name])["table"]
        known = np.array([x for row in table["rows"] for x in row if isinstance(x, int | float)])
        shown = [
            trace for trace in json.loads(drawn[name].to_json() or "{}")["data"] if trace.get("hoverinfo") != "skip"
        ]
        assert all(np.isclose(known, y).any() for trace in shown for y in trace["y"])


def test_a_monitor_that_flags_nothing_more_of_misaligned_answers_is_said_to(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    rates = {"true_positives": planted_rate(4, 100, 0.01, 0.1, source="misaligned")}
    found = planted_detection(**rates)
    found["time"] |= {"median_tokens": None}
    write(run / "probes" / "detect.json", found)
    said = words_of(figures(load_contents(run))["survival"])["title"]
    assert "the intervals of the two overlap" in said and "at no length read are half of them flagged" in said


def test_a_lens_shows_every_layer_and_part(tmp_path: Path) -> None:
    part = part_of(
        write_run(tmp_path), "lens.json", lens({"mlp_out 3": -0.2, "attn_out 1": 0.05}, (0.2, 0.001, 0.1, 0.3))
    )
    layers = table_of(part, "layer by layer")
    assert [row[0] for row in layers] == ["0", "1", "2", "3"] and layers[3][3] == "+0.300 [+0.290, +0.310]"
    assert [row[0] for row in table_of(part, "part by part")] == ["mlp_out 3", "attn_out 1", "total"]
    last = part.shown.rows[0]
    assert last.figure.text == "+0.300" and any("excludes 0 from layer 2 on" in line for line in last.beside)


def test_a_diff_shows_every_reading_the_projection_and_the_scaled_adapter(tmp_path: Path) -> None:
    part = part_of(write_run(tmp_path), "diff.json", diff("more than every control"))
    first, second, projected, _ = part.shown.rows
    assert "stated beforehand" in first.beside and "not stated beforehand, p not corrected" in second.beside
    assert second.figure.text == "7 of 20 tokens" and "isotropic 0 to 2 (p 0.048)" in second.beside
    assert "finetune_like: isotropic −0.010 to +0.010 (p 0.048)" in projected.beside
    assert [row[1] for row in table_of(part, "Every reading")] == ["7 of 20", "7 of 20"]
    assert [row[0] for row in table_of(part, "projected out")] == ["organism", "careful"]
    scaled = table_of(part, "adapter scaled")
    assert scaled[0][:2] == ["organism x 2", "+0.200 [+0.190, +0.210]"] and "careful +0.070" in scaled[0][3]


def test_saes_that_were_there_stand_beside_pca_and_the_model_that_they_name(tmp_path: Path) -> None:
    trained = sae(0.07)
    one = trained["saes"][0] | {"source": "/a/machine/saes/half", "architecture": "jumprelu", "trained_on": "other"}
    facts = {name: trained[name] for name in ("model", "adapter", "layer", "tokens")}
    facts |= dict.fromkeys(("clean_cross_entropy", "mean_cross_entropy", "zero_cross_entropy"), 3.0)
    (row,) = part_of(write_run(tmp_path), "measured.json", {**facts, "saes": [one]}).shown.rows
    assert row.figure.text == "0.200" and "half (jumprelu)" in row.what and "/a/machine" not in row.what
    assert "trained on other, read in m at layer 1" in row.beside and "PCA with 32 components 0.530" in row.beside


def test_prevention_shows_effect_cost_and_controls_and_its_folder_holds_no_other_files(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run / "probes" / "persona" / "seed-0" / "persona" / "measured.json", {"margin": {"q": 0.1}})
    part = part_of(run, "persona/prevention.json", prevention())
    whole, treated = part.shown.rows
    assert whole.figure.text == "+0.300" and "one finetuning seed: no interval covers another" in whole.beside
    assert treated.figure.text == "−0.200" and "p 0.04, corrected for the number of remedies (Holm)" in treated.beside
    assert "beyond 2 usage-matched control(s) −0.120 [−0.130, −0.110] p 0.03" in treated.beside
    assert "task minus untreated −0.100 [−0.110, −0.090]" in treated.beside
    assert [row[0] for row in table_of(part, "Every remedy")][2] == "persona, subspace 1 control of persona"
    assert part.page is None and not any("measured.json" in note for note in load_contents(run).notes)
    (run / "probes" / "persona" / "index.html").write_text("")
    (part,) = further_parts(load_contents(run).further)
    assert part.page == "../probes/persona/index.html"


def test_a_study_of_other_code_is_refused_with_advice(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run / "probes" / "prevention.json", {**prevention(), "rows": [remedy("mix", 0.0, task_gian=0.1)]})
    note = next(note for note in load_contents(run).notes if note.startswith("probes/prevention.json: "))
    assert "task_gian" in note and note.endswith("run `study_organism.py prevention` again.")


def test_every_kind_of_file_is_drawn_on_the_page_and_none_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for name, value in {
        "probe_fit.json": fits(),
        "threshold.json": planted_threshold(),
        "detect.json": planted_detection(),
        "lens.json": lens({"mlp_out 3": -0.2}),
        "diff.json": diff("said"),
        "prevention.json": prevention(),
    }.items():
        write(run / "probes" / name, value)
    html = build_report(run).read_text("utf-8")
    section = html[html.index('id="further"') :].partition("</section>")[0]
    headings = [KNOWN[name].heading for name in KNOWN if (run / "probes" / name).exists()]
    assert [section.count(f">{heading}</h3>") for heading in headings] == [1] * 6
    assert section.count('data-figure="survival"') == section.count('data-figure="reliability"') == 1


def test_a_file_with_a_changed_digit_is_named_and_not_shown(tmp_path: Path) -> None:
    run, content = write_run(tmp_path), sealed(lens({"mlp_out 3": -0.2}))
    write(run / "probes" / "lens.json", content)
    assert len(load_contents(run).further) == 1
    write(run / "probes" / "lens.json", {**content, "model": "another"})
    contents = load_contents(run)
    assert contents.further == [] and any(
        note.startswith("probes/lens.json: damaged or edited") for note in contents.notes
    )
