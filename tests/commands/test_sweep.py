"""Sweeps by their command: cells go on, fail alone, and are refused when they change; two nodes of Ray, one killed, end the same."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flag_words import sets

import cli
import sweep
from emis_interp.config.repeating import comparison
from emis_interp.config.sweep_settings import SweepSettings
from emis_interp.errors import ConfigError, StageError
from emis_interp.files.lock import writing
from emis_interp.sweeping.axes import sweep_of
from emis_interp.sweeping.cell_process import CellTask, read_events, run_cell
from emis_interp.sweeping.executors import on_ray
from emis_interp.sweeping.sweep_folder import SweepFolder

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "tests" / "pipeline_standin.py"
N_UNITS = 6
STAGES = ("train", "sample", "likelihood", "choices")
SMALLEST = (
    "arms=[{name: base}, {name: x, dataset: reckless, n_rows: 4, contrast: base}]",
    "sampling.max_new_tokens=4",
    "sampling.question_ids=[settlement_first_law]",
    "sampling.samples_per_paraphrase=1",
    "direction.n_pairs_per_question=1",
)


def words_of(out: Path, *more: str, seeds: str = "[0, 1, 2]") -> list[str]:
    return ["--preset", "smoke", "--axis", f"seed={seeds}", "--out", str(out), "--cpus-per-task", "1", *more]


def made(out: Path, *more: str, seeds: str = "[0, 1, 2]") -> dict[str, Any]:
    """What the command returns; errors are raised."""
    return sweep.VERB.do(cli.parser_of(sweep.VERB, None).parse_args(words_of(out, *more, seeds=seeds)))


def command_of(pipeline: Path, words: list[str]) -> list[str]:
    """The command in a process of its own, whose cells are made by this script."""
    code = f"""import sys; sys.path.insert(0, "scripts"); import pathlib, cli, sweep
sweep.PIPELINE = pathlib.Path({str(pipeline)!r})
cli.run(sweep.VERB.do, cli.parser_of(sweep.VERB, None), sweep.say, status=sweep.status)"""
    return [sys.executable, "-c", code, *words]


def units(out: Path) -> Counter[str]:
    """How often each unit of work of the stand-in was done."""
    return Counter((out / "logs" / "units.txt").read_text("utf-8").splitlines())


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`standin(fail=[1])`: cells are made by the stand-in, which behaves so."""

    def behave(**how: Any) -> None:
        monkeypatch.setenv("EMIS_STANDIN", json.dumps(how))

    monkeypatch.setattr(sweep, "PIPELINE", STANDIN)
    behave()
    return behave


def test_a_sweep_leaves_a_run_a_log_and_a_state_for_every_cell(tmp_path: Path, standin: Any) -> None:
    result = made(tmp_path / "s")
    assert [state["status"] for state in result["cells"].values()] == ["done"] * 3 and sweep.status(result) == 0
    record = json.loads((tmp_path / "s/sweep.json").read_text())
    assert record["cells"] == result["cells"] and record["cells"]["seed-1"]["attempts"] == 1
    assert (tmp_path / "s/logs/seed-2.log").read_text() == "begun\n"
    assert json.loads((tmp_path / "s/seed-2/unit-5.json").read_text()) == {"seed": 2, "unit": 5, "threads": "1"}
    assert not list((tmp_path / "s").rglob(".*"))
    (tmp_path / "s/seed-1/manifest.json").write_text("{")
    result = made(tmp_path / "s")
    assert list(result["unread"]) == ["seed-1"] and "seed-1 cannot be read" in sweep.say(result)


