"""What stands around a page: commands without places of the machine, relative links, and the pages that are there."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from emis_interp.config.flags import flag, settings
from emis_interp.report.page_frame import (
    MARK,
    Frame,
    command_of,
    folder_name,
    frame_of,
    link_to,
    minute,
    page_title,
    shown_facts,
    told_apart,
    without_machine_paths,
)
from emis_interp.report.settings import PageSettings


@settings
class Addressed:
    url: str = flag("of a server")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/runs/laptop", "…/laptop"),
        ("~/runs/laptop", "…/laptop"),
        ("from /mnt/a/b.json, layer 3", "from …/b.json, layer 3"),
        ("'/home/me/x'", "'…/x'"),
        ("--out=/home/me/x.html", "--out=…/x.html"),
        ("/home/me/models/qwen/qwen-0.5b/", "…/qwen-0.5b/"),
        *(
            (same, same)
            for same in (
                "runs/laptop",
                "Qwen/Qwen2.5-0.5B",
                "a / b",
                "0.21/0.30",
                "either/or",
                "https://host/a/b",
                "</x></y>",
                "./x/y",
            )
        ),
    ],
)
def test_places_of_the_machine_are_said_by_their_last_part(text: str, shown: str) -> None:
    assert without_machine_paths(text) == shown


def test_places_with_one_last_part_keep_as_many_as_tell_them_apart() -> None:
    seed, other, control = (
        f"/home/me/o/{name}/adapter" for name in ("insecure/seed-0", "insecure/seed-1", "secure/seed-0")
    )
    facts = {"organism": seed, "control": control, "other": other, "again": seed, "SAE": "/home/me/sae", "of": "base"}
    assert shown_facts(facts) == {
        "organism": "…/insecure/seed-0/adapter",
        "control": "…/secure/seed-0/adapter",
        "other": "…/seed-1/adapter",
        "again": "…/insecure/seed-0/adapter",
        "SAE": "…/sae",
        "of": "base",
    }
    assert told_apart(["/a/x", "/b/x", "~/x"]) == ["…/x", "…/x", "…/x"]  # the first part is never told


def test_a_command_says_what_was_given_and_nothing_that_only_this_machine_knows() -> None:
    given = PageSettings(run_dir=Path("/home/me/runs/a b"), others=(Path("runs/c d"),), out=Path("x.html"))
    assert (
        command_of("scripts/build_report.py", given) == "python scripts/build_report.py '…/a b' 'runs/c d' --out x.html"
    )
    secret = command_of("scripts/judge.py", Addressed(url="https://me:word@host/x"))
    assert secret == "python scripts/judge.py --url https://host/x"
    assert (
        command_of("scripts/build_report.py", PageSettings(index=Path("runs")))
        == "python scripts/build_report.py --index runs"
    )


@pytest.mark.parametrize(
    "name", ["javascript:alert(1).html", "a b#c?d%20.html", "“quoted” &amp;.html", 'x" onclick="y.html']
)
def test_a_link_is_relative_and_leads_back_to_its_file_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    link = link_to(tmp_path / "one" / name, tmp_path / "two" / "page.html")
    assert link.startswith("../one/") and not set(link) & set(' "<>#?&:')
    assert (tmp_path / "two" / unquote(link)).resolve() == (tmp_path / "one" / name).resolve()


def ours(path: Path, title: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{MARK}<title>{title}</title>")
    return path


def test_the_list_of_runs_and_the_report_come_first_and_folders_of_activations_are_not_searched(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    page = ours(run / "analysis" / "transfer.html", "this")
    (run / "manifest.json").write_text("{}")
    for path, title in (
        ("analysis/b.html", "b"),
        ("report/index.html", "report"),
        ("activations/x.html", "no"),
        ("1/2/3/4.html", "deep"),
    ):
        ours(run / path, title)
    ours(run.parent / "compare.html", "compare")
    ours(run.parent / "index.html", "list &amp; more")
    ours(run.parent / "b" / "report" / "index.html", "another run")
    frame = frame_of(page, "c", page.with_suffix(".json"))
    assert [link.text for link in frame.links] == ["list & more", "report", "deep", "b", "compare"]
    assert frame.links[1].href == "../report/index.html" and [link.href for link in frame.numbers] == ["transfer.json"]


def test_of_very_many_pages_some_are_linked_and_the_rest_is_counted(tmp_path: Path) -> None:
    for i in range(20):
        ours(tmp_path / f"{i}.html", str(i))
    frame = frame_of(tmp_path / "page.html")
    assert len(frame.links) == 12 and frame.n_more == 8 and Frame().links == ()


def test_titles_are_read_short_and_only_from_pages_of_the_family(tmp_path: Path) -> None:
    assert page_title(ours(tmp_path / "long.html", "W" * 4000)) == "W" * 79 + "…"
    (tmp_path / "foreign.html").write_text("<title>x</title>")
    assert page_title(tmp_path / "foreign.html") is None and page_title(tmp_path / "none.html") is None


def test_runs_of_one_name_have_their_parents_before_it() -> None:
    here, there = Path("/x/here/run"), Path("/x/there/run")
    assert folder_name(here, [here, there]) == "here/run" and folder_name(here, [here, Path("/x/other")]) == "run"
    assert minute("2026-11-29T22:36:27+00:00") == "2026-11-29 22:36" and minute(None) == "–"
