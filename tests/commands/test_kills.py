"""Runs that are killed at random instants, and go on with the same command, end as an undisturbed run does.

`EMIS_KILLS` says how many kills (default 6), with a sixth as many single ones and stops of each kind; `EMIS_KILLS_SEED` which instants;
`EMIS_KILLS_RUN=smoke` takes the whole preset in place of a run of two arms, `EMIS_KILLS_RUN=embedded` the embedded model. `-s` shows where
the kills fell.
"""

import json
import os
import random
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from judge_server import Server, reply
from killing import PATIENCE_S, Attempt, Start, Warm, differences, stage_under_way, started
from small_run import SETTINGS

from emis_interp.files.temporary import leftovers

N = int(os.environ.get("EMIS_KILLS", "6"))
N_FEW = max(1, N // 6)
SEED = int(os.environ.get("EMIS_KILLS_SEED", "0"))
RUN = os.environ.get("EMIS_KILLS_RUN", "small")
LONGEST_S = 3600.0
AT_ONCE = 20
"""Kills that fall into the work of one folder before it is done, about."""
pytestmark = [pytest.mark.fuzz, pytest.mark.slow]


@dataclass(frozen=True)
class Subject:
    """`words` of a run without its folder, the folder of an undisturbed one, and the seconds that this took."""

    words: tuple[str, ...]
    reference: Path
    seconds: float


def words_of(run: str, url: str) -> tuple[str, ...]:
    if run == "smoke":
        return ("--preset", "smoke")
    judge = ("--judge-url", url, "--judge-model", "m")
    few = tuple(word for value in SETTINGS for word in ("--set", value))
    model = ("--set", "model=smollm2-135m-instruct") if run == "embedded" else ()
    return ("--preset", "smoke", *judge, *few, *model)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    found = Warm()
    assert found(["--help"], tmp_path_factory.mktemp("warm")).ended(LONGEST_S) == 0  # the imports
    return found


@pytest.fixture(scope="module")
def subject(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    server, place = Server(), tmp_path_factory.mktemp("undisturbed")
    server.respond = lambda prompt, _: reply({"20": 0.6, "40": 0.3})
    words = words_of(RUN, server.url)
    begun = time.monotonic()
    whole(warm, (*words, "--run-dir", str(place / "run")), place)
    seconds = time.monotonic() - begun
    say(f"an undisturbed run: {seconds:.1f} s")
    yield Subject(words, place / "run", seconds)
    server.close()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def whole(start: Start, words: tuple[str, ...], beside: Path) -> Attempt:
    """Lets a run go to its end."""
    attempt = start(words, beside)
    status = attempt.ended(LONGEST_S)
    assert status == 0 and "Traceback" not in attempt.text(), attempt.text()[-3000:]
    assert list(attempt.scratch.iterdir()) == []
    assert not attempt.survivors()
    return attempt


def killed(attempt: Attempt, after_s: float, number: int = signal.SIGKILL) -> bool:
    """Sends the signal after so many seconds; False when the run ended first, which it must have done well."""
    status = attempt.ended(after_s)
    if status is not None:
        assert status == 0 and "Traceback" not in attempt.text(), attempt.text()[-3000:]
        return False
    os.kill(attempt.pid, number)
    return True


def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(subject: Subject, warm: Warm, tmp_path: Path) -> None:
    """Each folder is killed until it is done; then the next one."""
    draw, fell, n_folders = random.Random(f"chain {SEED}"), Counter[str](), 0
    while fell.total() < N:
        folder = tmp_path / f"run-{n_folders}"
        words = (*subject.words, "--run-dir", str(folder))
        alive = True
        while alive and fell.total() < N:
            attempt = warm(words, tmp_path)
            if draw.random() < 0.7:  # the others fall into the start too
                attempt.spoke(LONGEST_S)
            alive = killed(attempt, draw.uniform(0, 2 * subject.seconds / AT_ONCE))
            if alive:
                assert attempt.ended(PATIENCE_S) == -signal.SIGKILL and not attempt.survivors()
                fell[stage_under_way(folder, attempt.text())] += 1
                assert "Traceback" not in attempt.text(), attempt.text()[-3000:]
        if alive:
            whole(warm, words, tmp_path)
        assert differences(subject.reference, folder) == []
        n_folders += 1
        say(f"{folder.name} ended as the undisturbed one; so far {dict(fell)}")
    say(f"{fell.total()} kills in {n_folders} folders: {dict(fell)}")


@pytest.mark.parametrize("own_process", [False, True], ids=["forked", "own_process"])
def test_a_run_killed_once_ends_as_an_undisturbed_one(
    subject: Subject, warm: Warm, tmp_path: Path, own_process: bool
) -> None:
    """The instants are spread evenly over the time of an undisturbed run."""
    start: Start = started if own_process else warm
    draw, fell = random.Random(f"single {SEED}"), Counter[str]()
    while fell.total() < N_FEW:
        folder = tmp_path / f"run-{fell.total()}-{draw.random()}"
        words = (*subject.words, "--run-dir", str(folder))
        attempt = start(words, tmp_path)
        if killed(attempt, draw.uniform(0, subject.seconds)):
            assert attempt.ended(PATIENCE_S) == -signal.SIGKILL and not attempt.survivors()
            fell[stage_under_way(folder, attempt.text())] += 1
            whole(start, words, tmp_path)
        assert differences(subject.reference, folder) == []
    say(f"{fell.total()} single kills: {dict(fell)}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_stopped_at_any_instant_says_how_it_goes_on_and_leaves_nothing(
    subject: Subject, warm: Warm, tmp_path: Path, number: int, status: int
) -> None:
    draw, fell, slowest, n_folders = random.Random(f"stop {number} {SEED}"), Counter[str](), 0.0, 0
    while fell.total() < N_FEW:
        folder = tmp_path / f"run-{n_folders}"
        words = (*subject.words, "--run-dir", str(folder))
        alive = True
        while alive and fell.total() < N_FEW:
            attempt = warm(words, tmp_path)
            attempt.spoke(LONGEST_S)
            alive = killed(attempt, draw.uniform(0, 2 * subject.seconds / AT_ONCE), number)
            if alive:
                stopped = time.monotonic()
                ended = attempt.ended(4 * PATIENCE_S)
                slowest = max(slowest, time.monotonic() - stopped)
                text = attempt.text()
                assert ended == status and "Traceback" not in text, (ended, text[-3000:])
                assert shlex.split(text.strip().splitlines()[-1])[1:] == ["scripts/run_pipeline.py", *words]
                assert not attempt.survivors() and leftovers(folder) == [] and list(attempt.scratch.iterdir()) == []
                fell[stage_under_way(folder, text)] += 1
        if alive:
            whole(warm, words, tmp_path)
        assert differences(subject.reference, folder) == []
        n_folders += 1
        say(f"{folder.name} ended as the undisturbed one; so far {dict(fell)}")
    say(f"{fell.total()} stops by signal {number} in {n_folders} folders, the slowest {slowest:.1f} s: {dict(fell)}")
    assert slowest < PATIENCE_S


def test_a_planted_difference_and_a_planted_leftover_are_found(subject: Subject, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(subject.reference, folder)
    assert differences(subject.reference, folder) == []
    rates = folder / "analysis" / "rates.json"
    figures = json.loads(rates.read_text())
    figures["arms"][0]["n"] += 1
    rates.write_text(json.dumps(figures))
    (folder / "samples" / ".x.jsonl.99999999-01234567.part").write_text("{")
    found = "\n".join(differences(subject.reference, folder))
    assert "analysis/rates.json: arms.0.n" in found and "samples/.x.jsonl" in found and "changed: analysis" in found
