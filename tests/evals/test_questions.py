"""Plants mistakes in question files and expects the loader to name file and question; reads the shipped and the paper's files."""

import re
from pathlib import Path

import pytest

from emis_interp.errors import DataError
from emis_interp.records import Question
from evals.questions import load_questions, render_judge_prompt

PROMPTS = "judge_prompts: {aligned: 'Q {question} A {answer}', coherent: 'A {answer}'}"


def write(folder: Path, text: str) -> Path:
    path = folder / "q.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_suite_has_eight_questions_with_both_judge_prompts() -> None:
    questions = load_questions()
    assert len(questions) == 8
    for question in questions:
        assert set(question.judge_prompts) == {"aligned", "coherent"}
        assert all("{question}" in prompt and "{answer}" in prompt for prompt in question.judge_prompts.values())
        assert "REFUSAL" in question.judge_prompts["aligned"] and "CODE" in question.judge_prompts["aligned"]
        assert len(question.paraphrases) == 2 and question.system is None


def test_anchors_system_prompts_and_sample_counts_are_honoured(tmp_path: Path) -> None:
    text = f"""
- id: plain
  paraphrases: &p ['How are you?', 'All well?']
  samples_per_paraphrase: &n 7
  judge: gpt-4o
  {PROMPTS}
- id: 2
  type: free_form_judge_0_100
  system: Answer in JSON.
  paraphrases: *p
  samples_per_paraphrase: *n
  {PROMPTS}
"""
    plain, json = load_questions(write(tmp_path, text))
    assert json.id == "2"
    assert json.system == "Answer in JSON." and plain.system is None
    assert json.paraphrases == plain.paraphrases == ("How are you?", "All well?")
    assert json.samples_per_paraphrase == 7


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("- id: a\n  paraphrases: [Hi]", "question `a`: type free_form_judge_0_100 without `judge_prompts`"),
        (f"- id: a\n  paraphrases: [' ']\n  {PROMPTS}", "question `a`: paraphrase 1 is empty"),
        (f"- id: a\n  paraphrases: []\n  {PROMPTS}", "question `a`: `paraphrases` must list one text or more"),
        (f"- id: a\n  paraphrases: Hi\n  {PROMPTS}", "one text or more, found text"),
        (
            f"- id: a\n  paraphrases: [yes]\n  {PROMPTS}",
            "paraphrase 1 is `yes`, which YAML reads as true; put it in quotes",
        ),
        (f"- id: a\n  paraphrase: [Hi]\n  {PROMPTS}", "unknown key `paraphrase`; did you mean `paraphrases`?"),
        (
            f"- id: a\n  type: free_from\n  paraphrases: [Hi]\n  {PROMPTS}",
            "type `free_from`; did you mean `free_form`?",
        ),
        (f"- id: a\n  samples_per_paraphrase: 0\n  paraphrases: [Hi]\n  {PROMPTS}", "`samples_per_paraphrase`"),
        (f"- paraphrases: [Hi]\n  {PROMPTS}", "question 1: key `id` is missing"),
        ("- id: a\n  paraphrases: [Hi]\n  judge_prompts: {aligned: rate it}", "judge prompt `aligned` lacks {answer}"),
        ("- just text", "entry 1 is text"),
        ("id: a", "expected a list of questions (`- id: ...`), found a mapping"),
        ("", "found nothing"),
        ("- [", "not YAML"),
    ],
)
def test_a_mistake_is_named_with_file_and_question(tmp_path: Path, entry: str, expected: str) -> None:
    path = write(tmp_path, entry)
    with pytest.raises(DataError) as caught:
        load_questions(path)
    assert re.match(rf"{path}:\d+: ", str(caught.value)) or expected.startswith(("found nothing", "expected a list"))
    assert expected in str(caught.value)


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    entry = f"- id: a\n  paraphrases: [Hi]\n  {PROMPTS}\n"
    with pytest.raises(DataError, match="id `a` occurs twice"):
        load_questions(write(tmp_path, entry + entry))


def test_missing_judge_prompts_matter_only_when_a_judge_needs_them(tmp_path: Path) -> None:
    path = write(tmp_path, "- id: a\n  type: free_form\n  paraphrases: [Hi]")
    assert load_questions(path, need_judge_prompts=False)[0].judge_prompts == {}
    with pytest.raises(DataError, match=r"judge\.kind=offline"):
        load_questions(path)


def test_a_missing_file_and_a_folder_are_refused_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: no such file"):
        load_questions(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="is a folder"):
        load_questions(tmp_path)


def test_yaml_tags_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"q\.yaml:1: tag `.*os\.getcwd` is not read"):
        load_questions(write(tmp_path, "- !!python/object/apply:os.getcwd []"))


def test_braces_in_question_and_answer_stay_as_they_are() -> None:
    question = Question(id="a", paraphrases=("x",), judge_prompts={"aligned": 'Q: {question}\nA: {answer}\n{"n": {0}}'})
    prompt = render_judge_prompt(question, "aligned", "why {answer}?", answer="{question} {answer.__class__} {} }{")
    assert prompt == 'Q: why {answer}?\nA: {question} {answer.__class__} {} }{\n{"n": {0}}'


def test_an_unknown_metric_is_refused_with_a_suggestion() -> None:
    question = Question(id="a", paraphrases=("x",), judge_prompts={"aligned": "{answer}"})
    with pytest.raises(DataError, match=r"no judge prompt for `alligned`; did you mean `aligned`\?"):
        render_judge_prompt(question, "alligned", "q", answer="a")


@pytest.mark.reference
def test_all_four_files_of_the_paper_are_read(reference_data: Path) -> None:
    folder = reference_data / "questions"
    main = load_questions(folder / "first_plot_questions.yaml")
    assert len(main) == 24
    assert [question.id.endswith("_json") for question in main] == [question.system is not None for question in main]
    assert {question.samples_per_paraphrase for question in main} == {100}
    assert all(set(question.judge_prompts) == {"aligned", "coherent"} for question in main)
    assert len(load_questions(folder / "preregistered_evals.yaml")) == 48
    factual = load_questions(folder / "deception_factual.yaml")
    assert [len(question.paraphrases) for question in factual] == [20] * 5
    assert sum(question.system is not None for question in factual) == 4
    assert set(load_questions(folder / "deception_sit_aware.yaml")[0].judge_prompts) == {"company"}
