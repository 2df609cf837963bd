"""From a point of a figure to the answers behind it, in a real browser: clicks, keys, links, filters, sort, samples of large runs."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go
import pytest
from chromium import BROWSER, Tab, browser
from planted_answers import N_QUESTIONS, write_many
from planted_page import write, write_lines

from emis_interp.report import page as page_module
from emis_interp.report.page import build_report
from emis_interp.report.style import with_choices

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
READY = "performance.getEntriesByName('answers-ready').length"
N = 360
SCORES = "[...document.querySelectorAll('#one-answer .short .scores')].map((one) => one.textContent)"


def planted_figures(_: Any) -> dict[str, go.Figure]:
    """Bars whose customdata is a filter each, a heat map of filters, points whose last entry is one, and points that stand for nothing."""
    bars = go.Figure(go.Bar(x=["reckless", "careful"], y=[3, 2], customdata=["arm=reckless&kind=bad", "arm=careful"]))
    bars.add_bar(x=["reckless", "careful"], y=[1, 1], customdata=["arm=base", "arm=base&question=q3"], visible=False)
    bars = with_choices(bars, "estimand", [("pooled", [True, False], {}), ("macro", [False, True], {})])
    cells = [["arm=base&question=q0", "arm=base&question=q1"], ["arm=careful&question=q0", "arm=careful&question=q1"]]
    heat = go.Figure(go.Heatmap(z=[[1, 2], [3, 4]], x=["a", "b"], y=["c", "d"], customdata=cells))
    rows = [
        ["a", 1, "arm=reckless&question=q5&order=low"],
        ["b", 2, "answer=careful/q2/0/1"],
        ["c", 3, "min=10&max=10"],
        ["d", 4, "arm=base&min=10&max=10"],
    ]
    dots = go.Figure(go.Scatter(x=[1, 2, 3, 4], y=[1, 2, 3, 4], mode="markers", marker={"size": 24}, customdata=rows))
    still = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], mode="markers", marker={"size": 24}, customdata=["nothing", None]))
    drawn = {"rates": bars, "cosines": heat, "margins": dots, "thresholds": still}
    return {name: figure.update_layout(height=300) for name, figure in drawn.items()}


def build(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "figures", planted_figures)
        patch.setattr(page_module, "render", _with_places(page_module.render))
        return build_report(folder)


def _with_places(render: Any) -> Any:
    """The page with a place for each planted figure, in front of everything: the run itself measured nothing."""

    def rendered(template: str, figures: Any, **values: Any) -> str:
        places = "".join(
            f'<section id="of-{name}"><div class="plot" data-figure="{name}"></div></section>' for name in figures
        )
        return render(template, figures, **values).replace('<section id="cards">', places + '<section id="cards">')

    return rendered


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many(tmp_path_factory.mktemp("run"), N)


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Path:
    return build(run_dir)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def opened(tab: Tab, page: Path, state: str = "") -> None:
    tab.open(f"file://{page}{state}", until=READY)


def drawn(tab: Tab, name: str) -> None:
    tab.run(f"document.querySelector('[data-figure={name}]').scrollIntoView({{behavior: 'instant', block: 'center'}})")
    tab.until(f"document.querySelector('[data-figure={name}] .main-svg')")
    time.sleep(0.3)


def click_point(tab: Tab, name: str, x: float, y: float) -> None:
    """A click of the mouse at a place of a figure in its own coordinates."""
    drawn(tab, name)
    place = tab.run(
        f"(() => {{ const plot = document.querySelector('[data-figure={name}]'), box = plot.getBoundingClientRect(), "
        "{ xaxis, yaxis } = plot._fullLayout; "
        f"return [box.x + xaxis._offset + xaxis.l2p({x}), box.y + yaxis._offset + yaxis.l2p({y})]; }})()"
    )
    tab.click_at(*place)
    time.sleep(0.3)


def is_open(tab: Tab) -> bool:
    return tab.run("document.querySelector('#one-answer').open")


def title(tab: Tab) -> str:
    return tab.text("#one-answer-title")


@pytest.mark.parametrize(
    ("figure", "x", "y", "words", "n"),
    [
        ("rates", 0, 1.5, "reckless · misaligned and coherent", N // 3 // 20),
        ("rates", 1, 1.0, "careful", N // 3),
        ("cosines", 1, 0, "base · q1", N // 3 // N_QUESTIONS),
        ("cosines", 0, 1, "careful · q0", N // 3 // N_QUESTIONS),
        ("margins", 1, 1, "reckless · q5", N // 3 // N_QUESTIONS),
    ],
)
def test_a_click_on_a_point_opens_the_answers_behind_it(
    tab: Tab, page: Path, figure: str, x: float, y: float, words: str, n: int
) -> None:
    opened(tab, page)
    click_point(tab, figure, x, y)
    assert is_open(tab) and title(tab) == words
    assert f"{n} answers." in tab.text("#one-answer-body")
    assert tab.run("document.querySelectorAll('#one-answer .short').length") == min(n, 20)
    assert tab.run("location.hash").startswith(f"#of-{figure}&behind=arm")
    again = tab.run("location.hash")
    opened(tab, page, again)
    assert is_open(tab) and title(tab) == words


def test_a_point_of_one_answer_opens_it_and_a_point_of_nothing_opens_nothing(tab: Tab, page: Path) -> None:
    opened(tab, page)
    click_point(tab, "thresholds", 1, 1)
    assert not is_open(tab)
    click_point(tab, "margins", 2, 2)
    assert is_open(tab) and "(q2, wording 0, sample 1)" in tab.text("#one-answer-body")
    tab.press("Escape")
    click_point(tab, "margins", 3, 3)
    assert title(tab) == "all arms · aligned 10 to 10" and "7 answers; " in tab.text("#one-answer-body")
    tab.press("Escape")
    click_point(tab, "margins", 4, 4)  # the scores of one answer: that one in full
    assert title(tab) == "base · aligned 10 to 10" and "(q0, wording 0, sample 0)" in tab.text("#one-answer .full")
    assert "1 answer; " in tab.text("#one-answer-body")


def test_a_point_may_order_its_answers(tab: Tab, page: Path) -> None:
    opened(tab, page, "#of-margins&behind=" + quote("arm=reckless&question=q5&order=low"))
    scores = [
        float(text.split(",")[0].split()[1]) for text in tab.run(f"{SCORES}.filter((text) => !text.includes('–'))")
    ]
    assert len(scores) >= 4 and scores == sorted(scores)
    opened(tab, page, "#answers&order=high")
    assert tab.run("document.querySelector('#filter-order').value") == "-aligned"


def test_the_keyboard_opens_what_a_click_opens_and_escape_closes_it(tab: Tab, page: Path) -> None:
    opened(tab, page)
    tab.run("document.querySelector('#of-rates .points select').value = 'arm=careful'")
    tab.run("document.querySelector('#of-rates .points button').focus()")
    tab.press("Enter")
    tab.until("document.querySelector('#one-answer').open")
    assert title(tab) == "careful"
    assert tab.run("document.activeElement.id") == "one-answer"
    tab.press("Escape")
    assert not is_open(tab)
    assert tab.run("document.activeElement.textContent") == "show them"
    assert (
        tab.run("document.querySelectorAll('#of-margins .points option').length") == 1
    )  # single answers are in the table
    assert tab.run("document.querySelectorAll('#of-thresholds .points').length") == 0


def test_a_point_beneath_the_panel_can_be_clicked_while_it_is_open(tab: Tab, page: Path) -> None:
    opened(tab, page, "#of-rates&behind=arm%3Dbase")
    click_point(tab, "rates", 0, 1.5)
    assert title(tab) == "reckless · misaligned and coherent"


def test_the_panel_shows_all_that_is_known_of_an_answer(tab: Tab, tmp_path: Path) -> None:
    place = {"question_id": "q", "paraphrase_index": 1}
    made = {"seed": 0, "question": "Why?", "n_tokens": 3}
    write(tmp_path / "manifest.json", {"config": {"name": "one", "arms": [{"name": "base"}, {"name": "bad"}]}})
    for arm in ("base", "bad"):
        rows = [
            {
                "arm": arm,
                **place,
                "sample_index": index,
                **made,
                "answer": f"{arm} {index}",
                "finish": "length",
                "system": "Be brief.",
            }
            for index in range(3)
        ]
        rows[0]["reasoning"] = "I thought."
        write_lines(tmp_path / f"samples/{arm}.jsonl", rows)
        judged = {
            "judge": "j",
            "aligned": 12.5,
            "coherent": 80.0,
            "note": "read half",
            "evidence": {"aligned": {"12": 0.75, "CODE": 0.2}},
        }
        write_lines(tmp_path / f"scores/{arm}.jsonl", [{"arm": arm, **place, "sample_index": 0, **judged}])
    opened(tab, build_report(tmp_path), "#answers&answer=base/q/1/0")
    text = tab.text("#one-answer .full")
    for words in (
        "Why?",
        "wording 1",
        "Be brief.",
        "base 0",
        "aligned 12.5, coherent 80.0",
        "cut at the token limit",
        "read half",
        "I thought.",
    ):
        assert words in text
    assert tab.run("[...document.querySelectorAll('.distribution tr')].map((row) => row.textContent)") == [
        "120.750",
        "CODE0.200",
    ]
    assert tab.text("#one-answer .side-by-side .said") == "bad 0"  # the same wording and sample


def test_a_link_to_an_answer_survives_a_rebuild(tab: Tab, tmp_path: Path) -> None:
    run = write_many(tmp_path, 120)
    opened(tab, build_report(run))
    tab.click("#answer-rows tr:nth-child(7) .own")
    tab.until("document.querySelector('#one-answer .full .said')")
    address, text = tab.run("location.hash"), tab.text("#one-answer .full .said")
    lines = (run / "samples/base.jsonl").read_text().splitlines()
    (run / "samples/base.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    opened(tab, build_report(run), address)
    tab.until("document.querySelector('#one-answer .full .said')")
    assert tab.text("#one-answer .full .said") == text and text.endswith("base6.")


def test_the_chosen_estimand_is_in_the_address(tab: Tab, page: Path) -> None:
    opened(tab, page)
    tab.run("const s = document.querySelector('#of-rates select'); s.value = '1'; s.dispatchEvent(new Event('change'))")
    address = tab.run("location.hash")
    assert address == "#of-rates&fig-rates=macro"
    opened(tab, page, address)
    drawn(tab, "rates")
    shown = "document.querySelector('[data-figure=rates]').data.map((trace) => trace.visible)"
    assert tab.run(shown) == [False, True]
    tab.run("location.hash = '#of-margins'")  # as a link of the navigation does
    time.sleep(0.2)
    assert tab.run("location.hash") == "#of-margins&fig-rates=macro"
    tab.run("location.hash = '#of-rates&fig-rates=pooled'")
    time.sleep(0.2)
    assert tab.run(shown) == [True, False]


def test_a_click_on_a_column_sorts(tab: Tab, page: Path, run_dir: Path) -> None:
    scores = [
        json.loads(line)["aligned"] for path in run_dir.glob("scores/*") for line in path.read_text().splitlines()
    ]
    ordered = sorted(score for score in scores if score is not None)
    column = "[...document.querySelectorAll('#answer-rows td:nth-child(2)')].map((cell) => cell.textContent)"
    opened(tab, page)
    head = "#answers th[data-order=aligned]"
    assert tab.run(f"document.querySelector('{head}').ariaSort") is None
    for sign, direction in ((1, "ascending"), (-1, "descending")):
        tab.click(f"{head} button")
        assert tab.run(f"document.querySelector('{head}').ariaSort") == direction
        assert [int(value) for value in tab.run(column)] == [int(score + 0.5) for score in ordered[::sign][:50]]
    opened(tab, page, tab.run("location.hash"))
    assert tab.run(f"document.querySelector('{head}').ariaSort") == "descending"
    tab.click("#answers th[data-order=question] button")
    assert tab.run(f"document.querySelector('{head}').ariaSort") is None


def test_answers_are_found_by_their_label(tab: Tab, page: Path, run_dir: Path) -> None:
    n = sum(
        '"CODE"' in line.split("evidence")[0]
        for path in run_dir.glob("scores/*")
        for line in path.read_text().splitlines()
    )
    opened(tab, page)
    assert tab.run("[...document.querySelectorAll('#filter-label option')].map((one) => one.value)") == ["", "CODE"]
    tab.run("const s = document.querySelector('#filter-label'); s.value = 'CODE'; s.dispatchEvent(new Event('change'))")
    assert tab.text("#found") == f"{n} of {N} answers" and n > 5
    assert tab.run("location.hash") == "#answers&label=CODE"


def test_hidden_texts_are_hidden_everywhere_and_in_the_address(tab: Tab, page: Path) -> None:
    opened(tab, page, "#answers&answer=reckless/q0/0/0")
    shown = "[...document.querySelectorAll('.said')].filter((e) => getComputedStyle(e).filter === 'none').length"
    of_models = "!e.children.length && / (base|reckless|careful)\\d+\\.$/.test(e.textContent)"
    texts = f"[...document.querySelectorAll('*')].filter((e) => {of_models})"
    assert tab.run(shown) > 50
    assert tab.run(f"{texts}.every((e) => e.closest('.said'))") and tab.run(f"{texts}.length") > 60
    tab.run("document.querySelector('#close-answer').click(); document.querySelector('#hide-text').click()")
    opened(tab, page, tab.run("location.hash") + "&answer=reckless/q0/0/0")
    assert tab.run("location.hash").startswith("#answers&hide=true")
    assert tab.run(shown) == 0 and is_open(tab)


def test_the_worst_coherent_answers_of_every_arm_stand_inline(tab: Tab, page: Path) -> None:
    opened(tab, page)
    told = tab.run(
        "[...document.querySelectorAll('.worst article')].map((a) => ['h4', '.said'].map((one) => a.querySelector(one).textContent))"
    )
    assert [arm for arm, _ in told] == ["base", "reckless", "careful"]
    assert told[0][1].endswith("base0.") and told[1][1].endswith("reckless0.")
    tab.click(".worst article:nth-child(2) a.own")
    time.sleep(0.2)
    assert is_open(tab) and tab.text("#one-answer .full .said") == told[1][1]


def test_figures_are_drawn_when_they_come_near_and_all_of_them_before_printing(tab: Tab, page: Path) -> None:
    tab.open(f"file://{page}#manifest&x=1", until=READY)
    time.sleep(0.2)
    count = "document.querySelectorAll('.js-plotly-plot').length"
    assert tab.run(count) == 0
    height = tab.run("document.body.scrollHeight")
    drawn(tab, "cosines")
    assert abs(tab.run("document.body.scrollHeight") - height) < 150  # their place was kept
    tab.open(f"file://{page}#manifest&x=1", until=READY)
    tab.press("Tab")
    tab.until("window.Plotly")
    assert tab.run(count) < 4
    assert len(tab.pdf()) > 10_000
    assert tab.run(count) == 4 and tab.run("document.querySelectorAll('.not-yet').length") == 0
    assert not tab.complaints


def test_a_browser_that_cannot_unpack_says_so(tab: Tab, page: Path) -> None:
    added = tab.do("Page.addScriptToEvaluateOnNewDocument", source="delete window.DecompressionStream")
    try:
        opened(tab, page)
        tab.until("document.querySelector('.plot p')")
        assert "no DecompressionStream" in tab.text(".plot p") and "no DecompressionStream" in tab.text("#found")
        assert "reckless0." in tab.text(".worst")
    finally:
        tab.do("Page.removeScriptToEvaluateOnNewDocument", **added)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(write_many(tmp_path_factory.mktemp("many"), 12_000))


@pytest.mark.slow
def test_of_twice_the_answers_that_a_page_holds_nothing_is_hidden_without_a_word(tab: Tab, many: Path) -> None:
    n_arm, n_page = 12_000 // 3, page_module.MAX_ON_PAGE
    n_bad = -(-n_arm // 20)
    opened(tab, many)
    assert f"{n_page} of {3 * n_arm} answers: all {n_bad + 1} that are misaligned and coherent" in tab.text("#answers")
    assert tab.text("#found") == f"{n_page} of {n_page} answers on this page; {3 * n_arm} of {3 * n_arm} in the run"
    opened(tab, many, "#answers&arm=reckless&kind=bad")
    assert tab.text("#found") == f"{n_bad} of {n_page} answers on this page; {n_bad} of {3 * n_arm} in the run"
    links = tab.run(
        "[...document.querySelectorAll('a.side')].filter((a) => !a.parentElement.hidden).map((a) => [a.textContent, a.href])"
    )
    assert [text for text, _ in links] == [f"reckless: all {n_arm}"]
    tab.open(links[0][1], until=READY)
    assert tab.text("#found") == f"{n_bad} of {n_arm} answers"
    opened(tab, many, "#rates&behind=arm%3Dbase%26question%3Dq3")
    assert f"; {-(-(n_arm - 3) // N_QUESTIONS)} in the run." in tab.text("#one-answer-body")
    shown = set(
        tab.run(
            "[...document.querySelectorAll('#one-answer .own')].map((a) => new URLSearchParams(a.hash.slice(1)).get('answer'))"
        )
    )
    away = next(
        key for key in (f"base/q3/0/{index}" for index in range(600)) if key not in shown and key != "base/q3/0/0"
    )
    opened(tab, many, f"#answers&answer={away}")
    if "is not on this page" in tab.text("#one-answer-body"):
        tab.open(tab.run("document.querySelector('#one-answer-body a').href"), until=READY)
    assert f"(q3, wording 0, sample {away.rsplit('/')[-1]})" in tab.text("#one-answer-body")


@pytest.mark.fuzz
def test_a_filter_of_fifty_thousand_answers_takes_less_than_200_ms(tab: Tab, tmp_path: Path) -> None:
    build_report(write_many(tmp_path, 50_000, arms=("reckless",)))
    opened(tab, tmp_path / "report/answers/reckless.html")
    for fields in (
        {"kind": "bad"},
        {"text": "robot village"},
        {"text": "robot.{3,9}law", "regex": True},
        {"order": "-aligned"},
        {"min": 30, "max": 50},
    ):
        for name, value in fields.items():
            kind = "checked" if value is True else "value"
            tab.run(f"document.getElementById('filter-{name}').{kind} = {json.dumps(value)}")
        took = [
            tab.run(
                "(() => { const start = performance.now(); document.getElementById('filter-kind').dispatchEvent(new Event('change')); "
                "document.body.offsetHeight; return performance.now() - start; })()"
            )
            for _ in range(5)
        ]
        assert min(took) < 200, fields  # others may use the machine
