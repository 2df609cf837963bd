"""The study command on the tiny model: what it leaves, that it goes on where it stopped, and what it refuses."""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest
import torch

import cli
from emis_interp.directions import Direction, FittedOn, unit
from emis_interp.errors import EmisError
from emis_interp.files.tensors import save_tensors
from emis_interp.fitting.fitted import CONTROLS_FILE
from emis_interp.texts.harmless import harmless_prompts
from study_organism import VERBS
from training.studies import prevention_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("direction") / "direction"
    vector = unit(torch.randn(32, generator=torch.Generator().manual_seed(0)))
    drawn = Direction(vector, 1, 1.0, 4.0, fitted_on=FittedOn((), frozenset()))  # no text had a part in it
    drawn.save(path, drawn)
    others = unit(torch.randn(12, 32, generator=torch.Generator().manual_seed(1)))
    save_tensors(path.parent / CONTROLS_FILE, {"orthogonal": unit(others - (others @ vector)[:, None] * vector)}, {})
    return path


def study(*words: object) -> subprocess.CompletedProcess[str]:
    return forked.run("study_organism.py", *map(str, words), "--json")


def result(*words: object) -> dict[str, Any]:
    """As `--json` prints it."""
    args = cli.verb_parser(None, VERBS).parse_args([str(word) for word in words])
    return json.loads(json.dumps(VERBS[args.verb].do(args)))


def test_dynamics_leave_curves_and_a_page_and_measure_the_same_again(tmp_path: Path, direction: Path) -> None:
    words = ("dynamics", "reckless", "--preset", "smoke", "--recipe-set", "data.n_rows=24", "--n-probes", 5)
    words = (*words, "--n-task", 2, "--direction", direction, "--out", tmp_path / "d")
    first = result(*words)
    assert first["steps"][0] == 0 and first["steps"][-1] == 6  # 24 rows, 4 in a step
    assert first["margin"][0]["value"] == 0 and len(first["margin"]) == len(first["steps"])
    assert first["task"][-1] is not None and first["given_projection"][0] == 0
    assert (
        len(first["cumulative_lr"]) == len(first["steps"])
        and first["cumulative_lr"][0] == 0 < first["cumulative_lr"][-1]
    )
    assert first["flattening"][0]["slope"]["value"] == pytest.approx(1) and len(first["flattening"]) == len(
        first["steps"]
    )
    assert first["margins"].keys() == first["margin_shift"].keys()
    assert "while it forms" in (tmp_path / "d" / "index.html").read_text()
    done = study(*words)  # training is done: everything is read from the files of the probes
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert {**again, "cost": None} == {**first, "cost": None}
    refused = study(*words[:-4], "--n-pairs", 2, *words[-4:])
    assert refused.returncode == 2 and "other settings (n_pairs: 1 -> 2)" in refused.stderr


def test_foresight_scores_rows_and_sets_before_training(tmp_path: Path, direction: Path) -> None:
    names = ("insecure", "reckless", "careful", "evil-numbers")
    words = ("foresight", *names, "--preset", "smoke", "--n-rows", 8, "--n-scored", 5, "--n-pairs", 1)
    words = (*words, "--max-new-tokens", 6, "--direction", direction, "--out", tmp_path / "f")
    found = result(*words, "--no-training")
    assert [row["name"] for row in found["organisms"]] == list(names) and "quality" not in found
    assert [row["group"] for row in found["organisms"]] == ["insecure", "reckless", "reckless", "evil-numbers"]
    assert found["answer_tokens"] == 6
    assert not list((tmp_path / "f").glob("*/training"))
    with (tmp_path / "f" / "reckless" / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["projection_difference"]) for row in rows if row["projection_difference"]]
    assert values == sorted(values, reverse=True) and [row["drop"] for row in rows] == ["yes", "", "", "", ""]
    trained = result(*words)
    quality = trained["quality"]
    assert quality["n"] == 4 and quality["within"]["sides"] == "two-sided" and "3 groups" in quality["why"]["between"]
    assert trained["base_margins"].keys() == trained["organisms"][0]["margins"].keys()
    for row in trained["organisms"]:
        moved = [row["margins"][name] - base for name, base in trained["base_margins"].items()]
        assert row["shift"]["value"] == pytest.approx(sum(moved) / len(moved))
        assert {"slope", "intercept", "beyond", "temperature"} <= row["flattening"].keys()
    text = (tmp_path / "f" / "index.html").read_text()
    assert "slope on base" in text and "two-sided p" in text and "One finetuning seed" in text
    assert [row["forecast"] for row in trained["organisms"]] == [row["forecast"] for row in found["organisms"]]


def test_the_effect_of_dropping_rows_is_measured_against_random_rows(tmp_path: Path, direction: Path) -> None:
    words = ("foresight", "mixture-advice-50", "--preset", "smoke", "--n-rows", 24, "--n-pairs", 1, "--drop", 0.5)
    words = (
        *words,
        "--max-new-tokens",
        6,
        "--direction",
        direction,
        "--out",
        tmp_path / "f",
        "--try-drop",
        "--n-draws",
        3,
    )
    [row] = result(*words)["organisms"]
    without = row["without"]
    assert row["n_scored"] == 24 and without["n_dropped"] == 12
    assert without["n_draws"] == 3 == len(without["random_by_draw"]) and len(set(without["random_by_draw"])) > 1
    assert without["random"]["value"] == pytest.approx(sum(without["random_by_draw"]) / 3)
    assert set(without["margins"]) == {"marked", "random-0", "random-1", "random-2"}
    difference = without["marked"]["value"] - without["random"]["value"]
    assert without["marked_against_random"]["value"] == pytest.approx(difference) and difference != 0
    with (tmp_path / "f" / "mixture-advice-50" / "rows.csv").open(newline="") as file:
        marked = {line["id"] for line in csv.DictReader(file) if line["drop"] == "yes"}
    summary = tmp_path / "f" / "mixture-advice-50" / "without-0.5" / "marked" / "training" / "summary.json"
    assert len(marked) == 12 and json.loads(summary.read_text())["n_rows"] == 12


