"""What all pages share, in a real browser: links that lead somewhere, a frame, no sideways scrolling, legible in both themes, paper."""

import re
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from chromium import BROWSER, Tab, browser
from hostile_strings import HOSTILE_STRINGS
from planted_family import KINDS, hostile_run, write_family

from emis_interp.report.page_frame import MARK, page_title

in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
slow = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PHONE, SHEET = 390, 703
"""Widths in pixels: of a phone, and of what a sheet of A4 holds between its margins."""


class Page(HTMLParser):
    """Start tags with their attributes, in order, and the text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.inside = "", [""]
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if len(self.inside) == 1:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_family(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_family(tmp_path_factory.mktemp("runs"), " ".join(HOSTILE_STRINGS), hostile_run)


@pytest.mark.parametrize("which", ["family", "hostile"])
def test_every_link_of_every_page_leads_somewhere(which: str, request: pytest.FixtureRequest) -> None:
    for kind, path in request.getfixturevalue(which).items():
        links = [str(attrs["href"]) for attrs in Page(path).all("a")]
        assert links[0] == "#content", kind
        for link in links:
            file, _, anchor = link.partition("#")
            assert not re.match(r"[a-zA-Z][\w+.-]*:|/", file), (
                kind,
                link,
            )  # relative: no scheme, no place of this machine
            target = path.parent / unquote(file) if file else path
            assert target.is_file(), (kind, link)
            if anchor:
                assert anchor in {attrs.get("id") for _, attrs in Page(target).tags}, (kind, link)


def test_pages_of_a_run_know_each_other_and_the_index_knows_the_runs(family: dict[str, Path]) -> None:
    def linked(kind: str) -> set[Path]:
        hrefs = (unquote(str(attrs["href"])).partition("#")[0] for attrs in Page(family[kind]).all("a"))
        return {(family[kind].parent / href).resolve() for href in hrefs if href}

    own = {family[kind].resolve() for kind in (*KINDS, "report")}
    for kind in (*KINDS, "report"):
        beside = own - {family[kind].resolve()} | {family["index"].resolve(), family["compare"].resolve()}
        assert beside <= linked(kind), kind
        assert family["study"].resolve() not in linked(kind)
    assert {family[kind].resolve() for kind in ("report", "other", "study", "compare")} <= linked("index")
    assert {family[kind].resolve() for kind in ("report", "other", "index")} <= linked("compare")


@pytest.mark.parametrize("which", ["family", "hostile"])
def test_every_page_has_the_same_frame(which: str, request: pytest.FixtureRequest) -> None:
    pages = request.getfixturevalue(which)
    for kind, path in pages.items():
        page = Page(path)
        names = [tag for tag, _ in page.tags]
        assert [names.count(tag) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1], kind
        assert names.index("a") < names.index("header"), kind  # the skip link is first
        assert [attrs.get("id") for attrs in page.all("main")] == ["content"]
        labels = [attrs.get("aria-label") for attrs in page.all("nav")]
        assert None not in labels and len(set(labels)) == len(labels), kind
        assert page.all("html") == [{"lang": "en"}] and MARK in path.read_text("utf-8")
        for attrs in page.all("div"):
            if "plot" in str(attrs.get("class")).split():
                about = attrs.get("aria-describedby")
                assert attrs.get("role") == "img" and about in {a.get("id") for _, a in page.tags}, kind
        assert "made bypython scripts/" in page.text.replace("\n", ""), kind
        title = page_title(path)
        assert title is not None and len(title) <= 80


@pytest.mark.parametrize("which", ["family", "hostile"])
def test_no_page_names_a_place_on_this_machine(which: str, request: pytest.FixtureRequest) -> None:
    pages = request.getfixturevalue(which)
    for kind, path in pages.items():
        text = path.read_text("utf-8")
        assert str(pages["index"].parent) not in text, kind
        assert "/root/secret" not in text and ("secret" not in text or kind not in KINDS), kind


def test_the_command_on_a_page_is_one_that_there_is() -> None:
    """Scripts and verbs that pages name, as they stand in the code."""
    sources = [p for room in ("emis_interp", "probes", "training") for p in (ROOT / room).rglob("*.py")]
    named = {
        found for p in sources for found in re.findall(r'command_of\("(scripts/[\w.]+)(?: ([\w-]+))?"', p.read_text())
    }
    assert len(named) >= 9
    for script, verb in named:
        source = (ROOT / script).read_text()
        assert not verb or f'"{verb}": cli.Verb(' in source, (script, verb)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def measured(tab: Tab, pages: dict[str, Path], script: str, *, width: int, then: int | None = None) -> dict[str, Any]:
    """What a script finds in each page with all of its figures.

    Args:
        script: the body of a function of `d`, the document, and `w`, its window; returns what JSON can hold.
        width: of the window in which the figures are drawn.
        then: its width afterwards.
    """
    found = {}
    for kind, path in pages.items():
        tab.size(width, 900)
        tab.open(path)
        tab.draw()
        tab.size(then or width, 900)
        found[kind] = tab.run(f"((d, w) => {{ {script} }})(document, window)")
    return found


WIDTHS = """
const own = d.scrollingElement.clientWidth;
const wide = [...d.querySelectorAll(".plot, table, h1, dd, li, figcaption, summary, pre")]
  .filter((node) => node.getBoundingClientRect().right > own + 1 && !node.closest(".scroll, figure")).map((node) => node.tagName);
