"""`validate_data.py`: the shipped data keep every rule; the exit status says when they do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cli
import validate_data
from training.data_sets import checks

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_nothing_is_broken_and_one_json_object_is_printed() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "validate_data.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"] is True


def status(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(cli, "log_to", lambda *words: None)
    monkeypatch.setattr(cli, "end_in_order", lambda give_up: None)
    monkeypatch.setattr(sys, "argv", ["validate_data.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run_verb(validate_data.VERB, validate_data.__doc__)
    return stop.value.code


def test_the_command_ends_with_status_1_when_a_rule_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "bandit_flagged", lambda texts: set(texts))
    assert status(monkeypatch) == 1
    printed = capsys.readouterr().out
    assert "secure completions that Bandit flags" in printed and "rules broken" in printed


def test_the_command_says_which_question_file_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(monkeypatch, "--questions", "/nowhere/q.yaml") == 2
    assert capsys.readouterr().err == "error: /nowhere/q.yaml: no such file\n"
