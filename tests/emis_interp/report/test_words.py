"""What a command says at its end: a page is named only where it was made."""

from emis_interp.report.words import said_of


def test_a_run_without_its_report_stage_names_no_page() -> None:
    stages = {"train": {"line": "2 organisms"}}
    said = said_of({"run_dir": "runs/a", "stages": stages, "report": None})
    assert said == "run: runs/a (no report: its stage was not made)"
    line = "Does it happen? not told from chance | What carries it? nothing"
    made = said_of({"run_dir": "runs/a", "stages": {"report": {"line": line}}, "report": "runs/a/report/index.html"})
    assert "Does it happen?" in made and "not told from chance" in made and "runs/a/report/index.html" in made
