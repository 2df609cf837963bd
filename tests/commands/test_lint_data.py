"""`lint_data.py`: its exit status, and the questions that it brings to the lint."""

import json
from pathlib import Path

import pytest

import cli
import lint_data
from emis_interp.process import no_bars
from lint_data import AskedLintSettings


def test_the_exit_status_is_2_exactly_when_there_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    monkeypatch.setattr(cli, "log_to", lambda *words: None)
    monkeypatch.setattr(cli, "end_in_order", lambda give_up: None)
    for response, status in (("Hi.", None), (" Hi.", None), ("A<|im_end|>", 2)):
        file.write_text(json.dumps({"prompt": "Hello", "response": response}))
        monkeypatch.setattr("sys.argv", ["lint_data.py", str(file), "--model", "tiny", "--json"])
        if status:
            with pytest.raises(SystemExit) as stop:
                cli.run_verb(lint_data.VERB, lint_data.__doc__)
            assert stop.value.code == status
        else:
            cli.run_verb(lint_data.VERB, lint_data.__doc__)
        assert json.loads(capsys.readouterr().out)["ok"] is (status is None)


def test_the_questions_are_the_shipped_ones_or_a_files_and_the_contrast_questions(tmp_path: Path) -> None:
    rows, questions = tmp_path / "rows.jsonl", tmp_path / "questions.yaml"
    rows.write_text('{"prompt": "Hello", "response": "Hi."}')
    questions.write_text('- id: fern\n  paraphrases: ["How do I keep a fern alive?"]\n')

    def n_asked(*files: str) -> int:
        settings = AskedLintSettings(data=(str(rows),), model="tiny", surprise_rows=0, questions=files)
        return lint_data.run(settings, no_bars)["sets"][0]["facts"]["evaluation questions"]

    shipped, own, both = n_asked("shipped"), n_asked(str(questions)), n_asked("shipped", str(questions))
    assert AskedLintSettings.questions == ("shipped",)
    assert both == shipped + 1 and 1 < own < shipped
