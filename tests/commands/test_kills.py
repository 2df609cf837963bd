"""Runs that are killed or stopped at random instants, and go on with the same command, end as an undisturbed run does.

`EMIS_KILLS` says how many kills (default 6), a third as many stops beside them, and a sixth as many single kills; `EMIS_KILLS_SEED` which
instants; `EMIS_KILLS_RUN=smoke` takes the whole preset in place of a run of two arms, `EMIS_KILLS_RUN=embedded` the embedded model. `-s`
shows where they fell.
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
from killing import PATIENCE_S, Attempt, Start, differences, stage_under_way, started, warm
from small_run import SmallRun

from emis_interp.files.manifest import Manifest
from emis_interp.files.temporary import leftovers

N = int(os.environ.get("EMIS_KILLS", "6"))
N_FEW = max(1, N // 6)
SEED = int(os.environ.get("EMIS_KILLS_SEED", "0"))
RUN = os.environ.get("EMIS_KILLS_RUN", "small")
LONGEST_S = 3600.0
STOPPED: dict[signal.Signals, int] = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
"""The exit status after each signal."""
SOON = 0.15
"""Most signals come within this part of the work of a whole run, after it went on."""
pytestmark = [pytest.mark.fuzz, pytest.mark.slow]


@dataclass(frozen=True)
class Subject:
    """`words` of a run without its folder, the folder of an undisturbed one, and the seconds that this computed."""

    words: tuple[str, ...]
    reference: Path
    seconds: float


def words_of(run: str, small: SmallRun) -> tuple[str, ...]:
    if run == "smoke":
        return ("--preset", "smoke")
    return (*small.words(*(["model=smollm2-135m-instruct"] if run == "embedded" else [])),)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    small, place = SmallRun(), tmp_path_factory.mktemp("undisturbed")
    words = words_of(RUN, small)
    whole(warm, (*words, "--run-dir", str(place / "run")), place)
    stages = Manifest.load(place / "run").stages.values()
    seconds = sum(stage.cpu_seconds or 0 for stage in stages)
    say(f"an undisturbed run computes for {seconds:.1f} s")
    yield Subject(words, place / "run", seconds)
    small.server.close()


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
    """Sends the signal after so many seconds of computing; False when the run ended first, which it must have done well."""
    if not attempt.computed(after_s):
        status = attempt.ended(0)
        assert status == 0 and "Traceback" not in attempt.text(), attempt.text()[-3000:]
        return False
    os.kill(attempt.pid, number)
    return True


def ended_as_it_should(attempt: Attempt, number: signal.Signals, words: tuple[str, ...], folder: Path) -> None:
    """A stopped command ends soon, says how it goes on and leaves nothing; of a killed one, nobody is left."""
    begun = time.monotonic()
    status = attempt.ended(4 * PATIENCE_S)
    took, text = time.monotonic() - begun, attempt.text()
    assert status == STOPPED[number] and "Traceback" not in text, (status, text[-3000:])
    assert took < PATIENCE_S and not attempt.survivors(), took
    if number != signal.SIGKILL:
        assert shlex.split(text.strip().splitlines()[-1])[1:] == ["scripts/run_pipeline.py", *words]
        assert leftovers(folder) == [] and list(attempt.scratch.iterdir()) == []


def test_a_run_killed_and_stopped_again_and_again_ends_as_an_undisturbed_one(subject: Subject, tmp_path: Path) -> None:
    """Each folder is disturbed until it is done; then the next one."""
    draw, fell, n_folders = random.Random(SEED), {number: Counter[str]() for number in STOPPED}, 0
    while fell[signal.SIGKILL].total() < N:
        folder = tmp_path / f"run-{n_folders}"
        words = (*subject.words, "--run-dir", str(folder))
        places = list[str]()
        while fell[signal.SIGKILL].total() < N:
            number = draw.choices(tuple(STOPPED), (6, 1, 1))[0]
            attempt = warm(words, tmp_path)
            if number != signal.SIGKILL or draw.random() < 0.8:  # the other kills fall into the start too
                attempt.spoke(LONGEST_S)
            # A stage that has no parts gets the time to be done, now and then.
            stuck = len(places) > 1 and places[-1] == places[-2]
            if not killed(attempt, draw.uniform(0, (1.0 if stuck else SOON) * subject.seconds), number):
                break
            ended_as_it_should(attempt, number, words, folder)
            places.append(stage_under_way(folder, attempt.text()))
            fell[number][places[-1]] += 1
        whole(warm, words, tmp_path)
        assert differences(subject.reference, folder) == []
        n_folders += 1
        for number, where in fell.items():
            say(
                f"{n_folders} folders ended as the undisturbed one; {signal.Signals(number).name} {where.total()}: {dict(where)}"
            )


@pytest.mark.parametrize("own_process", [False, True], ids=["forked", "own_process"])
def test_a_run_killed_once_ends_as_an_undisturbed_one(subject: Subject, tmp_path: Path, own_process: bool) -> None:
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