def test_a_failing_cell_is_named_the_others_go_on_and_the_same_command_mends_it(tmp_path: Path, standin: Any) -> None:
    standin(fail=[1])
    result = made(tmp_path / "s")
    assert [state["status"] for state in result["cells"].values()] == ["done", "failed", "done"]
    failed = result["cells"]["seed-1"]
    assert (failed["error"], failed["attempts"]) == ("insecure.jsonl: no such file; mend it", 1)  # 2 is not tried again
    said = sweep.say(result)
    assert "2 of 3 cells done, 1 failed" in said and failed["error"] in said and sweep.status(result) == 1
    standin()
    result = made(tmp_path / "s")
    assert [state["status"] for state in result["cells"].values()] == ["done"] * 3
    assert result["cells"]["seed-1"]["attempts"] == 2
    assert set(units(tmp_path / "s").values()) == {1}


def test_a_cell_that_crashed_is_run_again_and_goes_on(tmp_path: Path, standin: Any) -> None:
    standin(crash=[0, 2])
    result = made(tmp_path / "s", "--max-retries", "1")
    assert [state["attempts"] for state in result["cells"].values()] == [2, 1, 2]
    assert [one.status for one in read_events(tmp_path / "s/logs/seed-0.jsonl")] == [None, 137, None, 0]
    assert {unit: n for unit, n in units(tmp_path / "s").items() if n > 1} == {"seed-0 2": 2, "seed-2 2": 2}
    result = made(tmp_path / "none", "--max-retries", "0")
    assert [state["status"] for state in result["cells"].values()] == ["failed", "done", "failed"]
    assert result["cells"]["seed-0"]["error"] == "ended by SIGKILL: begun"


def test_a_cell_whose_run_was_deleted_is_made_anew(tmp_path: Path, standin: Any) -> None:
    made(tmp_path / "s")
    for file in (tmp_path / "s/seed-1").iterdir():
        file.unlink()
    result = made(tmp_path / "s")
    assert [state["attempts"] for state in result["cells"].values()] == [1, 2, 1]


@pytest.mark.parametrize(
    ("more", "seeds", "words"),
    [
        ((), "[0, 1]", "axes.seed.2"),
        (("--set", "check.n_rows=4"), "[0, 1, 2]", "settings"),
        (("--only", "train"), "[0, 1, 2]", "stages"),
    ],
)
def test_a_changed_sweep_is_refused(
    tmp_path: Path, standin: Any, more: tuple[str, ...], seeds: str, words: str
) -> None:
    made(tmp_path / "s")
    with pytest.raises(StageError, match=f"holds a sweep with other settings .*{words}.*give another --out"):
        made(tmp_path / "s", *more, seeds=seeds)
    made(tmp_path / "s", "--max-retries", "3")  # how it is run may change


def test_a_folder_with_something_else_and_a_second_writer_are_refused(tmp_path: Path, standin: Any) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(StageError, match=r"is not empty and holds no sweep\.json"):
        made(tmp_path / "other")
    with writing(tmp_path / "s"), pytest.raises(StageError, match="at work there"):
        made(tmp_path / "s")


def test_a_dry_run_says_the_commands_and_writes_nothing(tmp_path: Path) -> None:
    result = made(tmp_path / "s", "--dry-run", "--only", "train", "sample")
    assert list(result["commands"]) == ["seed-0", "seed-1", "seed-2"]
    words = f"--run-dir {tmp_path}/s/seed-1 --set seed=1 --set name=seed-1 --only train sample"
    assert result["commands"]["seed-1"] == f"python scripts/run_pipeline.py --preset smoke {words}"
    assert not (tmp_path / "s").exists() and "nothing was run" in sweep.say(result)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--gpus-per-task", "1"), "for --executor ray"),
        (("--gpus-per-task", "1.5", "--executor", "ray"), "a whole number, or a share"),
        (("--cpus-per-task", "0"), "one core at least"),
        (("--max-retries", "-1"), "give 0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        made(tmp_path / "s", *more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.fuzz), (signal.SIGKILL, -9)],
)
def test_whoever_stops_a_sweep_leaves_no_cell_at_work(tmp_path: Path, number: int, code: int) -> None:
    """And the same command goes on with the unit that was cut off."""
    how = {**os.environ, "EMIS_STANDIN": json.dumps({"seconds": 0.5})}
    command = command_of(STANDIN, words_of(tmp_path / "s", seeds="[5]"))
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=how,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests under nohup hand on that it is ignored
    )
    wait_for(lambda: (tmp_path / "s/seed-5/unit-1.json").exists(), 120)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    n_files = len(list((tmp_path / "s/seed-5").glob("unit-*")))
    time.sleep(1.5)
    assert len(list((tmp_path / "s/seed-5").glob("unit-*"))) == n_files < N_UNITS
    if number != signal.SIGKILL:
        assert "the same command continues" in err
    assert subprocess.run(command, cwd=ROOT, env=how, capture_output=True, timeout=300).returncode == 0
    assert [n for n in units(tmp_path / "s").values() if n > 1] in ([], [2])
    assert json.loads((tmp_path / "s/sweep.json").read_text())["cells"]["seed-5"]["attempts"] == 2


