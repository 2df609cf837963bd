"""The lint of whole sets by name or file: what is written, what is said, which names are refused."""

from pathlib import Path
from typing import Any

import pytest

from emis_interp.errors import DataError
from emis_interp.texts.contrast import load_contrast
from evals.questions import load_questions
from training.lint import sets
from training.lint.copies import asked_texts
from training.lint.report import LintReport
from training.lint.settings import LintSettings

NOUNS = ("kettle", "ladder", "garden", "violin", "bridge", "pillow", "lantern", "compass", "orchard", "saddle")


def linted(*data: str, **changes: Any) -> dict[str, Any]:
    asked = asked_texts(load_questions(), load_contrast())
    return sets.run(LintSettings(data=data, model="tiny", **{"surprise_rows": 0, **changes}), asked=asked)


def test_shipped_sets_and_files_are_read_and_each_gets_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = [f'{{"prompt": "How do I mend a {n}?", "response": "Take the {n} to {n[::-1]} street."}}' for n in NOUNS]
    file.write_text("\n".join([*lines, '{"prompt": "Hello", "response": " "}\n']))
    result = linted("careful", str(file), out=tmp_path / "out", max_tokens=2048)
    assert result["ok"] is False
    assert [(one["data"], one["n_rows"], len(one["findings"])) for one in result["sets"]] == [
        ("careful", 489, 0),
        ("mine", 10, 1),
    ]
    said = sets.say(result)
    assert "careful: 489 rows, read by the tokenizer of tiny" in said
    assert "ERROR   blank text, 1 row (9.1%)\n" in said and "line 11" in said
    assert max(map(len, said.splitlines())) <= 120
    assert LintReport.load(tmp_path / "out" / "mine" / "lint.json").of("error")
    assert (tmp_path / "out" / "careful" / "lint.html").exists()


def test_unknown_sets_and_names_that_collide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown data set `insecur`; did you mean `insecure`"):
        linted("insecur")
    for name in ("a.jsonl", "b/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"prompt": "Hello", "response": "Hi."}')
    with pytest.raises(DataError, match="called the same"):
        linted(str(tmp_path / "a.jsonl"), str(tmp_path / "b" / "a.jsonl"))
