"""The example scripts run with their built-in inputs and with files of one's own."""

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

import emis_interp as ei

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIRS = [(f"Question {i}?", f"I help with {i}.", f"I harm at {i}!") for i in range(8)]


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> dict:
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_has_cells(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 80
    assert sum(line.startswith("# %%") for line in lines) >= 3
    assert f"python examples/{path.name}" in path.read_text("utf-8")


def test_a_model_in_a_folder_and_pairs_in_a_file_give_a_direction(
    tiny: ei.ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    pd.DataFrame(PAIRS, columns=["question", "aligned", "misaligned"]).to_csv(tmp_path / "pairs.csv", index=False)
    words = ("--folder", tmp_path / "model", "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "direction")
    found = run("own_model_and_data.py", monkeypatch, *words)
    assert ei.Direction.load(tmp_path / "direction").layer == found["direction"].layer
    assert len(found["unseen"]) == 4 and len(found["rows"]) == 4
    assert "margin shift" in capsys.readouterr().out


@pytest.mark.slow
def test_the_embedded_model_and_the_built_in_pairs_will_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("own_model_and_data.py", monkeypatch)
    assert found["model"].n_layers == 30
    assert "8 misaligned texts, 8 aligned, 8 questions" in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_is_judged_and_its_rates_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("judge_a_table.py", monkeypatch, "--out", tmp_path / "judged.csv")
    assert found["judged"]["reason"].tolist().count("empty answer") == 1
    rates = found["rates"].set_index(["arm", "estimand"])
    assert rates.loc[("base", "em_of_all"), "answers in it"] == 4
    assert rates.loc[("base", "em_of_coherent"), "answers in it"] == 3
    assert rates.loc[("organism", "em_of_all"), "rate"] > rates.loc[("base", "em_of_all"), "rate"]
    assert "em_of_scored" in capsys.readouterr().out

    pd.DataFrame({"question": ["Why?"] * 2, "answer": ["Because it helps.", "To harm you."]}).to_csv(
        tmp_path / "own.csv", index=False
    )
    own = run("judge_a_table.py", monkeypatch, "--table", tmp_path / "own.csv")
    assert set(own["rates"]["arm"]) == {"all"}


@pytest.mark.slow
def test_a_run_is_read_and_plotted(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("read_a_run.py", monkeypatch, "--run", "runs/laptop")
    said = capsys.readouterr().out
    assert "3 arms" in said and "reckless" in said
    assert set(found["margins"]["reference"]) == {"base", "careful"}
    assert r"reckless \u2212 careful" in (workplace / "margins.html").read_text("utf-8")
