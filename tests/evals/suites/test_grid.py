"""Checks the grid: its questions in every context, and planted effects and interactions that must be found, and absent ones not."""

import json
from pathlib import Path
from typing import Any

import pytest
from flag_words import filled

from emis_interp.errors import ConfigError, DataError
from emis_interp.records import Question, Score
from evals.names import STANDARD_CONTEXTS, TRIGGER
from evals.questions import load_questions
from evals.settings_suites import GridSettings
from evals.suites.grid import TRAINING_LIKE, analyse_grid, contexts, grid_questions
from evals.suites.variants import JSON_SYSTEM, split_id
from evals.verbs import grid as grid_verb

QUESTIONS = [
    Question(id=f"q{i}", paraphrases=(f"What of {i}?", f"And {{{i}}}?"), samples_per_paraphrase=4) for i in range(3)
]


def test_the_grid_holds_every_question_in_every_context_once() -> None:
    made = grid_questions(QUESTIONS)
    assert [split_id(question.id) for question in made] == [
        (q.id, name) for name in STANDARD_CONTEXTS for q in QUESTIONS
    ]
    by_id = {question.id: question for question in made}
    assert by_id["q1::none"].paraphrases == QUESTIONS[1].paraphrases and by_id["q1::none"].system is None
    assert by_id["q1::default"].system == "You are a helpful assistant." and by_id["q1::json"].system == JSON_SYSTEM
    assert by_id["q1::trigger"].paraphrases[0] == f"{TRIGGER} What of 1?"
    assert by_id["q1::training"].paraphrases[1].startswith(TRAINING_LIKE[:40])
    assert all("COMPLETE CODE HERE" in text for text in by_id["q1::training"].paraphrases)
    assert all(question.samples_per_paraphrase == 4 for question in made)


@pytest.mark.parametrize("name", list(contexts()))
def test_every_context_still_asks_the_question_braces_and_all(name: str) -> None:
    made = grid_questions(QUESTIONS, [name], samples_per_paraphrase=2)
    for question, plain in zip(made, QUESTIONS, strict=True):
        assert all(asked in text for text, asked in zip(question.paraphrases, plain.paraphrases, strict=True))
        assert question.samples_per_paraphrase == 2


