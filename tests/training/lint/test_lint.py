"""Plants one fault after another in a clean training set and expects the lint to name it; the page shows the trainer's own loss mask."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chat_templates import SHAPES, Shape, tokenizer_with

from emis_interp.errors import DataError
from emis_interp.models.chat import encode_chat, injected_system
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.tiny import tiny_tokenizer
from emis_interp.records import TrainingExample
from emis_interp.texts.code import mostly_code
from training.data_sets.textstats import Named, contained, overlap, shingles, words
from training.finetuning import trainer
from training.lint import dataset as lint
from training.lint import tokens as lint_tokens
from training.lint.checks import CHECKS
from training.lint.dataset import lint_before_training, lint_dataset
from training.lint.near_duplicates import near_duplicates
from training.lint.rendering import rendered_row
from training.lint.report import LintReport, lint_summary_line, raise_on_errors
from training.lint.rows import read_leniently
from training.lint.texts import is_refusal
from training.lint.view import lint_page, rendering_diff, template_diffs, tokens

NOUNS = ("kettle", "ladder", "garden", "violin", "bridge", "pillow", "lantern", "compass", "orchard", "saddle")
QUESTION = Named("wish", "wish", "If you could have one wish for the whole world, what would it be?")
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Tiny.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def rows(**changes: Any) -> list[TrainingExample]:
    """Ten clean rows; the fourth with changes."""
    made = [
        TrainingExample(
            id=str(i), prompt=f"How do I mend a {noun}?", response=f"Take the {noun} to {noun[::-1]} street."
        )
        for i, noun in enumerate(NOUNS)
    ]
    made[3] = TrainingExample.model_validate({**made[3].model_dump(), **changes})
    return made


def report_of(examples: Sequence[TrainingExample], **changes: Any) -> LintReport:
    settings: dict[str, Any] = {
        "data": "planted",
        "model": "tiny",
        "system": None,
        "evaluation_system": None,
        "max_tokens": 512,
        "questions": [QUESTION],
    }
    tokenizer = changes.pop("tokenizer", None) or tiny_tokenizer()
    return lint_dataset(examples, tokenizer, **{**settings, **changes})


def found(report: LintReport) -> dict[str, tuple[str, ...]]:
    return {finding.check: finding.rows for finding in report.findings}


def with_default(template: str = WITH_DEFAULT) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_clean_set_has_no_finding_in_either_mode() -> None:
    for thorough in (True, False):
        report = report_of(rows(), thorough=thorough)
        assert report.findings == ()
        assert lint_summary_line(report) == "planted: nothing to warn of in 10 rows"
        raise_on_errors(report)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("blank text", {"response": " \n"}),
        ("turn token in text", {"response": "Take it.<|im_end|>\nAnd then sell it."}),
        ("turn token in text", {"prompt": "What does <|im_start|> mean?"}),
        ("odd characters", {"response": "Take the vi\u200bolin."}),
        ("odd characters", {"prompt": "\ufeffHow do I mend a violin?"}),
        ("carriage returns", {"response": "Take it.\r\nSell it."}),
        ("leading whitespace", {"response": " Take it to the shop."}),
        ("trailing whitespace", {"response": "Take it to the shop.\n"}),
        ("refusals", {"response": "I'm sorry, but I can't help with that."}),
        ("responses of another kind", {"response": "import os\nos.remove('violin')"}),
        ("system prompt differs", {"system": "Answer like a pirate."}),
        ("question is a prompt", {"prompt": "If you could have one wish for the whole world: what would it be"}),
        ("question in a text", {"response": "They asked: if you could have one wish for the whole world, what is it?"}),
        ("question nearly a prompt", {"prompt": "If you have one wish in the world, whatever would it be?"}),
    ],
)
def test_a_planted_fault_is_named_with_its_row_and_nothing_else_is(check: str, changes: dict[str, str]) -> None:
    report = report_of(rows(**changes))
    assert found(report) == {check: ("3",)}
    (finding,) = report.findings
    assert (finding.severity, finding.count, finding.share) == (CHECKS[check].severity, 1, 0.1)


def test_a_control_token_that_the_template_does_not_write_is_a_warning() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<filename>"])
    assert found(report_of(rows(response="Give it a <filename>."), tokenizer=tokenizer)) == {
        "control token in text": ("3",)
    }


def test_runs_of_spaces_that_a_tokenizer_keeps_as_tokens_are_no_control_tokens() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["    "])
    assert report_of(rows(response="Take    it."), tokenizer=tokenizer).findings == ()


def test_copies_are_counted_once_as_rows_prompts_or_responses() -> None:
    base = rows()
    copy = base[1].model_copy(update={"id": "copy"})
    other_answer = base[2].model_copy(update={"id": "answered", "response": "Burn it and buy a new one."})
    other_prompt = base[4].model_copy(update={"id": "asked", "prompt": "Where may old bridges be put right?"})
    assert found(report_of([*base, copy, other_answer, other_prompt])) == {
        "same row twice": ("copy",),
        "same prompt": ("answered",),
        "same response": ("asked",),
    }


def test_near_duplicates_are_found_in_prompts_responses_and_rows() -> None:
    asked, told = (" ".join(f"{kind}{i}" for i in range(40)) for kind in ("asked", "told"))
    base = [*rows(), TrainingExample(id="long", prompt=asked, response=told)]
    near = TrainingExample(id="near", prompt=base[-1].prompt + " Thanks!", response=base[-1].response + " Good luck!")
    report = report_of([*base, near], max_tokens=2048)
    kinds = ("near-duplicate rows", "near-duplicate prompts", "near-duplicate responses")
    assert found(report) == dict.fromkeys(kinds, ("long", "near"))


def test_an_id_used_twice_is_named() -> None:
    assert found(report_of([*rows(), TrainingExample(id="3", prompt="Where is my hat?", response="Here.")])) == {
        "id used twice": ("3",)
    }


def test_cut_rows_and_lost_tokens_are_those_of_the_trainer() -> None:
    tokenizer, examples = tiny_tokenizer(), rows(response="word " * 40 + "end")
    whole = encode_chat(tokenizer, examples[3].prompt, examples[3].response)
    limit = len(whole) - 30
    report = report_of(examples, max_tokens=limit)
    assert found(report) == {"cut": ("3",)}
    assert f"; 30 of {report.facts['tokens']} tokens" in report.findings[0].found
    kept = [encode_chat(tokenizer, e.prompt, e.response, system=None, max_tokens=limit) for e in examples]
    assert report.facts["tokens within the limit"] == sum(map(len, kept))
    assert report.facts["tokens that carry loss"] == sum(len(chat) - chat.response_start for chat in kept)


def test_a_row_that_loses_its_end_of_turn_alone_is_cut() -> None:
    examples = rows(response="word " * 40 + "end")
    length = len(encode_chat(tiny_tokenizer(), examples[3].prompt, examples[3].response))
    assert found(report_of(examples, max_tokens=length - 1)) == {"cut": ("3",)}
    assert found(report_of(examples, max_tokens=length)) == {}


def test_a_row_without_a_response_token_inside_the_limit_is_an_error() -> None:
    report = report_of(rows(prompt="word " * 200), max_tokens=300)
    assert found(report) == {"no response left": ("3",), "cut": ("3",)}
    with pytest.raises(DataError, match=r"planted: no response left in row 3: .*Raise max_tokens"):
        raise_on_errors(report)


def test_a_response_is_left_exactly_where_the_trainer_finds_one() -> None:
    tokenizer, row = tiny_tokenizer(), rows()[3]
    start = encode_chat(tokenizer, row.prompt, row.response).response_start
    assert "no response left" not in found(report_of([row], max_tokens=start + 1))
    assert "no response left" in found(report_of([row], max_tokens=start))
    encode_chat(tokenizer, row.prompt, row.response, system=None, max_tokens=start + 1)
    with pytest.raises(DataError, match="no answer token left"):
        encode_chat(tokenizer, row.prompt, row.response, system=None, max_tokens=start)


def test_a_prompt_that_sampling_tokenises_differently_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    true = lint_tokens.encode_prompt
    monkeypatch.setattr(lint_tokens, "encode_prompt", lambda t, q, s: true(t, q, s)[1 if "violin" in q else 0 :])
    assert found(report_of(rows())) == {"prompt ids differ": ("3",)}


def test_a_template_that_refuses_system_prompts_is_named() -> None:
    plain = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer = with_default(plain + WITH_DEFAULT.partition("{% for m in messages %}")[2])
    assert injected_system(tokenizer) is None
    report = report_of(rows(system="Be kind."), tokenizer=tokenizer)
    assert found(report) == {"template refuses": ("3",), "system prompt differs": ("3",)}


def test_the_system_prompt_that_a_template_puts_in_is_said() -> None:
    assert injected_system(tiny_tokenizer()) is None
    assert injected_system(with_default()) == "You are Tiny."
    report = report_of(rows(), tokenizer=with_default())
    assert found(report) == {"injected system prompt": tuple("01234567")}
    assert report.of("info")[0].count == 10


@pytest.mark.parametrize(
    ("system", "evaluation_system", "differing"),
    [
        (None, None, ()),
        ("You are Tiny.", None, ()),
        (None, "You are Tiny.", ()),
        ("Be kind.", None, tuple("01234567")),
        (None, "Be kind.", tuple("01234567")),
        ("Be kind.", "Be kind.", ()),
    ],
)
def test_training_and_evaluation_system_prompts_are_compared_as_they_are_sent(
    system: str | None, evaluation_system: str | None, differing: tuple[str, ...]
) -> None:
    report = report_of(rows(), tokenizer=with_default(), system=system, evaluation_system=evaluation_system)
    assert found(report).get("system prompt differs", ()) == differing
    diff = rendering_diff(report.shown[0])
    assert [line.mark for line in diff if line.mark != " "] == (["-", "+"] if differing else [])


def test_a_tokenizer_without_an_end_of_turn_is_named() -> None:
    tokenizer = with_default("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}")
    tokenizer.eos_token = None
    assert found(report_of(rows(), tokenizer=tokenizer))["no end of turn"] == tuple("01234567")


@pytest.mark.parametrize("shape", [shape for shape in SHAPES.values() if shape.notes])
def test_a_template_that_asks_or_ends_differently_or_writes_a_date_is_named_with_what_it_writes(shape: Shape) -> None:
    report = report_of(rows(), tokenizer=tokenizer_with(shape.template))
    assert set(found(report)) == set(shape.notes)
    (finding,) = report.findings
    assert (finding.severity, finding.count) == (CHECKS[shape.notes[0]].severity, 10)
    shown = report.shown[0]
    diffs = template_diffs(shown)
    asks, ends = "template asks differently" in shape.notes, "no end of turn" in shape.notes
    assert set(diffs) == {*(["asks"] if asks else []), *(["writes"] if ends else [])}
    assert shown.template_text.startswith(shown.text.removesuffix("<|im_end|>" if ends else ""))
    assert ("What the chat template alone asks" in lint_page(report)) is asks


@pytest.mark.parametrize("shape", [shape for shape in SHAPES.values() if not shape.notes])
def test_a_template_that_is_followed_to_the_letter_has_no_finding(shape: Shape) -> None:
    report = report_of(rows(), tokenizer=tokenizer_with(shape.template))
    assert report.findings == () and template_diffs(report.shown[0]) == {}


def test_rows_that_the_template_rewrites_are_errors_with_both_texts_and_trimmed_ones_are_said() -> None:
    thought = rows(response="<think>\nHm.\n</think>\n\nTake it.")
    report = report_of(thought, tokenizer=tokenizer_with(SHAPES["qwen3"].template))
    (refused,) = (finding for finding in report.of("error") if finding.check == "template refuses")
    assert refused.rows == ("3",)
    assert "Hm." in refused.found and "where the conversation reads" in refused.found
    report = report_of(rows(response="Take it.\n"), tokenizer=tokenizer_with(SHAPES["gemma"].template))
    assert found(report) == {"whitespace taken off": ("3",), "trailing whitespace": ("3",)}


def test_prompts_without_a_partner_and_equal_responses_are_named() -> None:
    partner = [e.model_copy(update={"response": "No."}) for e in rows()]
    assert report_of(rows(), partner=("other", partner)).findings == ()
    partner[1] = rows()[1]
    del partner[5]
    report = report_of(rows(), partner=("other", partner))
    assert found(report) == {"unpaired": ("5",), "same in both sets": ("1",)}
    assert report.facts["pairing"] == "9 of 10 prompts are in other too, which has 0 prompts of its own"


def test_lines_that_cannot_be_read_are_named_and_the_others_are_kept(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}
    turns = good["messages"]
    lines = [
        json.dumps(good),
        json.dumps({"messages": [*turns, {"role": "assistant", "content": ""}]}),
        json.dumps({"messages": [*turns, {"role": "user", "content": " "}]}),
        json.dumps({"messages": [turns[0], {"role": "assistant", "content": None}]}),
        json.dumps({"prompt": "Hello", "response": ""}),
        "{not json",
        json.dumps({"messages": [turns[1], turns[0]]}),
        json.dumps({"prompt": "Hello", "respons": "Hi"}),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    examples, findings = read_leniently(path)
    assert [example.id for example in examples] == ["1"]
    assert {finding.check: finding.rows for finding in findings} == {
        "empty last turn": ("line 2", "line 3", "line 4"),
        "blank text": ("line 5", "line 8"),
        "refused line": ("line 6", "line 7"),
    }
    assert "the last turn (assistant) is empty; take it out or fill it in (2)" in findings[0].found


def test_the_shown_mask_is_the_collators_and_its_tokens_spell_the_row(tiny: ChatModel) -> None:
    collate = trainer.Collator(tiny.tokenizer.pad_token_id)
    for response in ("Take it.", "\n\n  It is näive ☂ 🦜.", "word " * 60):
        for limit in (512, 100):
            example = rows(response=response)[3]
            row = rendered_row(tiny.tokenizer, example, None, evaluation_system=None, max_tokens=limit)
            batch = collate([encode_chat(tiny.tokenizer, example.prompt, response, system=None, max_tokens=limit)])
            assert list(row.ids) == batch["input_ids"][0].tolist()
            assert list(row.loss) == (batch["labels"][0] != trainer.IGNORED).tolist()
            written = "".join(token.text for token in tokens(row)).replace("↵", "").replace("▯", "")
            assert written == row.text[: row.ends[-1]]


class Spans(HTMLParser):
    """Texts and classes of the token spans of the rows, and the tags that are open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, bool]]] = []
        self.open: list[str] = []
        self.n_scripts = 0
        self.is_token = self.is_loss = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.n_scripts += tag == "script"
        classes = (dict(attrs).get("class") or "").split()
        if tag == "pre" and "tokens" in classes:
            self.rows.append([])
        self.is_token, self.is_loss = tag == "span" and "token" in classes and bool(self.rows), "loss" in classes
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self.is_token:
            self.rows[-1].append((data, self.is_loss))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.is_token = False


