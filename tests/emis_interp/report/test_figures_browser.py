"""Figures in a real browser: on a phone nothing of them is cut, their files say what they draw, pictures are made for papers."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BROWSER, Tab, browser
from hostile_strings import HOSTILE_STRINGS
from planted_detection import planted_detection
from planted_figures import planted_run
from planted_page import write, write_run

from emis_interp.files.csv_text import csv_text
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.described import words_of
from emis_interp.report.drawn import figures
from emis_interp.report.figure_files import write_figures
from emis_interp.report.html_page import script_parts
from emis_interp.report.page import build_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("run"), rate=0.3, shift=0.2)


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return build_report(run)


@pytest.fixture(scope="module")
def contents(run: Path) -> Contents:
    return load_contents(run)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


PHONE = """(() => {
  const found = {};
  for (const plot of document.querySelectorAll(".plot")) {
    const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
    const isCut = (node) => {
      const at = node.getBoundingClientRect();
      return at.left < box.left - 1 || at.right > box.right + 1;
    };
    const words = [...plot.querySelectorAll(".main-svg text")].filter((node) => node.textContent.trim() && !node.closest(".hoverlayer"));
    found[plot.dataset.figure] = {
      width: box.width,
      n_words: words.length,
      cut: words.filter(isCut).map((node) => node.textContent),
      axis: Math.max(...layout._subplots.xaxis.map((name) => layout[name.replace("x", "xaxis")]._length)),
    };
  }
  return found;
})()"""


def renamed(run: Path, old: str, new: str) -> Path:
    """A run in which an arm has another name."""
    for path in sorted(run.rglob("*.json*")):
        path.write_text(path.read_text("utf-8").replace(json.dumps(old), json.dumps(new)), "utf-8")
        path.rename(path.with_name(path.name.replace(old, new)))
    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["good", "a_control_that_has_a_name_of_many_words.seed-10"])
def test_on_a_phone_no_word_of_a_figure_is_cut_and_data_have_room(tab: Tab, tmp_path: Path, name: str) -> None:
    run = renamed(planted_run(tmp_path / "run", rate=0.3, shift=0.2), "good", name)
    write(run / "probes" / "detect.json", planted_detection())
    tab.size(390, 900)
    tab.open(build_report(run))
    tab.draw()
    found = tab.run(PHONE)
    assert set(found) == set(figures(load_contents(run)))
    for figure, one in found.items():
        assert one["n_words"] > 3 and one["width"] <= 390, figure
        assert one["cut"] == [], (figure, one["cut"])
        assert one["axis"] >= 210, (figure, one["axis"])


@pytest.mark.slow
def test_on_a_phone_what_is_said_below_a_table_is_read_without_scrolling_and_long_rows_become_blocks(
    tab: Tab, tmp_path: Path
) -> None:
    run = planted_run(tmp_path / "run", rate=0.3, shift=0.2)
    write(run / "probes" / "detect.json", planted_detection())
    tab.size(390, 900)
    tab.open(build_report(run))
    found = tab.run("""(() => {
      document.querySelectorAll("#further details").forEach((one) => { one.open = true; });
      const frames = [...document.querySelectorAll("main .scroll")], wide = frames.filter((one) => one.scrollWidth > one.clientWidth);
      wide.forEach((one) => { one.scrollLeft = one.scrollWidth; });
      const inView = (node) => { const at = node.getBoundingClientRect(); return at.width > 200 && at.left >= 0 && at.right <= 390; };
      return {
        n_wide: wide.length,
        captions: frames.map((one) => one.querySelector("caption")).filter((one) => one && one.offsetParent).map(inView),
        first: wide.filter((one) => one.parentElement.tagName === "SECTION")
          .map((one) => one.querySelector("tbody td").getBoundingClientRect().left),
        further: [...document.querySelectorAll("#further details:not(.numbers) .scroll")].map((one) => one.scrollWidth - one.clientWidth),
      };
    })()""")
    assert found["n_wide"] > 2 and found["captions"] and all(found["captions"])
    assert found["first"] and all(0 <= left <= 30 for left in found["first"]), "the arm's name stays"
    assert found["further"] and max(found["further"]) <= 0


@pytest.mark.slow
def test_files_of_the_page_say_what_python_says(tab: Tab, page: Path, contents: Contents) -> None:
    script = """(async () => {
      const found = { csv: {} };
      for (const [name, figure] of Object.entries(Figures.all())) found.csv[name] = Figures.csv(figure.layout.meta.table);
      found.svg = await Figures.picture(Figures.all().rates, 1);
      found.buttons = [...document.querySelectorAll(".tools")].map((one) => one.textContent);
      const select = document.querySelector("#figure-margin_groups select"), heading = document.querySelector("#title-margin_groups");
      found.before = heading.textContent;
      select.value = "1";
      select.dispatchEvent(new Event("change", { bubbles: true }));
      found.after = heading.textContent;
      const details = document.querySelector("#figure-margins details");
      details.open = true;
      await new Promise((done) => setTimeout(done, 200));
      found.rows = details.querySelectorAll("tbody tr").length;
      const words = (plot, name) => document.getElementById(plot.getAttribute(name)).textContent.length;
      const plots = [...document.querySelectorAll(".plot")];
      found.described = plots.every((plot) => words(plot, "aria-describedby") > 40 && words(plot, "aria-labelledby") > 20);
      return found;
    })()"""
    tab.size(1200, 900)
    tab.open(page)
    tab.draw()
    tab.run(script_parts("figures.js"))  # the page's own stands in a scope of its own
    found = tab.run(script)
    drawn = figures(contents)
    for name, figure in drawn.items():
        table = words_of(figure)["table"]
        own = list(csv.reader(found["csv"][name].splitlines()))
        python = list(csv.reader(csv_text(table["columns"], table["rows"]).splitlines()))
        assert len(own) == len(python), name
        for line, other in zip(own, python, strict=True):
            for one, two in zip(line, other, strict=True):
                assert one == two or float(one) == float(two), (name, one, two)
    assert found["buttons"] == ["CSVSVGPNG"] * len(drawn)
    assert "bad − good" in found["before"] and "bad − base" in found["after"]
    assert found["rows"] == len(words_of(drawn["margins"])["table"]["rows"])
    assert found["described"] is True
    picture = ET.fromstring(found["svg"])
    words = [node.text or "" for node in picture.findall(f"{SVG}text")]
    assert " ".join(words).startswith(words_of(drawn["rates"])["title"])
    assert words_of(drawn["rates"])["caption"] in " ".join(words)


@pytest.mark.slow
def test_every_figure_becomes_one_picture_and_one_table(contents: Contents, tmp_path: Path) -> None:
    drawn = figures(contents)
    made = write_figures(drawn, tmp_path / "out", "svg")
    assert sorted(path.name for path in made) == sorted(f"{name}.{end}" for name in drawn for end in ("csv", "svg"))
    assert all(path.stat().st_size > 30 for path in made)
    for name, figure in drawn.items():
        picture = ET.fromstring((tmp_path / f"out/{name}.svg").read_text("utf-8"))
        title = words_of(figure)["title"]
        assert picture.findtext(f"{SVG}title") == title and picture.get("width") == "900", name
        assert " ".join(node.text or "" for node in picture.findall(f"{SVG}text")).startswith(title), name
        with (tmp_path / f"out/{name}.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) == 1 + len(words_of(figure)["table"]["rows"]), name


@pytest.mark.slow
def test_a_pdf_is_one_page_of_the_figure_s_size(contents: Contents, tmp_path: Path) -> None:
    write_figures({"loss": figures(contents)["loss"]}, tmp_path, "pdf")
    data = (tmp_path / "loss.pdf").read_bytes()
    assert data.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", data)) == 1
    size = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", data)
    assert size and float(size[1]) == pytest.approx(900 * 0.75, abs=1) and float(size[2]) < 500


@pytest.mark.slow
def test_hostile_names_do_nothing_in_pictures(tmp_path: Path) -> None:
    run, everything = write_run(tmp_path / "run"), HOSTILE_STRINGS[0] + "</text></svg><script>alert(1)</script>&amp;]]>"
    path = run / "analysis/margins.json"
    path.write_text(path.read_text().replace('"power"', json.dumps(everything)), "utf-8")
    drawn = figures(load_contents(run))
    write_figures({"margin_groups": drawn["margin_groups"]}, tmp_path / "out", "svg")
    picture = ET.fromstring((tmp_path / "out/margin_groups.svg").read_text("utf-8"))
    names = {node.tag for node in picture.iter()}
    assert not names & {f"{SVG}{tag}" for tag in ("script", "foreignObject", "image", "a")}
    assert not [key for node in picture.iter() for key in node.attrib if key.startswith("on")]
    assert "alert(1)" in "".join(picture.itertext())