return [d.scrollingElement.scrollWidth, own, wide, d.title, d.querySelectorAll("img, iframe, object, embed, base, form").length,
  [...d.querySelectorAll(".plot")].filter((node) => !node.querySelector("svg")).length];
"""


@in_browser
@slow
@pytest.mark.parametrize("which", ["family", "hostile"])
def test_no_page_scrolls_sideways_on_a_phone_and_no_text_becomes_markup(
    tab: Tab, which: str, request: pytest.FixtureRequest
) -> None:
    tab.dark(which == "hostile")
    found = measured(tab, request.getfixturevalue(which), WIDTHS, width=PHONE)
    for kind, (scrolled, own, wide, title, n_strange, n_undrawn) in found.items():
        assert scrolled <= own <= PHONE and wide == [], (kind, scrolled, wide)
        assert title != "HIT" and n_strange == 0 and n_undrawn == 0, kind


@in_browser
@slow
def test_what_is_printed_fits_a_sheet(tab: Tab, family: dict[str, Path]) -> None:
    """The rules of print, applied to pages that were drawn on a wide screen; figures are kept whole."""
    assert all("@page { size: A4;" in path.read_text("utf-8") for path in family.values())
    script = f"""return (async () => {{
      w.dispatchEvent(new Event("beforeprint"));
      await new Promise((done) => setTimeout(done, 1000));
      const style = d.querySelector("style");
      style.textContent = style.textContent.replace("@media print", "@media all");
      const far = [...d.querySelectorAll("svg, td, th, p, pre, figcaption")].filter((node) => {{
        const box = node.getBoundingClientRect();
        return box.width && box.right > {SHEET};
      }}).map((node) => [node.tagName, node.closest("section")?.id, node.getBoundingClientRect().right]);
      const whole = [...d.querySelectorAll("figure")].every((node) => w.getComputedStyle(node).breakInside === "avoid");
      const shown = [...d.querySelectorAll("nav, .filters, .modebar")].filter((node) => node.getBoundingClientRect().height).length;
      return [far, whole, shown];
    }})()"""
    found = measured(tab, family, script, width=1200, then=SHEET)
    for kind, (far, whole, shown) in found.items():
        assert far == [] and whole and shown == 0, (kind, far[:5])


CONTRAST = """
const channel = (x) => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; };
const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const behind = (node) => {
  for (let one = node; one; one = one.parentElement) {
    const c = parse(w.getComputedStyle(one).backgroundColor);
    if (c[3] === 1) return c;
  }
  return [255, 255, 255, 1];
};
const worst = [];
const walker = d.createTreeWalker(d.body, 4);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || node.closest("script, style, .plot, noscript, option, svg, .here, button")) continue;
  if (!node.getBoundingClientRect().height) continue;
  const [a, b] = [light(parse(w.getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) worst.push([ratio.toFixed(2), node.tagName, node.className, node.closest("section")?.id]);
}
return [worst, w.getComputedStyle(d.body).backgroundColor];
"""


@in_browser
@slow
@pytest.mark.parametrize(("theme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 29)")])
def test_text_has_contrast_in_both_themes(tab: Tab, theme: str, paper: str, family: dict[str, Path]) -> None:
    tab.dark(theme == "dark")
    for kind, (worst, own) in measured(tab, family, CONTRAST, width=1200).items():
        assert own == paper and worst == [], (kind, worst[:5])


@in_browser
@slow
def test_the_keyboard_reaches_the_content_first_and_the_answers_soon(tab: Tab, family: dict[str, Path]) -> None:
    script = """
      const stops = [...d.querySelectorAll("a[href], button, input, select, summary, [tabindex]")]
        .filter((node) => node.tabIndex >= 0 && !node.disabled && node.getClientRects().length);
      const answers = stops.findIndex((node) => node.matches('.skip[href="#answers"]'));
      return [stops[0].className, stops.findIndex((node) => node.closest("main")), answers];
    """
    found = measured(tab, family, script, width=1200)
    for kind, (first, content, _) in found.items():
        assert first == "skip" and content <= 40, (kind, content)
    assert found["report"][2] == 1  # the second link jumps over every figure


@in_browser
@slow
def test_a_page_prints_as_sheets_of_a4(family: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "page.pdf"
    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += [
        "--virtual-time-budget=6000",
        "--no-pdf-header-footer",
        f"--print-to-pdf={out}",
        family["compare"].as_uri(),
    ]
    subprocess.run(words, capture_output=True, timeout=120, check=True)
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", out.read_bytes())
    assert boxes and all(abs(float(w) - 595) < 2 and abs(float(h) - 842) < 2 for w, h in boxes)


def test_a_page_that_is_not_ours_is_not_linked(tmp_path: Path, make_page: Callable[[Path], str]) -> None:
    foreign = tmp_path / "foreign.html"
    foreign.write_text("<title>foreign</title>")
    (tmp_path / "ours.html").write_text(f"{MARK}<title>ours</title>")
    (tmp_path / "away.html").symlink_to(tmp_path / "gone.html")
    page = make_page(tmp_path / "page.html")
    links = re.findall(r'href="([^"#]+)"', page)
    assert "ours.html" in links and not {"foreign.html", "away.html"} & set(links)


@pytest.fixture
def make_page() -> Callable[[Path], str]:
    from planted_family import a_figure_page

    from emis_interp.report.page_frame import frame_of

    return lambda path: a_figure_page("text", frame_of(path))