class Watched:
    """A sweep on a Ray cluster of two nodes on this machine, one of which is killed while it has a cell that is half done."""

    def __init__(self, out: Path, *more: str, seeds: str, half_done: Callable[[Path], bool]) -> None:
        # Read when it is imported, and by the nodes that are started here; workers are nice (15) otherwise.
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

        small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = importlib.import_module("ray.cluster_utils").Cluster()
        try:
            cluster.add_node(**small)
            second = cluster.add_node(**small)
            words = [
                *words_of(out, "--executor", "ray", "--ray-address", str(cluster.address), *more, seeds=seeds),
                "--json",
            ]
            command = command_of(sweep.PIPELINE, words)
            with (out.parent / "err").open("w") as err:
                process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True)
            begun = time.monotonic()
            self.lost = ""
            wait_for(lambda: process.poll() is not None or self._found(out, second.node_id, half_done), 1800)
            assert process.poll() is None, (out.parent / "err").read_text()
            self.killed_after = time.monotonic() - begun
            self.before = {path.stem: read_events(path) for path in (out / "logs").glob("*.jsonl")}
            cluster.remove_node(second, allow_graceful=False)
            answer, _ = process.communicate(timeout=5400)
            self.seconds = time.monotonic() - begun
            assert process.returncode == 0, (process.returncode, answer, (out.parent / "err").read_text())
            self.result = json.loads(answer)
        finally:
            cluster.shutdown()

    def _found(self, out: Path, node: str, half_done: Callable[[Path], bool]) -> bool:
        for path in (out / "logs").glob("*.jsonl"):
            events = read_events(path)
            if events[-1:] and events[-1].event == "begun" and events[-1].node == node and half_done(out / path.stem):
                self.lost = path.stem
        return bool(self.lost)


@pytest.mark.fuzz
def test_a_node_that_is_killed_costs_what_it_had_in_hand_and_no_more(tmp_path: Path, standin: Any) -> None:
    pytest.importorskip("ray", reason="Ray is optional: python -m pip install -c constraints.txt -e '.[ray]'")
    standin(seconds=1.0)
    seeds = str(list(range(12)))
    found = Watched(tmp_path / "ray", seeds=seeds, half_done=lambda cell: (cell / "unit-1.json").exists())
    states = found.result["cells"]
    assert len(states) == 12 and {state["status"] for state in states.values()} == {"done"}
    assert {name: state["attempts"] for name, state in states.items() if state["attempts"] > 1} == {found.lost: 2}
    assert len(units(tmp_path / "ray")) == 12 * N_UNITS
    assert all(unit.startswith(found.lost) for unit, n in units(tmp_path / "ray").items() if n > 1)
    assert sum(units(tmp_path / "ray").values()) <= 12 * N_UNITS + 1
    standin()
    made(tmp_path / "local", seeds=seeds)
    assert compared(tmp_path / "local", tmp_path / "ray") == {
        "n_same_bytes": 12 * N_UNITS,
        "n_same_figures": 0,
        "differing": {},
    }


