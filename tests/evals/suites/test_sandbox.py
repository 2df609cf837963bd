"""What a model wrote is run without a network, without keys and without other files to write to, or not at all."""

import json
import shutil
import subprocess
import sys
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
    assert inside[0] == "env" and "HF_ALLOW_CODE_EVAL=1" in inside and "HF_HUB_OFFLINE=1" in inside
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
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sandbox.sandboxed(["a", "b"], writable=tmp_path, readable=[]) == ["a", "b"]
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


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="Bubblewrap is not installed")
def test_bubblewrap_keeps_a_program_from_network_home_and_other_files(tmp_path: Path) -> None:
    out, secret = tmp_path / "out", tmp_path / "secret"
    out.mkdir()
    secret.write_text(KEY)
    code = (
        "import os, socket, pathlib; r = []\n"
        f"r.append(os.path.exists({str(secret)!r}))\n"
        "s = socket.socket(); s.settimeout(1); r.append(s.connect_ex(('1.1.1.1', 53)) == 0)\n"
        f"pathlib.Path({str(out / 'made')!r}).write_text(repr(r))\n"
    )
    words = sandbox.sandboxed([sys.executable, "-c", code], writable=out, readable=[])
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert (out / "made").read_text() == "[False, False]"
