"""The page in a real browser: filters and answers come from the address, hostile text stays text, figures are drawn."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile_strings import HOSTILE_STRINGS
from planted_page import ARMS, HOSTILE, write_run

from emis_interp.report.page import build_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(write_run(tmp_path_factory.mktemp("run")))


def opened(page: Path, state: str = "", *, profile: Path, flags: tuple[str, ...] = ()) -> str:
    """The document after its scripts have run."""
    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *flags]
    words += ["--virtual-time-budget=5000", "--dump-dom", f"file://{page}{state}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


def found(document: str) -> str:
    told = re.search(r'id="found"[^>]*>([^<]*)', document)
    assert told
    return told[1]


@pytest.mark.parametrize(
    ("state", "n"),
    [
        ("", 3 * (len(ARMS) + 1)),
        ("#answers&arm=insecure", 3),
        ("#answers&arm=insecure&text=script&regex=false", 3),
        ("#answers&text=^%3C!--.*t%3E$&regex=true", len(ARMS) + 1),
        ("#answers&kind=unscored", 3 * (len(ARMS) + 1)),
        ("#answers&cmin=40&cmax=60", len(ARMS) + 1),
        ("#answers&kind=cut", 0),
        ("#answers&arm=nobody", 3 * (len(ARMS) + 1)),
    ],
)
def test_an_address_shows_the_answers_that_it_names(page: Path, tmp_path: Path, state: str, n: int) -> None:
    document = opened(page, state, profile=tmp_path)
    assert found(document).startswith(f"{n} of {3 * (len(ARMS) + 1)} answers")
    assert len(re.findall(r'class="beside"', document)) == n


def test_one_answer_opens_beside_those_of_the_other_arms(page: Path, tmp_path: Path) -> None:
    document = opened(page, "#answers&answer=1", profile=tmp_path)
    dialog = document[document.index("<dialog") : document.index("</dialog>")]
    assert re.match(r"<dialog[^>]* open", dialog)
    assert [arm for arm in ARMS if f'class="arm">{arm}<' in dialog] == ARMS
    assert "one of each arm is shown" in dialog


def test_hostile_text_stays_text_and_every_figure_is_drawn(page: Path, tmp_path: Path) -> None:
    document = opened(page, "#answers&answer=0", profile=tmp_path)
    assert "<img" not in document and document.count("<script") == 4  # two of data, plotly, ours
    assert HOSTILE[0].replace("<", "&lt;").replace(">", "&gt;") in document
    assert len(re.findall(r'class="plot js-plotly-plot"', document)) == 9
    assert document.count('class="here"') == document.count("<section id=")


def test_a_broken_pattern_finds_nothing_and_breaks_nothing(page: Path, tmp_path: Path) -> None:
    assert found(opened(page, "#answers&text=(&regex=true", profile=tmp_path)).startswith("0 of")


def test_a_phone_has_no_sideways_scrolling(page: Path, tmp_path: Path) -> None:
    """By a frame of 390 pixels, since headless Chromium has no narrower window than 500."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" width="390" height="800" src="file://{page}"></iframe><p id="w"></p><script>'
        'const f = document.getElementById("f"); setTimeout(() => { const d = f.contentDocument.documentElement; '
        'document.getElementById("w").textContent = `${d.scrollWidth} of ${d.clientWidth}`; }, 3000);</script>'
    )
    document = opened(frame, profile=tmp_path / "p", flags=("--allow-file-access-from-files",))
    told = re.search(r'id="w">(\d+) of (\d+)', document)
    assert told and int(told[1]) <= int(told[2]) <= 390


def hostile_everywhere(folder: Path) -> Path:
    """A run in which every free text is all hostile strings, and an arm is called by one."""
    run, everything = write_run(folder), " ".join(HOSTILE_STRINGS)
    arm = HOSTILE_STRINGS[len(HOSTILE_STRINGS) // 6]
    assert "/" not in arm
    for path in sorted(run.rglob("*"), reverse=True):
        if path.is_file():
            text = path.read_text("utf-8")
            for planted in HOSTILE:
                text = text.replace(json.dumps(planted)[1:-1], json.dumps(everything)[1:-1])
            path.write_text(text.replace('"insecure"', json.dumps(arm)), "utf-8")
        if path.name.startswith("insecure"):
            path.rename(path.with_name(path.name.replace("insecure", arm)))
    return run


class Elements(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_sixty_hostile_strings_in_every_place_do_nothing(tmp_path: Path) -> None:
    assert len(set(HOSTILE_STRINGS)) >= 60
    page = build_report(hostile_everywhere(tmp_path / "run"))
    document = opened(page, "#answers&answer=1", profile=tmp_path / "profile")
    elements = Elements()
    elements.feed(document)
    title = re.search(r"<title>([^<]*)</title>", document)
    assert title and title[1] == "tiny: emergent misalignment report"
    tags = [tag for tag, _ in elements.found]
    assert not {"iframe", "img", "object", "embed", "base", "link", "video", "math", "template", "form"} & set(tags)
    assert tags.count("script") == 4 and tags.count("style") <= 3  # plotly adds its own
    assert [name for _, attrs in elements.found for name in attrs if name.startswith("on")] == []
    links = {str(attrs.get("href")) for tag, attrs in elements.found if tag == "a"} - {"None"}
    assert {link for link in links if not link.startswith("#")} == {"data.json"}
    assert found(document).startswith("12 of 12 answers")