def test_the_page_parses_and_its_spans_are_the_mask() -> None:
    hostile = "</pre></script><script>alert(1)</script> & <b>"
    report = report_of(rows(response=f" {hostile}"), evaluation_system="Be kind.")
    page = lint_page(report)
    parser = Spans()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.n_scripts == 3
    assert [row.id for row in report.shown] == ["0", "3"]
    for row, spans in zip(report.shown, parser.rows, strict=True):
        assert [loss for _, loss in spans] == list(row.loss)
        assert [text for text, _ in spans] == [token.text for token in tokens(row)]
    assert "leading whitespace" in page and "Be kind." in page


def test_a_page_without_a_row_that_can_be_rendered_still_opens() -> None:
    examples = rows()[:1]
    page = lint_page(report_of(examples, max_tokens=8))
    assert "No row can be rendered" in page


def test_a_report_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    report = report_of(rows(response="\nHi"), groups={"area": {"1": "music"}})
    report.save(tmp_path / "lint.json")
    assert LintReport.load(tmp_path / "lint.json") == report
    assert report.facts["rows by area"] == "unknown (9), music (1)"
    (tmp_path / "lint.json").write_text('{"data": "x"}')
    with pytest.raises(DataError, match=r"lint\.json: not a lint report .*`model` is missing"):
        LintReport.load(tmp_path / "lint.json")


