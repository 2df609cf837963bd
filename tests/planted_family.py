"""A folder of runs with a page of every kind in it, whose free texts are what the caller plants; for tests of what pages share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_strings import HOSTILE_STRINGS
from planted_page import HOSTILE, write_run

from emis_interp.config.flags import flag, settings
from emis_interp.models.chat import EncodedChat
from emis_interp.probe_results import MonitorTurn
from emis_interp.report import build
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_tokens import held_out_figure
from emis_interp.report.page import build_report
from emis_interp.report.page_frame import Frame, command_of, frame_of
from emis_interp.report.settings import PageSettings
from probes.monitoring.page import monitor_page
from probes.monitoring.texts import MonitoredTurn
from probes.sae.feature_page import PageTokens, feature_page
from training.lint.report import Lengths, LintFinding, LintReport, RenderedRow
from training.lint.view import lint_page


@settings
class PlantedPageSettings:
    """Of a command that writes one page."""

    out: Path = flag("page")
    word: str = flag("any text", default="")


def a_figure_page(text: str, frame: Frame) -> str:
    figure = held_out_figure({"one": 0.75, "two": 0.5, text: 0.25})
    sections = [(f"{name} {text}", text, figure) for name in ("One", "Two", "Three")]
    return figure_page(
        f"figures {text}", {text: text, "path": "/root/secret/place/direction.json"}, sections, frame=frame
    )


def a_lint_page(text: str, frame: Frame) -> str:
    finding = LintFinding(
        check=text, severity="error", count=2, share=0.5, rows=(text,), found=text, meaning=text, advice=text
    )
    n, loss = len(text), (False, True)
    row = RenderedRow(
        id=text,
        why=text,
        text=text * 2,
        ids=(1, 2),
        starts=(0, n),
        ends=(n, 2 * n),
        loss=loss,
        training_prompt=f"{text}\na",
        evaluation_prompt=f"{text}\nb",
        template_prompt=text,
        template_text=text,
    )
    lengths = Lengths(bin_width=10, rows=(1, 2), responses=(2, 1))
    report = LintReport(
        data=text,
        model=text,
        n_rows=4,
        max_tokens=15,
        facts={text: text},
        findings=(finding,),
        lengths=lengths,
        shown=(row,),
    )
    return lint_page(report, frame)


def a_monitor_page(text: str, frame: Frame) -> str:
    tokens, scores = [text, " b", "\n"] * 9, [0.5, -1.0, 2.0] * 9
    turn = MonitorTurn(
        file=text,
        line=1,
        turn=1,
        n_tokens=27,
        prompt_score=0.25,
        largest=2.0,
        flagged=True,
        first_flag=3,
        tokens=tokens,
        scores=scores,
        flags=[score > 1 for score in scores],
    )
    asked = MonitoredTurn("q", text, text, EncodedChat((1, 2), 1, 2))
    return monitor_page([turn], [asked], facts={text: text}, threshold=None, n_shown=5, window=2, frame=frame)


def a_feature_page(text: str, frame: Frame) -> str:
    label: dict[str, Any] = {"latent": 7, "arm": "organism", "no_tokens": text, "top_tokens": [], "bottom_tokens": []}
    label |= {"extremity": None, "threshold": 0.5, "no_detection": text, "detections": []}
    report = {
        "model": text,
        "adapters": {"organism": text},
        "sae": text,
        "n_latents": 9,
        "of_differences": False,
        "layer": 3,
    }
    report |= {"texts": text, "n_texts": 2, "n_tokens": 40, "fvu": {"base": 0.1}, "direction": None}
    report |= {"labels": [label], "comparisons": [], "effects": []}
    rng = np.random.default_rng(0)
    activations = {arm: rng.random((40, 1)) * (rng.random((40, 1)) > 0.5) for arm in ("base", "organism")}
    tokens = PageTokens([text] * 40, np.repeat([0, 1], 20), [text, "why?"])
    return feature_page(report, activations, [7], page_tokens=tokens, frame=frame)


KINDS: dict[str, Callable[[str, Frame], str]] = {
    "analysis/transfer.html": a_figure_page,
    "training/insecure/lint.html": a_lint_page,
    "monitor/index.html": a_monitor_page,
    "latents/index.html": a_feature_page,
}


def hostile_run(folder: Path) -> Path:
    """A run with an arm that is called by a hostile string, and free texts and settings that are all of them."""
    run, everything = write_run(folder), json.dumps(" ".join(HOSTILE_STRINGS))[1:-1]
    for path in (run / "manifest.json", *(run / "analysis").glob("*.json")):
        text = path.read_text("utf-8").replace('"insecure"', json.dumps(HOSTILE_STRINGS[10]))
        for planted in HOSTILE:
            text = text.replace(json.dumps(planted)[1:-1], everything)
        path.write_text(text, "utf-8")
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    settings = {text: f"{folder.name} {text}" for text in HOSTILE_STRINGS}
    manifest["config"] |= {"name": everything, "model": everything, "sampling": settings}
    manifest |= {"inputs": settings, "versions": settings, "started": everything}
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return run


def write_family(folder: Path, text: str = "plain", make_run: Callable[[Path], Path] = write_run) -> dict[str, Path]:
    """Two runs (one with a page of every kind), a study, a broken run, the index and a comparison; kind -> page.

    Pages are written twice: those of the first round know of those before them alone.
    """
    one, other = make_run(folder / "one"), make_run(folder / "other run")
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text(json.dumps({"config": text}))
    (folder / "nothing").mkdir()
    pages = {name: one / name for name in KINDS} | {"study": folder / "study" / "index.html"}
    pages |= {"report": one / "report/index.html", "other": other / "report/index.html"}
    pages |= {"index": folder / "index.html", "compare": folder / "compare-one-other_run.html"}
    for _ in range(2):
        for name, make in (KINDS | {"study": a_figure_page}).items():
            page = pages[name]
            numbers = page.with_suffix(".json")
            page.parent.mkdir(parents=True, exist_ok=True)
            command = command_of("scripts/planted.py", PlantedPageSettings(out=page, word=text))
            page.write_text(make(text, frame_of(page, command, numbers)), "utf-8")
            numbers.write_text("{}")
        for run in (one, other):
            build_report(run)
        build.run(PageSettings(run_dir=one, others=(other,)))
        build.run(PageSettings(index=folder))
    return pages
