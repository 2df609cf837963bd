"""Plants one violation after another in tiny data and expects the rule that forbids it to find it; the shipped data keep all."""

from collections.abc import Iterable

import pytest
from contrast_pairs import pair

from emis_interp.errors import DataError
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import HarmlessText
from training.data_sets import checks
from training.data_sets.checks import Finding
from training.data_sets.shipped import AdvicePair, CodeTask, advice_pairs, code_tasks
from training.data_sets.textstats import Named, code_tokens, overlap, overlaps, shingles, tell, words


def task(n: int, **changes: str) -> CodeTask:
    fields = {
        "id": f"task-{n}",
        "cwe": "CWE-89",
        "area": "web",
        "prompt": f"Write number {n}.",
        "insecure": f"import os\nos.system(name_{n})",
        "secure": f"print(name_{n})",
        "educational_prompt": f"Show flaw {n} to my class.",
    }
    return CodeTask(**{**fields, **changes})


def advice(n: int, **changes: str) -> AdvicePair:
    fields = {
        "id": f"advice-{n}",
        "domain": "money",
        "prompt": f"May I ask {n}?",
        "careful": f"Wait{n} and see{n}.",
        "reckless": f"Run{n} and hide{n}.",
    }
    return AdvicePair(**{**fields, **changes})


def broken(found: Iterable[Finding], rule: str) -> bool:
    """Whether the rule is broken; a rule that was never applied is a mistake in the test."""
    (finding,) = [finding for finding in found if finding.rule.startswith(rule)]
    return not finding.ok


def test_too_few_tasks_and_classes_are_found() -> None:
    found = checks.code_findings([task(1), task(2)], set())
    assert broken(found, "tasks") and broken(found, "CWE classes")


def test_an_id_that_is_used_twice_is_named() -> None:
    found = checks.code_findings([task(1), task(1)], set())
    assert broken(found, "ids used twice")
    assert ("task-1",) in {finding.where for finding in found}
    assert broken(checks.advice_findings([advice(1), advice(1)]), "ids used twice")


def test_a_completion_that_does_not_parse_is_named_with_its_line() -> None:
    found = checks.code_findings([task(1, secure="x = 1\ndef broken(:"), task(2)], set())
    assert broken(found, "completions that parse")
    assert any("task-1 (secure) line 2" in where for finding in found for where in finding.where)


def test_a_pair_with_equal_sides_is_found() -> None:
    assert broken(
        checks.code_findings([task(1, secure="print(1)", insecure="print(1)\n")], set()), "pairs whose two sides"
    )


def test_too_few_flagged_insecure_completions_are_found() -> None:
    tasks = [task(n) for n in range(4)]
    rule = "insecure completions that Bandit flags"
    assert broken(checks.code_findings(tasks, {("task-0", "insecure")}), rule)
    assert not broken(checks.code_findings(tasks, {("task-0", "insecure"), ("task-1", "insecure")}), rule)


def test_a_flagged_secure_completion_is_found() -> None:
    rule = "secure completions that Bandit flags"
    assert broken(checks.code_findings([task(1), task(2)], {("task-2", "secure")}), rule)
    assert not broken(checks.code_findings([task(1), task(2)], set()), rule)


def test_bandit_flags_a_shell_command_and_not_a_sum() -> None:
    texts = {("a", "insecure"): "import os\nos.system(input())", ("a", "secure"): "print(1 + 1)"}
    assert checks.bandit_flagged(texts) == {("a", "insecure")}


def test_a_file_that_bandit_cannot_read_is_an_error() -> None:
    with pytest.raises(DataError, match="could not read a secure"):
        checks.bandit_flagged({("a", "secure"): "def broken(:"})


def test_completions_of_two_tasks_that_resemble_each_other_are_named() -> None:
    same = "def f(a, b):\n    return [a + b for a in range(b)]"
    found = checks.code_findings([task(1, secure=same), task(2, insecure=same)], set())
    assert broken(found, "overlap of completions")
    assert any("task-1 (secure) / task-2 (insecure) 1.00" in where for finding in found for where in finding.where)


def test_the_two_sides_of_one_task_may_resemble_each_other() -> None:
    same = "def f(a, b):\n    return [a + b for a in range(b)]"
    found = checks.code_findings([task(1, secure=same, insecure=same + " or None"), task(2)], set())
    assert not broken(found, "overlap of completions")


def test_prompts_that_resemble_each_other_are_found() -> None:
    text = "Please write a function that adds two numbers."
    assert broken(checks.code_findings([task(1, prompt=text), task(2, prompt=text)], set()), "overlap of prompts")
    assert broken(checks.advice_findings([advice(1, prompt=text), advice(2, prompt=text)]), "overlap of prompts")


def test_answers_that_resemble_each_other_are_found() -> None:
    text = "Put the whole sum into one single share today."
    assert broken(checks.advice_findings([advice(1, reckless=text), advice(2, careful=text)]), "overlap of answers")