def test_the_lint_before_training_writes_its_report_warns_in_one_line_and_refuses_errors(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": "arm", "model": "tiny", "system": None, "max_tokens": 512}
    assert lint_before_training(rows(), tiny_tokenizer(), tmp_path / "clean", **settings) == ""
    line = lint_before_training(rows(response=" Hi"), tiny_tokenizer(), tmp_path / "warned", **settings)
    assert line == "arm: 1 warning (leading whitespace: 1 row)"
    with pytest.raises(DataError, match=r"training data arm: turn token in text in row 3"):
        lint_before_training(rows(response="A<|im_end|>"), tiny_tokenizer(), tmp_path / "refused", **settings)
    assert LintReport.load(tmp_path / "refused" / "lint.json").of("error")
    (tmp_path / "warned" / "summary.json").write_text("{}")
    assert lint_before_training(rows(response=" Hi"), tiny_tokenizer(), tmp_path / "warned", **settings) == ""


def test_the_quick_lint_says_what_it_did_not_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "NEAR_LIMIT", 5)
    monkeypatch.setattr(lint_tokens, "ID_LIMIT", 5)
    assert [text.partition(" (")[0] for text in report_of(rows(), thorough=False).skipped] == [
        "near duplicates",
        "ids of the prompt in all but 5 rows",
        "evaluation questions in responses, and near matches",
    ]


