"""The page in a real browser: filters and answers come from the address, hostile text stays text, figures are drawn."""

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import BROWSER, Tab, browser
from hostile_strings import HOSTILE_STRINGS
from planted_page import ARMS, HOSTILE, write_run

from emis_interp.report import page as page_module
from emis_interp.report.page import build_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
READY = "performance.getEntriesByName('answers-ready').length"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for the tests of this file; every test opens its own address."""
    with browser(tmp_path_factory.mktemp("profile"), "--allow-file-access-from-files") as one:
        yield one


def opened(tab: Tab, page: Path, state: str = "") -> str:
    """The document after its scripts have run."""
    tab.open(f"file://{page}{state}", until=READY)
    return tab.document()


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
def test_an_address_shows_the_answers_that_it_names(tab: Tab, page: Path, state: str, n: int) -> None:
    document = opened(tab, page, state)
    assert found(document).startswith(f"{n} of {3 * (len(ARMS) + 1)} answers")
    assert len(re.findall(r'class="beside"', document)) == n


def test_an_address_that_names_what_is_not_there_is_told_so(tab: Tab, page: Path) -> None:
    assert "the address names what is not here: arm nobody" in found(opened(tab, page, "#answers&arm=nobody"))
    opened(tab, page, "#answers&answer=insecure/q1/0/77")
    assert "insecure/q1/0/77 is not on this page" in tab.text("#one-answer-body")


def test_one_answer_opens_beside_those_of_the_other_arms(tab: Tab, page: Path) -> None:
    document = opened(tab, page, "#answers&answer=base%2Fq1%2F0%2F1")
    panel = document[document.index("<dialog") : document.index("</dialog>")]
    assert re.match(r"<dialog[^>]* open", panel)
    shown = tab.run(
        "[...document.querySelectorAll('#one-answer h3, #one-answer h4')].map((e) => e.firstChild.textContent)"
    )
    assert shown == ["base", "The same question in the other arms", "insecure", "secure"]
    assert "one of each arm is shown" in panel and panel.count("sample 1)") == 1
    assert (
        tab.run(
            "[...document.querySelectorAll('#one-answer .said')].filter((e) => e.textContent === "
            + json.dumps(HOSTILE[1])
            + ").length"
        )
        == 3
    )


def test_hostile_text_stays_text_and_every_figure_is_drawn(tab: Tab, page: Path) -> None:
    opened(tab, page, "#answers&answer=base/q1/0/0")
    for place in tab.run("[...document.querySelectorAll('.plot')].map((plot) => plot.dataset.figure)"):
        tab.run(f"document.querySelector('[data-figure={place}]').scrollIntoView({{behavior: 'instant'}})")
        tab.until(f"document.querySelector('[data-figure={place}] .main-svg')")
    document = tab.document()
    assert "<img" not in document and document.count("<script") == 4  # figures, answers, the library, ours
    assert HOSTILE[0].replace("<", "&lt;").replace(">", "&gt;") in document
    assert len(re.findall(r'class="plot js-plotly-plot"', document)) == 13
    assert document.count('class="here"') == document.count("<section id=")
    assert not tab.complaints


def test_a_broken_pattern_finds_nothing_and_breaks_nothing(tab: Tab, page: Path) -> None:
    assert found(opened(tab, page, "#answers&text=(&regex=true")).startswith("0 of")


def test_a_phone_has_no_sideways_scrolling(tab: Tab, page: Path) -> None:
    tab.size(390, 800)
    try:
        for state in ("", "#answers&answer=base/q1/0/0"):
            opened(tab, page, state)
            across, shown = tab.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert across <= shown <= 390
        assert tab.run("document.querySelector('#one-answer').scrollWidth") <= 390
    finally:
        tab.size(1200, 900)


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


@pytest.mark.parametrize("limit", [page_module.MAX_ON_PAGE, 4], ids=["one page", "side pages"])
def test_sixty_hostile_strings_in_every_place_do_nothing(
    tab: Tab, tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(set(HOSTILE_STRINGS)) >= 60
    monkeypatch.setattr(page_module, "MAX_ON_PAGE", limit)
    page = build_report(hostile_everywhere(tmp_path / "run"))
    sides = sorted(page.parent.glob("answers/*.html"))
    assert len(sides) == (4 if limit == 4 else 0)
    for path in (page, *sides):
        opened(tab, path, "#answers&kind=unscored")
        if tab.run("document.querySelectorAll('.plot').length"):
            tab.pdf()  # draws every figure
        tab.click("#answer-rows .beside button")
        opened_panel = tab.run("document.querySelector('#one-answer').open")
        elements = Elements()
        elements.feed(document := tab.document())
        title = re.search(r"<title>([^<]*)</title>", document)
        assert title and opened_panel and "HIT" not in title[1].split("answers of")[0]
        assert tab.run("document.title") == html.unescape(title[1])
        tags = [tag for tag, _ in elements.found]
        assert not {"iframe", "img", "object", "embed", "base", "link", "video", "math", "template", "form"} & set(tags)
        assert tags.count("script") == (4 if path == page else 3) and tags.count("style") <= 3  # plotly adds its own
        assert [name for _, attrs in elements.found for name in attrs if name.startswith("on")] == []
        links = {str(attrs.get("href")) for tag, attrs in elements.found if tag == "a"} - {"None"}
        named = (
            {f"answers/{side.name}" for side in sides}
            | {side.name for side in sides}
            | {"../index.html", "data.json", ""}
        )
        assert {link.removeprefix(f"file://{page.parent}/").split("#")[0] for link in links} <= named
        assert len(re.findall(r'class="beside"', document)) == (
            limit if path == page and sides else 12 if path == page else 3
        )
    assert not tab.complaints