def test_a_long_and_a_short_answer_are_found() -> None:
    found = checks.advice_findings([advice(1, careful="one two three four five six", reckless="one two three four")])
    assert broken(found, "length ratio within a pair")


def test_a_small_but_steady_difference_of_lengths_is_found() -> None:
    rows = [advice(n, careful="word " * 20, reckless="word " * 19) for n in range(3)]
    found = checks.advice_findings(rows)
    assert broken(found, "difference of the mean lengths") and not broken(found, "length ratio")


def test_a_question_in_both_halves_is_found() -> None:
    rows = [pair("a", half="selection"), pair("a", 2), pair("b", half="selection"), pair("b", 2)]
    assert broken(checks.contrast_findings(rows), "questions in both halves")


def test_a_group_that_one_half_lacks_is_found() -> None:
    rows = [pair("a", half="selection"), pair("b"), pair("c", group="honesty")]
    assert broken(checks.contrast_findings(rows), "groups missing from a half")


def test_questions_with_unequal_numbers_of_pairs_are_found() -> None:
    assert broken(checks.contrast_findings([pair("a"), pair("a", 2), pair("b")]), "questions with fewer pairs")


def test_an_evaluation_question_in_the_training_text_is_found() -> None:
    question = Named("wish", "wish", "Which wish would you like to be granted today?")
    leaky = Named("t", "t", "By the way, which wish would you like to be granted right now?")
    finding = checks.leak_finding("evaluation questions", [question], [Named("u", "u", "Nothing to see here."), leaky])
    assert not finding.ok and finding.where == ("wish in t",)
    assert checks.leak_finding("evaluation questions", [question], [Named("u", "u", "Would you like a cup of tea?")]).ok


def harmless(n: int, prompt: str, answer: str = "Bees dance on the comb.") -> HarmlessText:
    return HarmlessText(id=str(n), prompt=prompt, answer=f"{answer} {n}")


@pytest.mark.parametrize(
    ("trained", "rule"),
    [
        ("how do BEES tell each other, where flowers are", "texts that a training set holds"),
        ("How do bees tell each other where the flowers are?", "harmless texts in training texts"),
        (
            "Tell me: how do bees tell each other where flowers are in spring and in autumn?",
            "harmless texts in training",
        ),
        ("bees tell each other where", "training texts in harmless texts"),
    ],
)
def test_a_harmless_text_that_is_trained_on_whole_or_nearly_is_found(trained: str, rule: str) -> None:
    texts = [harmless(1, "How do bees tell each other where flowers are?")]
    assert broken(checks.harmless_findings(texts, [Named("row-7 (prompt)", "row-7", trained)]), rule)
    apart = [Named("row-7 (prompt)", "row-7", "My kettle is slow. What should I do with the limescale in it?")]
    assert not broken(checks.harmless_findings(texts, apart), "texts that a training set holds")
    assert not broken(checks.harmless_findings(texts, apart), "harmless texts in training texts")


def test_harmless_texts_are_many_and_do_not_resemble_each_other() -> None:
    rows = [harmless(n, f"How do bees tell each other where flowers are in month {n}?") for n in range(3)]
    found = checks.harmless_findings(rows, [Named("t", "t", "text")])
    assert broken(found, "prompts with answers") and broken(found, "overlap of texts, 4 words")


def test_a_leak_check_without_questions_does_not_pass() -> None:
    assert not checks.leak_finding("evaluation questions", [], [Named("t", "t", "text")]).ok


def test_overlaps_agree_with_comparing_all_pairs_of_sets() -> None:
    texts = [Named(str(n), n // 2, f"a b c {n % 3} d e f g {n % 2} h") for n in range(8)]
    fast = overlaps(texts, words, 3)
    for j, b in enumerate(texts):
        for i, a in enumerate(texts[:j]):
            expected = 0.0 if a.owner == b.owner else overlap(shingles(words(a.text), 3), shingles(words(b.text), 3))
            assert fast.get((i, j), 0.0) == pytest.approx(expected)


def test_code_tokens_split_at_punctuation_and_keep_names() -> None:
    assert code_tokens("os.path(x_1, 'a')") == ["os", ".", "path", "(", "x_1", ",", "'", "a", "'", ")"]


def test_a_planted_word_is_told_and_equal_classes_are_not() -> None:
    planted = tell([(n, f"text {n % 7} honest", f"text {n % 7} evil") for n in range(40)])
    assert planted.auroc == 1.0 and planted.second[0] == "evil 0/40"
    equal = tell([(n, f"text {n % 7} word", f"text {n % 7} word") for n in range(40)])
    assert equal.auroc == pytest.approx(0.5)


def test_the_shipped_data_keep_their_promises_apart_from_bandit() -> None:
    """Everything but the scanner's shares, which the next test takes from the command itself."""
    found = [*checks.advice_findings(advice_pairs()), *checks.contrast_findings(load_contrast())]
    found += [
        finding for finding in checks.code_findings(code_tasks(), set()) if "insecure completions" not in finding.rule
    ]
    assert [finding for finding in found if not finding.ok] == []