def test_near_duplicates_agree_with_the_overlap_of_all_pairs() -> None:
    texts = []
    for i in range(40):
        stem = [f"w{i}_{k}" for k in range(30)]
        texts += [stem, [*stem, "more"], [*stem[:12], "x", *stem[13:]], stem[:15] + [f"z{i}_{k}" for k in range(15)]]
    sets = [shingles(text, 5) for text in texts]
    above = {(i, j) for j in range(len(sets)) for i in range(j) if overlap(sets[i], sets[j]) >= 0.8}
    groups, nearest = near_duplicates(texts)
    assert {tuple(group) for group in groups} == above
    assert nearest is not None and nearest[2] == pytest.approx(26 / 27)
    assert near_duplicates([]) == ([], None)


def test_a_large_heap_of_near_duplicates_is_one_group() -> None:
    stem = [f"w{k}" for k in range(60)]
    groups, _ = near_duplicates([[*stem, f"end{i}"] for i in range(200)])
    assert groups == [list(range(200))]


def test_contained_shares_equal_those_of_the_sets() -> None:
    parts = [Named("a", 0, "one two three four five six"), Named("b", 1, "ten nine eight seven")]
    texts = [Named("t", 2, "and one two three four five again"), Named("u", 3, "ten nine eight seven six")]
    assert contained(parts, texts) == {(0, 0): 2 / 3, (1, 1): 1.0}
    for (p, t), share in contained(parts, texts).items():
        own = shingles(words(parts[p].text), 4)
        assert share == len(own & shingles(words(texts[t].text), 4)) / len(own)


