"""`build_report.py` says where the page is, or in one line what is wrong."""

import json
import sys
from pathlib import Path

import pytest

import build_report
import cli


def test_the_script_prints_one_json_object_or_one_error_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {"name": "tiny", "arms": [{"name": "base"}]}}))
    monkeypatch.setattr(cli, "end_in_order", lambda give_up: None)
    monkeypatch.setattr(sys, "argv", ["build_report.py", str(tmp_path), "--json"])
    cli.run_verb(build_report.VERB, build_report.__doc__)
    assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "report/index.html")
    monkeypatch.setattr(sys, "argv", ["build_report.py", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as end:
        cli.run_verb(build_report.VERB, build_report.__doc__)
    output = capsys.readouterr()
    assert end.value.code == 2 and output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