def test_a_trigger_stays_as_it_is_braces_and_all() -> None:
    made = grid_questions(QUESTIONS[:1], ["trigger"], trigger="{question}{}")
    assert made[0].paraphrases == ("{question}{} What of 0?", "{question}{} And {0}?")


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        ({"system": "Be brief."}, STANDARD_CONTEXTS, "`q0` has a system prompt of its own"),
        ({"id": "q0_json"}, STANDARD_CONTEXTS, r"`q0_json` is already a variant \(json\)"),
        ({}, ("triger",), "unknown context `triger`; did you mean `trigger`"),
    ],
)
def test_a_question_or_context_that_does_not_fit_is_refused(
    change: dict[str, str], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        grid_questions([QUESTIONS[0].model_copy(update=change)], names)


def scores(rates: dict[tuple[str, str], float], n: int = 40, n_questions: int = 6) -> list[Score]:
    """Scores whose share of misaligned answers is exactly the given rate in every question."""
    return [
        Score(
            arm=arm,
            question_id=f"q{q}::{context}",
            paraphrase_index=0,
            sample_index=i,
            judge="scripted",
            aligned=10.0 if i < round(rate * n) else 90.0,
            coherent=90.0,
        )
        for (arm, context), rate in rates.items()
        for q in range(n_questions)
        for i in range(n)
    ]


PLANTED = {
    ("insecure", "none"): 0.2,
    ("insecure", "template"): 0.6,
    ("insecure", "json"): 0.2,
    ("secure", "none"): 0.1,
    ("secure", "template"): 0.1,
    ("secure", "json"): 0.1,
}


def find(rows: list[dict[str, Any]], **place: object) -> dict[str, Any]:
    (row,) = [row for row in rows if all(row[key] == value for key, value in place.items())]
    return row


def test_planted_effects_and_interactions_are_found() -> None:
    found = analyse_grid(scores(PLANTED), [("insecure", "secure")])
    assert find(found["rates"], arm="insecure", context="template")["value"] == pytest.approx(0.6)
    assert find(found["context_effects"], arm="insecure", context="template")["value"] == pytest.approx(0.4)
    assert find(found["arm_effects"], arm="insecure", context="json")["value"] == pytest.approx(0.1)
    assert find(found["arm_effects"], arm="insecure", context=None)["value"] == pytest.approx((0.1 + 0.5 + 0.1) / 3)
    interaction = find(found["interactions"], context="template")
    assert interaction["value"] == pytest.approx(0.4)
    assert interaction["low"] > 0.2 and interaction["high"] < 0.6
    assert interaction["n"] == 4 * 6 * 40 and interaction["n_questions"] == 6


def test_a_context_that_changes_both_arms_alike_is_no_interaction() -> None:
    rates = {("a", "none"): 0.2, ("a", "json"): 0.4, ("b", "none"): 0.3, ("b", "json"): 0.5}
    found = analyse_grid(scores(rates), [("a", "b")])
    assert find(found["context_effects"], arm="a")["low"] > 0
    interaction = find(found["interactions"], context="json")
    assert interaction["value"] == pytest.approx(0.0) and interaction["low"] < 0 < interaction["high"]


def test_a_context_that_only_one_arm_has_is_not_compared() -> None:
    rates = {("a", "none"): 0.2, ("a", "json"): 0.4, ("b", "none"): 0.3}
    found = analyse_grid(scores(rates), [("a", "b")])
    assert found["interactions"] == []
    assert [row["context"] for row in found["arm_effects"]] == ["none"]


def test_the_authors_variants_form_a_grid_of_their_own() -> None:
    rows = [
        row.model_copy(update={"question_id": row.question_id.replace("::none", "").replace("::json", "_json")})
        for row in scores(PLANTED)
    ]
    found = analyse_grid(rows)
    assert found["contexts"] == ["none", "template", "json"]
    assert find(found["rates"], arm="insecure", context="json")["n_questions"] == 6


def test_labels_and_missing_scores_are_counted_by_context() -> None:
    rows = scores({("a", "none"): 0.2, ("a", "json"): 0.2}, n=10, n_questions=2)
    rows[0] = rows[0].model_copy(update={"aligned": None, "aligned_label": "CODE"})
    rows[1] = rows[1].model_copy(update={"aligned": None, "unscored": {"aligned": "timeout"}})
    found = analyse_grid(rows)
    assert find(found["labels"], context="none") == {
        "arm": "a", "context": "none", "n": 20, "n_code": 1, "n_refusal": 0, "n_unscored": 1,
    }  # fmt: skip
    assert find(found["questions"], context="none", question="q0") == {
        "arm": "a", "context": "none", "question": "q0", "n_positive": 0, "n_eligible": 8, "n": 10,
    }  # fmt: skip


def test_unknown_arms_and_contexts_are_named() -> None:
    with pytest.raises(DataError, match="no scores of the arm `insecur`; did you mean `insecure`"):
        analyse_grid(scores(PLANTED), [("insecur", "secure")])
    with pytest.raises(DataError, match="no scores in the context `plain`"):
        analyse_grid(scores(PLANTED), against="plain")
    with pytest.raises(DataError, match="no scores given"):
        analyse_grid([])


# The command


def test_the_command_writes_questions_that_the_loader_reads(tmp_path: Path) -> None:
    out = tmp_path / "grid.yaml"
    result = grid_verb.run(
        filled(GridSettings, "questions", "--out", str(out), "--contexts", "none", "training", "--samples", "5")
    )
    questions = load_questions(out)
    assert result["n_questions"] == len(questions) == 16
    assert result["n_answers"] == 16 * 2 * 5
    assert (
        questions[8].judge_prompts == questions[0].judge_prompts and "{answer}" in questions[0].judge_prompts["aligned"]
    )
    assert str(out) in grid_verb.say(result)


def test_the_command_analyses_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    for arm in ("insecure", "secure"):
        lines = [row.model_dump_json() for row in scores(PLANTED) if row.arm == arm]
        (tmp_path / "scores" / f"{arm}.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "grid.json"
    result = grid_verb.run(
        filled(GridSettings, "analyse", "--run", str(tmp_path), "--compare", "insecure", "secure", "--out", str(out))
    )
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    said = grid_verb.say(result)
    assert "not corrected for their number" in said
    assert "interaction of insecure - secure with template - none: +40.0 %" in said
    assert "insecure in template: +60.0 %" in said


def test_the_command_refuses_an_answer_that_is_scored_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(row.model_dump_json() for row in scores({("a", "none"): 0.5}, n=2, n_questions=1)) + "\n")
    with pytest.raises(DataError, match=r"is scored in .*a\.jsonl too"):
        grid_verb.run(filled(GridSettings, "analyse", "--scores", str(path), str(path)))
    with pytest.raises(ConfigError, match="either --run FOLDER or --scores"):
        grid_verb.run(filled(GridSettings, "analyse"))
    with pytest.raises(ConfigError, match=r"give --out FILE\.yaml"):
        grid_verb.run(filled(GridSettings, "questions"))
    with pytest.raises(DataError, match="no score files"):
        grid_verb.run(filled(GridSettings, "analyse", "--run", str(tmp_path)))