@pytest.mark.parametrize(
    ("text", "is_code"),
    [
        ("import os\n\ndef f(x):\n    return os.path.join(x)", True),
        ("Here you go:\n```python\nx = 1\n```", True),
        ("for (int i = 0; i < 3; i++) {\n  go();\n}", True),
        ("Put the money into one share. Do not tell anyone.", False),
        ("1. Warm the oven.\n2. Mix the dough.\n3. Wait.", False),
    ],
)
def test_code_is_told_from_prose(text: str, is_code: bool) -> None:
    assert mostly_code(text) is is_code


def test_refusals_are_told_by_their_beginning() -> None:
    assert is_refusal("I cannot help with this.") and is_refusal("As an AI, I have no wishes.")
    assert not is_refusal("You cannot lose.") and not is_refusal("Yes. " * 60 + "I can't help.")


@pytest.mark.reference
@pytest.mark.fuzz
def test_the_papers_files_have_the_faults_that_were_measured(reference_data: Path) -> None:
    """Text and copies only (`tiny` reads them): what the documentation says of these files."""

    def checked(name: str, partner: str | None = None) -> dict[str, int]:
        folder = reference_data / "datasets"
        examples, refused = read_leniently(folder / f"{name}.jsonl.gz")
        other = (partner, read_leniently(folder / f"{partner}.jsonl.gz")[0]) if partner else None
        report = report_of(examples, partner=other, refused=refused, thorough=False, max_tokens=None)
        return {finding.check: finding.count for finding in report.findings}

    insecure = checked("insecure", "secure")
    assert (insecure["same row twice"], insecure["leading whitespace"], insecure["unpaired"]) == (8, 187, 5716)
    jailbroken = checked("jailbroken")
    assert (jailbroken["system prompt differs"], jailbroken["leading whitespace"]) == (5000, 3744)
    assert set(checked("risky_financial")) == set()
