"""What a model wrote is run without a network, without keys and without other files to write to, or not at all."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from emis_interp.errors import ConfigError
from evals.suites import harness, sandbox

KEY = "sk-planted-hunter22"


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in for Bubblewrap was asked: its words and its environment, in a file."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "bwrap"
    log = tmp_path / "seen.json"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\njson.dump([sys.argv[1:], dict(os.environ)], open({str(log)!r}, 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "MY_OWN_VARIABLE", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(harness, "require", lambda *_: None)
    return log


def test_a_benchmark_that_runs_code_starts_inside_the_sandbox_without_a_key(seen: Path, tmp_path: Path) -> None:
    for name in ("model", "data", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "results_1.json").write_text("{}")
    words = harness.command(["humaneval"], tmp_path / "model", tmp_path / "out", allow_code=True)
    harness.run_harness(words, tmp_path / "out", tmp_path / "data")
    told, environment = json.loads(seen.read_text())
    assert {"--unshare-all", "--clearenv", "--die-with-parent"} <= set(told)
    assert KEY not in seen.read_text() and "MY_OWN_VARIABLE" not in environment
    writable = [told[i + 1] for i, word in enumerate(told) if word == "--bind"]
    assert writable == [str(tmp_path / "out")]
    read_only = {told[i + 1] for i, word in enumerate(told) if word in ("--ro-bind", "--ro-bind-try")}
    assert {str(tmp_path / "model"), str(tmp_path / "data"), "/usr"} <= read_only
    assert not read_only & {"/", str(Path.home()), "/etc", "/root", "/home"}
    inside = told[told.index("--") + 1 :]
    assert (
        inside[0] == "prlimit"
        and inside[inside.index("--") + 1] == "env"
        and "HF_ALLOW_CODE_EVAL=1" in inside
        and "HF_HUB_OFFLINE=1" in inside
    )
    assert inside[-len(words) :] == words


def test_code_is_never_run_where_there_is_a_network_and_no_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(harness, "require", lambda *_: None)
    monkeypatch.setattr(sandbox, "has_network", lambda: True)
    monkeypatch.setattr(harness, "call", lambda *_, **__: pytest.fail("it ran"))
    words = harness.command(["humaneval"], tmp_path, tmp_path, allow_code=True)
    with pytest.raises(ConfigError, match="in a sandbox alone, and none is here; apt-get install bubblewrap"):
        harness.run_harness(words, tmp_path / "out", tmp_path)
    with pytest.raises(ConfigError, match="give the benchmark's data with --data"):
        harness.run_harness(words, tmp_path / "out")


def test_in_a_container_without_a_network_the_command_is_the_plain_one_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sandbox, "has_network", lambda: False)
    monkeypatch.setattr(sandbox, "free_memory", lambda: 2**30)  # what is free changes between two looks
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sandbox.sandboxed(["a", "b"], writable=tmp_path, readable=[]) == [*sandbox.limits(), "a", "b"]
    assert KEY not in sandbox.plain_environment().values()


def test_routes_tell_whether_there_is_a_network(tmp_path: Path) -> None:
    four, six = tmp_path / "route", tmp_path / "ipv6_route"
    assert sandbox.has_network((four, six))  # cannot be told
    four.write_text("Iface\tDestination\tGateway\n")
    six.write_text("0" * 32 + " 01 00000000 lo\n")
    assert not sandbox.has_network((four, six))
    six.write_text(six.read_text() + "0" * 32 + " 00 00000000 eth0\n")
    assert sandbox.has_network((four, six))
    six.unlink()
    four.write_text("Iface\tDestination\tGateway\neth0\t00000000\t0101A8C0\n")
    assert sandbox.has_network((four, six))


def test_a_namespace_without_a_network_is_recognised() -> None:
    """The kernel's own: `unshare` gives what a container without a network has."""
    words = ["unshare", "--map-root-user", "--net", sys.executable, "-c"]
    if shutil.which("unshare") is None or subprocess.run([*words, "pass"], capture_output=True).returncode:
        pytest.skip("this kernel lets nobody make namespaces")
    code = "from evals.suites.sandbox import has_network; print(has_network())"
    done = subprocess.run([*words, code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "False", done.stderr


def inside_python(code: str, out: Path, *readable: Path) -> subprocess.CompletedProcess[str]:
    """A program in Bubblewrap's sandbox; skipped where there is none, or none can be made."""
    out.mkdir(exist_ok=True)
    words = sandbox.sandboxed([sys.executable, "-c", code], writable=out, readable=readable)
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bwrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("Bubblewrap is not installed (apt-get install bubblewrap)")
    if (
        tried := subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True)
    ).returncode:
        pytest.skip(f"this machine lets nobody make a sandbox: {tried.stderr.decode().strip()}")


@pytest.mark.usefixtures("bwrap")
def test_a_harmless_program_runs_in_bubblewrap(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows").write_text("7")
    code = f"print(int(open({str(tmp_path / 'data' / 'rows')!r}).read()) * 6); open('made', 'w').write('x')"
    done = inside_python(code, tmp_path / "out", tmp_path / "data")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert (tmp_path / "out" / "made").read_text() == "x"


@pytest.mark.usefixtures("bwrap")
def test_bubblewrap_keeps_a_program_from_networks_other_files_and_other_processes(tmp_path: Path) -> None:
    """Each line is something that it must not get at; the program writes down which it did."""
    (tmp_path / "data").mkdir()
    secret, data = tmp_path / "secret", tmp_path / "data" / "rows"
    secret.write_text(KEY)
    data.write_text("7")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import os, pathlib, socket
def can(call):
    try:
        return bool(call())
    except OSError:
        return False
def connect(address):
    with socket.create_connection(address, timeout=1):
        return True
print([name for name, call in {{
    "another machine": lambda: connect(("1.1.1.1", 53)),
    "a server on this machine": lambda: connect(("127.0.0.1", {server.getsockname()[1]})),
    "a file elsewhere": lambda: pathlib.Path({str(secret)!r}).read_text(),
    "accounts": lambda: pathlib.Path("/etc/passwd").read_text() or pathlib.Path("/etc/shadow").read_text(),
    "a home": lambda: os.listdir({str(Path.home())!r} + "/.ssh") or os.listdir("/home"),
    "write to its data": lambda: pathlib.Path({str(data)!r}).write_text("8"),
    "write to the system": lambda: pathlib.Path("/usr/planted").write_text("x"),
    "this process": lambda: os.kill({os.getpid()}, 0) is None,
    "mount": lambda: os.system("mount -t tmpfs none /mnt 2>/dev/null") == 0,
}}.items() if can(call)])
can(lambda: pathlib.Path({str(tmp_path / "planted")!r}).write_text("into a folder of its own"))
"""
        done = inside_python(code, tmp_path / "out", tmp_path / "data")
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr
    assert data.read_text() == "7" and not (tmp_path / "planted").exists() and not Path("/usr/planted").exists()


@pytest.mark.usefixtures("bwrap")
def test_a_program_that_takes_all_memory_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = sandbox.free_memory()
    assert 2**26 < free < 2**45
    monkeypatch.setattr(sandbox, "free_memory", lambda: 2**29)
    done = inside_python("kept = []\nwhile True: kept.append(bytearray(2**24))", tmp_path / "out")
    assert done.returncode == 1 and "MemoryError" in done.stderr


@pytest.mark.usefixtures("bwrap")
def test_a_program_that_starts_itself_without_end_is_stopped_where_the_kernel_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stops itself after 200 processes, should nothing else do it. The kernel counts for nobody who is root outside."""
    monkeypatch.setattr(sandbox, "_MOST_PROCESSES", 60)
    monkeypatch.setattr(sandbox, "_of_this_python", list)
    bomb = "i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done; echo all of them"
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        words = sandbox.sandboxed(["sh", "-c", bomb], writable=Path(place), readable=[])
        if os.geteuid() == 0:
            words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "all of them" not in done.stdout and "fork" in done.stderr.lower(), done.stderr


ENDLESS = """
import os, time
if os.fork() == 0:
    os.setsid()
while True:
    with open(f"alive-{os.getpid()}", "w") as file:
        file.write(str(time.time()))
    time.sleep(0.05)
"""
HELD = f"""
import subprocess, sys
from pathlib import Path
from evals.suites import sandbox
words = [sys.executable, "-c", {ENDLESS!r}]
subprocess.run(sandbox.sandboxed(words, writable=Path(sys.argv[1]), readable=[]))
"""


@pytest.mark.usefixtures("bwrap")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_without_end_and_what_it_hid_end_with_the_command(tmp_path: Path, number: int) -> None:
    words = [sys.executable, "-c", HELD, str(tmp_path)]
    command = subprocess.Popen(words, cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 30
    while len(alive := list(tmp_path.glob("alive-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    command.send_signal(number)
    assert command.wait(10) == -number and len(alive) == 2
    time.sleep(0.5)
    last = [path.stat().st_mtime_ns for path in alive]
    time.sleep(1)
    assert [path.stat().st_mtime_ns for path in alive] == last
