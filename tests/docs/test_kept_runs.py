"""The tables of the README and the guides are those of runs whose numbers are kept under docs/runs."""

import re
from pathlib import Path

import pytest

from emis_interp.report import run_tables
from emis_interp.report.settings import RunTablesSettings

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- tables of (docs/runs/[\w.-]+) -->\n(.*?)<!-- end of tables -->", re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(match[1], match[2], id=f"{page.name}-{number}")
    for page in PAGES
    for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8")))
]


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize(("folder", "text"), BLOCKS)
def test_every_row_of_a_table_is_one_of_the_run(folder: str, text: str) -> None:
    printed = rows(run_tables.say(run_tables.run(RunTablesSettings(run_dir=ROOT / folder))))
    assert rows(text) and not [row for row in rows(text) if row not in printed]


def test_the_readme_has_tables_of_a_kept_run() -> None:
    assert any(str(param.id).startswith("README.md") for param in BLOCKS)


@pytest.mark.parametrize("folder", sorted((ROOT / "docs" / "runs").iterdir()), ids=lambda folder: folder.name)
def test_a_kept_run_says_how_it_was_made_and_holds_no_path_of_a_machine(folder: Path) -> None:
    text = "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())
    said = (ROOT / "docs" / "runs.md").read_text("utf-8").partition(f"\n## {folder.name}\n")[2].partition("\n## ")[0]
    assert "run_pipeline.py --preset" in said
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", text)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 400_000