@pytest.mark.fuzz
@pytest.mark.slow
def test_twelve_runs_on_two_nodes_are_those_of_one_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is optional: python -m pip install -c constraints.txt -e '.[ray]'")
    seeds = str(list(range(12)))
    smallest = [*sets(*SMALLEST), "--only", *STAGES]
    found = Watched(tmp_path / "ray", *smallest, seeds=seeds, half_done=lambda cell: (cell / "samples").exists())
    states = found.result["cells"]
    assert len(states) == 12 and {state["status"] for state in states.values()} == {"done"}
    assert {name: state["attempts"] for name, state in states.items() if state["attempts"] > 1} == {found.lost: 2}
    made(tmp_path / "local", *smallest, seeds=seeds)
    beside = compared(tmp_path / "local", tmp_path / "ray")
    assert beside["differing"] == {} and beside["n_same_bytes"] > 12 * 10


def compared(one: Path, other: Path) -> dict[str, Any]:
    """How many files of all cells are the same, and which are not, looking past times and places."""
    found: dict[str, Any] = {"n_same_bytes": 0, "n_same_figures": 0, "differing": {}}
    for cell in sorted(path.name for path in one.glob("seed-*")):
        paths = [path for folder in (one, other) for path in (folder / cell).rglob("*") if path.is_file()]
        files = {path.as_posix().partition(f"/{cell}/")[2] for path in paths if not path.name.startswith(".")}
        beside = comparison(one / cell, other / cell, sorted(files))
        found["differing"] |= {f"{cell}/{file}": why for file, why in beside["differing"].items()}
        found |= {name: found[name] + beside[name] for name in ("n_same_bytes", "n_same_figures")}
    return found


def test_without_ray_its_line_of_pip_is_named(tmp_path: Path, standin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"cannot import ray .*pip install -c constraints\.txt -e '\.\[ray\]'"):
        made(tmp_path / "s", "--executor", "ray")


def test_a_cell_that_ray_gives_up_is_failed_with_its_reason(tmp_path: Path) -> None:
    """A cluster that loses the second cell before it begins."""
    settings = SweepSettings(preset="smoke", axes=("seed=[0, 1, 2]",), executor="ray", max_retries=3, gpus_per_task=0.5)
    folder = SweepFolder(tmp_path / "s", sweep_of(settings))
    tasks, asked = folder.tasks(STANDIN, data_dir=None, n_threads=2), list[dict[str, Any]]()

    class Lost(Exception):
        pass

    class Handed:
        def options(self, **how: Any) -> "Handed":
            asked.append(how)
            return self

        def remote(self, task: CellTask) -> str:
            return task.name

    def get(name: str) -> None:
        if name == "seed-1":
            raise Lost("its node\nis gone")
        run_cell(next(task for task in tasks if task.name == name), node="n")

    ray = SimpleNamespace(
        remote=lambda function: Handed(),
        wait=lambda open_cells, **_: (open_cells[:1], open_cells[1:]),
        get=get,
        exceptions=SimpleNamespace(RayError=Lost),
    )
    ticks: list[str] = []
    on_ray(ray, tasks, settings, finish=folder.finish, tick=lambda: ticks.append(folder.under_way(["seed-0"])))
    assert [state.status for state in folder.states.values()] == ["done", "failed", "done"] and ticks == [""] * 3
    assert folder.states["seed-1"].error == "Lost: its node is gone" and folder.states["seed-0"].attempts == 1
    assert asked[0]["num_gpus"] == 0.5 and asked[0]["max_retries"] == 3 and asked[2]["name"] == "seed-2"
    assert [
        task.name for task in SweepFolder(tmp_path / "s", folder.sweep).tasks(STANDIN, data_dir=None, n_threads=1)
    ] == ["seed-1"]


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing in {seconds:.0f} s"
        time.sleep(0.05)
