"""The reference has every public module, and the site is built without a warning and loads nothing from elsewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import emis_interp as ei

ROOT = Path(__file__).parents[2]
PACKAGES = ("emis_interp", "evals", "training", "probes")
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.M)


def rooms_and_modules(package: str) -> list[str]:
    """What stands directly in a package: its rooms, and its modules outside of any."""
    folder = ROOT / package
    rooms = [path.parent.name for path in folder.glob("*/__init__.py")]
    modules = [path.stem for path in folder.glob("*.py") if path.name != "__init__.py"]
    return [f"{package}.{name}" for name in sorted([*rooms, *modules]) if not name.startswith("_")]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_and_module_has_its_entry(package: str) -> None:
    page = ROOT / "docs" / "reference" / f"{package}.md"
    listed = DIRECTIVE.findall(page.read_text("utf-8"))
    assert len(listed) == len(set(listed))
    whole = package in listed  # with all that is in it
    lacking = [] if whole else [name for name in rooms_and_modules(package) if name not in listed]
    assert not lacking, f"{page.relative_to(ROOT)} lacks: " + ", ".join(f"`::: {name}`" for name in lacking)
    gone = [name for name in listed if not is_module(name)]
    assert not gone, f"{page.relative_to(ROOT)} names what is not there: {gone}"


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return (path / "__init__.py").exists() or path.with_suffix(".py").exists()


def test_the_surface_is_listed_with_the_places_of_its_names() -> None:
    rows = re.findall(r"^\| \[`ei\.(\w+)`\]\[([\w.]+)\]", (ROOT / "docs/reference/index.md").read_text("utf-8"), re.M)
    places = {name: f"{getattr(ei, name).__module__}.{name}" for name in ei.__all__ if name != "__version__"}
    assert dict(rows) == places


def test_an_entry_holds_the_modules_below_it() -> None:
    assert re.search(r"^\s+show_submodules: true$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)


def test_every_guide_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2].partition("\n\n")[0]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"[\w/]+\.md", nav)) == pages


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra `docs`; `make docs` installs it")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"' >]+)", text)
        loaded += re.findall(r"<link[^>]*\srel=[\"']?(?:stylesheet|preconnect|icon)[^>]*\shref=[\"']?([^\"' >]+)", text)
        assert loaded and not [place for place in loaded if re.match(r"(?:https?:)?//", place)], page
    assert 'id="emis_interp.passes.model.Model.steer"' in (tmp_path / "reference/emis_interp.html").read_text("utf-8")
