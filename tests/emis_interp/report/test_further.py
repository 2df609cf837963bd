"""What `probe.py` leaves in a run's probes/ stands in the report, each figure beside what could explain it away."""

from pathlib import Path
from typing import Any

import pytest
from planted_page import HOSTILE, write, write_run

from emis_interp.files.sealed import sealed
from emis_interp.report import html_page
from emis_interp.report.contents import load_contents
from emis_interp.report.further import KNOWN, FurtherRow, further_rows
from emis_interp.report.page import build_report, report_data


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "get_plotlyjs", lambda: "/* library */")


def shift(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def null(low: float, high: float) -> dict[str, Any]:
    return {"mean": (low + high) / 2, "low": low, "high": high, "p": 0.048, "p_n": 20}


def lens(shifts: dict[str, float]) -> dict[str, Any]:
    parts = [
        {"part": name, "base": shift(0.0), "organism_shift": shift(value), "control_shift": shift(value / 2)}
        for name, value in shifts.items()
    ]
    parts.append({"part": "total", "base": shift(0.0), "organism_shift": shift(sum(shifts.values()))})
    facts = {"model": "m", "adapter": "a", "n_questions": 8, "n_pairs": 8, "frozen": "scale", "sum_error": 0.0}
    return {**facts, "lens": [{"layer": 1, "base": shift(0.1)}], "attribution": parts}


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
    other = {**reading, "name": "patchscope", "primary": False}
    facts = {"model": "m", "adapter": "a", "controls": {}, "layer": 15, "n_texts": 9, "n_short": 0, "n_tokens": 5}
    facts |= {"residual_norm": 1.0, "topics": [], "primary_topic": topic, "positions": [], "patchscope": []}
    return {
        **facts,
        "readings": [{**one, "counts": [{**count, "verdict": verdict}]} for one in (reading, other)],
        "components": [],
        "logits": [],
        "amplification": {"cells": [], "verdict": "at no scale"},
    }


def rows_of(run: Path) -> list[FurtherRow]:
    return further_rows(load_contents(run).further)


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
    assert "the largest of 2 parts, chosen by what is shown" in part.beside and len(rows) == 5


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
    assert [one.verb for one in contents.further] == [
        "diff",
    ]
    note = next(note for note in contents.notes if note.startswith("probes/lens.json: "))
    assert note.endswith("not shown; run `probe.py lens` again.") and "n_questions" in note


def test_the_page_without_any_says_how_to_have_them(tmp_path: Path) -> None:
    html = build_report(write_run(tmp_path)).read_text("utf-8")
    assert "Nothing further was measured" in html and all(verb in html for verb, _, _ in KNOWN.values())


def test_a_file_with_a_changed_digit_is_named_and_not_shown(tmp_path: Path) -> None:
    run, content = write_run(tmp_path), sealed(lens({"mlp_out 3": -0.2}))
    write(run / "probes" / "lens.json", content)
    assert len(load_contents(run).further) == 1
    write(run / "probes" / "lens.json", {**content, "model": "another"})
    contents = load_contents(run)
    assert contents.further == [] and any(
        note.startswith("probes/lens.json: damaged or edited") for note in contents.notes
    )