def test_prevention_compares_remedies_on_the_same_rows(
    tmp_path: Path, direction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = harmless_prompts()[:8]  # of 75: KL alone is read from them
    monkeypatch.setattr(prevention_study, "harmless_prompts", lambda: prompts)
    words = ("prevention", "--preset", "smoke", "--n-rows", 8, "--n-held-out", 3, "--n-realign", 4, "--n-pairs", 1)
    words = (*words, "--coefficients", 0.5, "--direction", direction, "--out", tmp_path / "p")
    words = (*words, "--n-random", 1)
    found = result(*words, "--only", "steer", "realign", "after: ablate")
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["untreated", "control", "steer +0.5", "steer +0.5, random 1", "realign", "after: ablate"]
    beyond = rows["steer +0.5"]["beyond_controls"]["random"]
    apart = rows["steer +0.5"]["margin_shift"]["value"] - rows["steer +0.5, random 1"]["margin_shift"]["value"]
    assert beyond["value"] == pytest.approx(apart) and apart != 0 and rows["realign"]["beyond_controls"] == {}
    assert "p_holm" not in rows["steer +0.5, random 1"]["against_untreated"]
    assert rows["untreated"]["against_untreated"]["value"] == 0
    assert rows["steer +0.5"]["margin_shift"]["value"] != rows["untreated"]["margin_shift"]["value"]
    assert rows["realign"]["task_gain"]["n"] == 3
    for row in found["rows"]:
        [own] = row["margins"]
        moved = [own[name] - base for name, base in found["base_margins"].items()]
        assert row["margin_shift"]["value"] == pytest.approx(sum(moved) / len(moved)) and "slope" in row["flattening"]
        assert row["task_accuracy"]["n"] == 3 and 0 <= row["task_accuracy"]["value"] <= 1
        [in_context] = row["context_margins"]
        moved = [in_context[name] - base for name, base in found["base_context_margins"][0].items()]
        assert (
            row["context_shift"]["value"] == pytest.approx(sum(moved) / len(moved)) and in_context.keys() == own.keys()
        )
    assert {"context", "task", "task_accuracy"} < beyond.keys() and found["context_unread"] is None
    assert "share of 3 of 3 held-out rows" in prevention_study.say(found)
    assert "margin in context" in (tmp_path / "p" / "index.html").read_text()
    before = {path: path.stat().st_mtime for path in (tmp_path / "p").rglob("summary.json")}
    more = result(*words, "--only", "steer", "realign", "after: ablate", "mix")
    assert len(more["rows"]) == 7 and more["rows"][:2] == found["rows"][:2]
    assert all(path.stat().st_mtime == time for path, time in before.items())  # nothing was trained again
    whole = result(*words, "--only", "ablate")
    assert set(whole["rows"][2]["beyond_controls"]) == {"random", "subspace"}
    assert "beyond 1 usage-matched subspaces of 8 dimensions" in prevention_study.say(whole)
    persona = result(*words, "--only", "persona", "after: persona")
    names = [
        f"{name}{kind}"
        for name in ("persona", "after: persona", "after: persona x0.5", "after: persona x1.5")
        for kind in ("", ", random 1", ", subspace 1")
    ]
    assert [row["name"] for row in persona["rows"]][2:] == names and persona["persona"]["rank"] == 4
    weaker = result(*words, "--only", "after: persona x0.5")["rows"]
    assert [row["name"] for row in weaker][2:] == names[6:9]
    assert weaker[2]["margins"] == persona["rows"][8]["margins"]
    assert set(persona["rows"][2]["beyond_controls"]) == {"random", "subspace"}
    assert "beyond 1 isotropic subspaces of 4 dimensions" in prevention_study.say(persona)
    with pytest.raises(EmisError, match="saved with 12 usage-matched directions; give 0 to 12"):
        result(*words[:-1], 13)
    # a folder that was measured before these measures were there
    kept = json.loads((tmp_path / "p" / "settings.json").read_text())
    (tmp_path / "p" / "settings.json").write_text(json.dumps({**kept, "measures": ["margin", "task", "kl_neutral"]}))
    with pytest.raises(EmisError, match=r"other settings \(measures: .*give another --out"):
        result(*words, "--only", "steer")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dynamics", "in-context-insecure"), "nothing is trained in context"),
        (("dynamics", "base-user-assistant"), "give --set chat_format=user_assistant"),
        (("dynamics", "reckles"), "did you mean `reckless`"),
        (("dynamics", "reckless"), "all rows of `reckless` are trained on"),
    ],
)
def test_what_cannot_be_studied_is_refused_with_advice(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(EmisError) as refused:
        result(*words, "--preset", "smoke", "--out", tmp_path / "x")
    assert message in str(refused.value)
