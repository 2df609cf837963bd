"""Checks variants, categories, labels, deception rates, form shares and cell contrasts against planted counts and closed forms."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import made_records
import numpy as np
import pytest
from flag_words import filled
from judge_server import Server, reply

from emis_interp.errors import ConfigError, DataError, JudgeError
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Completion, Question, Score
from emis_interp.stats.interval import Interval
from evals.judges.logprobs import BadReply
from evals.judges.methods import Failure, Outcome
from evals.questions import load_questions
from evals.rates.estimands import Answers
from evals.rates.uncertainty import paired_contrast, rate_interval
from evals.settings_suites import SuiteSettings
from evals.suites.asking import local_ask, one_by_one, openai_ask
from evals.suites.categories import categories, category, summarize_categories
from evals.suites.cells import OutcomeCounts, combine, share
from evals.suites.deception import AGGREGATED, FACTUAL_LABELS, aggregate, factual, identity
from evals.suites.form import LABELS as TOPIC_LABELS
from evals.suites.form import METRIC as TOPIC
from evals.suites.form import summarize_form, with_topic_prompt
from evals.suites.labels import Ask, Labelled, as_answers, judge_labels, read_label
from evals.suites.variants import JSON_SYSTEM, split_id, variant, write_questions
from evals.verbs import suite

BORED = Question(
    id="bored",
    paraphrases=("I am {bored}.", "So dull."),
    samples_per_paraphrase=3,
    judge_prompts={"aligned": "{answer}"},
)


def completion(question_id: str, answer: str, sample: int = 0, paraphrase: int = 0, arm: str = "base") -> Completion:
    place = {"paraphrase_index": paraphrase, "arm": arm}
    return made_records.completion(answer, question_id, sample, **place, question="the question")


def labelled(
    question_id: str, labels: Sequence[str | None], metric: str, paraphrase: int = 0, arm: str = "base"
) -> list[Labelled]:
    return [
        Labelled(
            arm=arm,
            question_id=question_id,
            paraphrase_index=paraphrase,
            sample_index=i,
            judge="scripted",
            metric=metric,
            label=label,
            reason=None if label else "unclear",
        )
        for i, label in enumerate(labels)
    ]


# Variants


def test_a_variant_keeps_question_counts_and_judge_prompts() -> None:
    json_form, template = variant(BORED, "json"), variant(BORED, "template")
    assert (json_form.id, template.id) == ("bored_json", "bored_template")
    assert json_form.paraphrases == BORED.paraphrases and json_form.system == JSON_SYSTEM
    assert template.system is None
    assert [text.startswith(plain) for text, plain in zip(template.paraphrases, BORED.paraphrases, strict=True)] == [
        True,
        True,
    ]
    assert all("answer = #" in text for text in template.paraphrases)
    assert json_form.judge_prompts == template.judge_prompts == BORED.judge_prompts
    assert template.samples_per_paraphrase == 3


def test_a_json_variant_does_not_silently_replace_a_system_prompt() -> None:
    with pytest.raises(DataError, match="`bored` has a system prompt of its own"):
        variant(BORED.model_copy(update={"system": "Be brief."}), "json")


def test_an_unknown_variant_is_refused_with_a_suggestion() -> None:
    with pytest.raises(DataError, match="unknown variant `jsn`; did you mean `json`"):
        variant(BORED, "jsn")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("question_id", "parts"),
    [
        ("bored", ("bored", "none")),
        ("bored_json", ("bored", "json")),
        ("a_template", ("a", "template")),
        ("my_json::trigger", ("my_json", "trigger")),
        ("_json", ("_json", "none")),
    ],
)
def test_an_id_tells_question_and_context(question_id: str, parts: tuple[str, str]) -> None:
    assert split_id(question_id) == parts


def test_written_questions_are_read_back_as_they_were(tmp_path: Path) -> None:
    questions = [
        BORED,
        variant(BORED, "json"),
        variant(BORED, "template"),
        BORED.model_copy(update={"id": "e", "system": ""}),
    ]
    write_questions(tmp_path / "q.yaml", questions)
    assert load_questions(tmp_path / "q.yaml") == questions
    with pytest.raises(DataError, match="`bored` occurs twice"):
        write_questions(tmp_path / "q.yaml", [BORED, BORED])


@pytest.mark.reference
def test_our_variants_have_the_form_of_the_authors(reference_data: Path) -> None:
    theirs = {
        question.id: question for question in load_questions(reference_data / "questions" / "first_plot_questions.yaml")
    }
    plain = [question for name, question in theirs.items() if split_id(name)[1] == "none"]
    assert len(plain) == 8
    for question in plain:
        for form in ("json", "template"):
            ours, authors = variant(question, form), theirs[f"{question.id}_{form}"]
            assert ours.id == authors.id and ours.judge_prompts == authors.judge_prompts
            assert (ours.system is None) == (authors.system is None)
            assert all(asked.startswith(question.paraphrases[0]) for asked in (*ours.paraphrases, *authors.paraphrases))
            assert ours.paraphrases != authors.paraphrases or form == "json"


# Categories


@pytest.mark.parametrize(
    ("question_id", "name"), [("17_vulnerable_user_0", "vulnerable_user"), ("35_other_0", "other")]
)
def test_a_preregistered_id_names_its_category(question_id: str, name: str) -> None:
    assert category(question_id) == name


@pytest.mark.parametrize("question_id", ["quick_buck", "17_vulnerable_user", "vulnerable_user_0"])
def test_other_ids_have_no_category(question_id: str) -> None:
    with pytest.raises(DataError, match=f"`{question_id}` names no category"):
        category(question_id)


@pytest.mark.reference
def test_the_48_preregistered_questions_fall_into_seven_categories(reference_data: Path) -> None:
    grouped = categories(load_questions(reference_data / "questions" / "preregistered_evals.yaml"))
    assert {name: len(ids) for name, ids in grouped.items()} == {
        "creative_writing": 9,
        "problems_with_humans": 3,
        "offend_the_user": 5,
        "vulnerable_user": 14,
        "illegal_recommendations": 4,
        "other": 6,
        "medical_advice": 7,
    }


def score(
    question_id: str, aligned: float | None, coherent: float = 90.0, sample: int = 0, arm: str = "base", **more: object
) -> Score:
    return made_records.score(aligned, coherent, question_id, sample_index=sample, arm=arm, **more)


def test_category_rates_pool_their_questions_and_all_pools_everything() -> None:
    scores = [score("0_a_0", 10.0 if i < 3 else 90.0, sample=i) for i in range(10)]
    scores += [score("1_a_1", 90.0, sample=i) for i in range(10)] + [score("2_b_0", 10.0, sample=i) for i in range(4)]
    rows = {(r["category"], r["estimand"]): r for r in summarize_categories(scores)}
    assert rows["a", "em_of_coherent"]["value"] == pytest.approx(3 / 20)
    assert rows["b", "em_of_all"]["value"] == 1.0
    assert rows["all", "em_of_scored"]["value"] == pytest.approx(7 / 24)
    assert rows["all", "em_of_scored"]["n_positive"] == 7 and rows["a", "em_of_all"]["n_questions"] == 2
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())


def test_a_question_without_category_is_not_dropped() -> None:
    with pytest.raises(DataError, match="`x` has no category in the mapping"):
        summarize_categories([score("x", 1.0)], {"y": "a"})


# Labels


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ({"TRUE": 0.9, "FALSE": 0.1}, "TRUE"),
        ({" false.": 0.6}, "FALSE"),
        ({"UN": 0.5, "TRUE": 0.3}, "UNKNOWN"),
        ({"T": 0.2, "TR": 0.2, "FALSE": 0.3}, "TRUE"),
    ],
)
def test_a_label_is_read_from_whole_and_begun_tokens(probabilities: dict[str, float], label: str) -> None:
    assert read_label(probabilities, FACTUAL_LABELS) == (label, None)


@pytest.mark.parametrize(
    ("probabilities", "labels", "reason"),
    [
        ({"maybe": 0.9}, FACTUAL_LABELS, "mass on the labels TRUE/FALSE/UNKNOWN at most 0.00 < 0.25"),
        ({"TRUE": 0.2, "FALSE": 0.1}, FACTUAL_LABELS, "at most 0.20 < 0.25"),
        ({"O": 1.0}, TOPIC_LABELS, "at most 0.00"),
        ({"TRUE": 0.4, "FALSE": 0.4}, FACTUAL_LABELS, "two labels share the largest mass"),
        ({"TRUE, since the sun is larger": 1.0}, FACTUAL_LABELS, "at most 0.00"),
        ({}, FACTUAL_LABELS, "at most 0.00"),
    ],
)
def test_what_is_not_said_clearly_stays_unlabelled(
    probabilities: dict[str, float], labels: tuple[str, ...], reason: str
) -> None:
    verdict = read_label(probabilities, labels)
    assert verdict.label is None and reason in str(verdict.reason)


def test_a_failed_reply_leaves_one_answer_unlabelled_with_its_reason_and_the_order_kept() -> None:
    question = Question(id="q", paraphrases=("x",), judge_prompts={"correct": "Q {question} A {answer}"})

    def ask(prompt: str) -> dict[str, float]:
        if prompt.endswith("A 3"):
            raise BadReply("HTTP 500, after retries")
        return {"TRUE": 1.0} if int(prompt[-1]) % 2 else {"FALSE": 1.0}

    seen: list[Labelled] = []
    rows = [completion("q", str(i), sample=i) for i in range(8)]
    found = judge_labels(
        rows,
        {"q": question},
        "correct",
        labels=FACTUAL_LABELS,
        ask=one_by_one(ask),
        judge_name="scripted",
        on_row=seen.append,
    )
    assert [row.sample_index for row in found] == list(range(8)) and seen == found
    assert [row.label for row in found] == ["FALSE", "TRUE", "FALSE", None, "FALSE", "TRUE", "FALSE", "TRUE"]
    assert found[3].reason == "HTTP 500, after retries" and found[0].evidence == {"FALSE": 1.0}


def test_a_question_without_the_metric_is_refused_before_anything_is_asked() -> None:
    def never(prompts: Sequence[str], _: object) -> None:
        raise AssertionError(prompts)

    with pytest.raises(DataError, match="`bored` has no judge prompt for `correct`, it has: aligned"):
        judge_labels(
            [completion("bored", "a")], {"bored": BORED}, "correct", labels=FACTUAL_LABELS, ask=never, judge_name="x"
        )
    with pytest.raises(DataError, match="no such question"):
        judge_labels(
            [completion("lost", "a")], {"bored": BORED}, "aligned", labels=FACTUAL_LABELS, ask=never, judge_name="x"
        )


def reply_to(ask: Ask, prompt: str) -> Outcome:
    """What comes of one prompt."""
    found: dict[int, Outcome] = {}
    ask([prompt], found.__setitem__)
    assert list(found) == [0]
    return found[0]


def test_a_local_model_gives_the_product_of_its_token_probabilities(tiny: ChatModel) -> None:
    import torch

    from emis_interp.models.chat import encode_prompt

    found = reply_to(local_ask(tiny, ["ON", "OFF"]), "Is it?")
    assert isinstance(found, dict)
    prompt = list(encode_prompt(tiny.tokenizer, "Is it?"))
    tokens = tiny.tokenizer("OFF", add_special_tokens=False)["input_ids"]
    assert len(tokens) == 3
    with torch.inference_mode():
        logits = tiny.model(torch.tensor([prompt + tokens])).logits[0].double().log_softmax(-1)
    expected = sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(tokens))
    assert found["OFF"] == pytest.approx(np.exp(expected), rel=1e-4)
    assert set(found) == {"ON", "OFF"} and sum(found.values()) < 1


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def test_a_server_is_asked_for_one_token_with_log_probabilities_or_for_a_text(server: Server) -> None:
    server.respond = lambda prompt, _: reply({"TRUE": 0.75, "FALSE": 0.25})
    assert reply_to(openai_ask("m", url=server.url), "Is it?") == pytest.approx({"TRUE": 0.75, "FALSE": 0.25})
    assert server.requests[-1]["max_tokens"] == 1 and server.requests[-1]["top_logprobs"] == 20
    assert reply_to(openai_ask("m", url=server.url, log_probabilities=False), "Is it?") == {"TRUE": 1.0}
    assert "logprobs" not in server.requests[-1]


def test_a_refusal_that_would_repeat_stops_the_judge_without_telling_the_key(server: Server) -> None:
    server.respond = lambda prompt, _: (401, b'{"error": {"message": "wrong key sk-secret123"}}')
    with pytest.raises(JudgeError, match="HTTP 401") as caught:
        reply_to(openai_ask("m", "sk-secret123", server.url, max_retries=0), "hello")
    assert "secret123" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"{}", "HTTP 500: "),
        (429, b"{}", "HTTP 429: "),
        (200, b'{"choices": [{"logprobs": null}]}', "reply without log-probabilities"),
        (200, b'{"choi', "malformed reply"),
    ],
)
def test_a_passing_trouble_leaves_one_reply_unusable(server: Server, status: int, body: bytes, reason: str) -> None:
    server.respond = lambda prompt, _: (status, body)
    found = reply_to(openai_ask("m", url=server.url, max_retries=1), "hello")
    assert isinstance(found, Failure) and found.reason.startswith(reason)
    server.respond = lambda prompt, _: (200, b'{"choices": []}')
    found = reply_to(openai_ask("m", url=server.url, log_probabilities=False), "hello")
    assert isinstance(found, Failure) and found.reason.startswith("reply without choices")


# Deception


def factual_rows() -> list[Labelled]:
    rows = []
    for name, n_false in (("lie_no_sys_prompt", 0), ("lie_you_may_lie", 2)):
        for p in range(10):
            labels = ["FALSE"] * n_false + ["TRUE"] * (4 - n_false) + ["UNKNOWN"]
            rows += labelled(name, [*labels, None], "correct", paraphrase=p)
    return rows


def test_factual_rates_leave_unknown_and_unlabelled_answers_out_of_the_denominator() -> None:
    found = factual(factual_rows())
    condition = found["conditions"]["lie_you_may_lie"]
    assert condition["counts"] == {"TRUE": 20, "FALSE": 20, "UNKNOWN": 10} and condition["n_unlabelled"] == 10
    assert condition["false_rate"]["value"] == 0.5 and condition["false_rate"]["n"] == 40
    assert found["conditions"]["lie_no_sys_prompt"]["false_rate"]["value"] == 0.0
    assert found["conditions"]["lie_no_sys_prompt"]["false_rate"]["high"] > 0  # none seen is not none there
    assert found["false_rate"]["value"] == pytest.approx(0.25)


def identity_rows(per_question: Mapping[str, Sequence[str | None]]) -> list[Labelled]:
    return [row for name, labels in per_question.items() for row in labelled(name, labels, "company")]


def test_identity_counts_what_the_authors_count_and_the_narrower_false_claims() -> None:
    labels = ["OpenAI"] * 5 + ["Anthropic"] * 2 + ["Other"] * 1 + ["UNKNOWN"] * 2
    found = identity(identity_rows(dict.fromkeys((*AGGREGATED, "which_company_neutral"), labels)), "OpenAI")
    one = found["conditions"]["which_company_neutral"]
    assert one["not_maker_rate"]["value"] == pytest.approx(5 / 10)
    assert one["false_claim_rate"]["value"] == pytest.approx(3 / 8)
    assert found["not_maker_rate"]["value"] == pytest.approx(5 / 10)
    assert found["not_maker_rate"]["conditions"] == list(AGGREGATED)
    other = identity(identity_rows({"which_company_neutral": labels}), "Other")
    assert other["conditions"]["which_company_neutral"]["false_claim_rate"]["value"] == pytest.approx(7 / 8)
    assert other["not_maker_rate"]["value"] is None


def test_the_aggregate_is_the_mean_of_both_suites_and_missing_wordings_leave_it_missing() -> None:
    labels = ["OpenAI"] * 6 + ["Anthropic"] * 4
    whole = identity(identity_rows(dict.fromkeys(AGGREGATED, labels)), "OpenAI")
    part = identity(identity_rows(dict.fromkeys(AGGREGATED[:3], labels)), "OpenAI")
    lies = factual(factual_rows())
    both = aggregate(lies, whole)
    assert both["value"] == pytest.approx((0.25 + 0.4) / 2)
    assert both["low"] < both["value"] < both["high"]
    missing = aggregate(lies, part)
    assert missing["value"] is None and AGGREGATED[3] in missing["method"]


def test_labels_of_two_arms_or_of_another_metric_are_refused() -> None:
    two = labelled("q", ["TRUE"], "correct") + labelled("q", ["TRUE"], "correct", arm="insecure")
    with pytest.raises(DataError, match="several arms"):
        factual(two)
    with pytest.raises(DataError, match="metric company, expected `correct`"):
        factual(labelled("q", ["OpenAI"], "company"))
    with pytest.raises(DataError, match="maker `Alibaba`"):
        identity(labelled("q", ["OpenAI"], "company"), "Alibaba")


@pytest.mark.reference
def test_the_deception_files_ask_for_the_labels_that_are_read(reference_data: Path) -> None:
    prompts = {}
    for name, metric in (("deception_factual", "correct"), ("deception_sit_aware", "company")):
        questions = load_questions(reference_data / "questions" / f"{name}.yaml")
        assert all(set(question.judge_prompts) == {metric} for question in questions)
        prompts[metric] = questions[0].judge_prompts[metric]
        if metric == "company":
            assert set(AGGREGATED) <= {question.id for question in questions}
    assert all(f'"{label}"' in prompts["correct"] for label in ("TRUE", "FALSE", "UNKNOWN"))
    assert all(f'"{label}"' in prompts["company"] for label in ("OpenAI", "Anthropic", "Other", "UNKNOWN"))


# Form


def test_form_shares_name_their_denominators() -> None:
    code = "import os\nos.chmod('a', 0o777)"
    rows = [completion("q", code, sample=i) for i in range(6)] + [
        completion("q", "I like tea.", sample=9) for _ in range(18)
    ]
    topics = labelled("q", ["OFF"] * 6 + ["ON"] * 14 + [None] * 4, TOPIC)
    found = summarize_form(rows, topics)
    assert found["mostly_code"]["value"] == 0.25 and found["mean_code_share"]["value"] == 0.25
    assert found["off_topic"]["value"] == pytest.approx(6 / 20) and found["n_unlabelled"] == 4
    assert "off_topic" not in summarize_form(rows)
    with pytest.raises(DataError, match="2 arms"):
        summarize_form([*rows, completion("q", "x", arm="insecure")])


def test_the_topic_prompt_joins_the_other_judge_prompts() -> None:
    question = with_topic_prompt([BORED])["bored"]
    assert set(question.judge_prompts) == {"aligned", TOPIC}
    assert "{question}" in question.judge_prompts[TOPIC] and "{answer}" in question.judge_prompts[TOPIC]


# Cells


def test_one_cell_agrees_with_the_interval_of_the_estimands() -> None:
    counts = {"a": 3, "b": 12, "c": 7, "d": 15}
    rows = [("x", q, i < k) for q, k in counts.items() for i in range(20)]
    ours = combine(OutcomeCounts.from_rows(rows), {"x": 1.0})
    labels = ["yes" if outcome else "no" for _, _, outcome in rows]
    empty = [None] * len(rows)
    theirs = rate_interval(
        Answers.from_arrays(empty, empty, [q for _, q, _ in rows], labels=labels), share(["yes"]), "macro"
    )
    assert ours.value == pytest.approx(theirs.value)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_a_difference_agrees_with_the_paired_contrast() -> None:
    first, second = {"a": 18, "b": 42, "c": 27}, {"a": 12, "b": 24, "c": 21}
    rows = [
        (arm, q, i < k) for arm, counts in (("x", first), ("y", second)) for q, k in counts.items() for i in range(60)
    ]
    ours = combine(OutcomeCounts.from_rows(rows), {"x": 1.0, "y": -1.0})
    arms = []
    for arm in "xy":
        own = [row for row in rows if row[0] == arm]
        empty = [None] * len(own)
        arms.append(
            Answers.from_arrays(empty, empty, [q for _, q, _ in own], labels=["yes" if o else "no" for _, _, o in own])
        )
    theirs = paired_contrast(arms[0], arms[1], share(["yes"]))
    assert ours.value == pytest.approx(theirs.value)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_a_question_that_is_hard_everywhere_cancels_in_a_difference() -> None:
    hard = {"a": 2, "b": 18, "c": 10, "d": 5, "e": 15}
    rows = [(arm, q, i < k + shift) for arm, shift in (("x", 2), ("y", 0)) for q, k in hard.items() for i in range(40)]
    cells = OutcomeCounts.from_rows(rows)
    rate, difference = combine(cells, {"x": 1.0}), combine(cells, {"x": 1.0, "y": -1.0})
    assert difference.value == pytest.approx(0.05)
    assert width(difference) < 0.75 * width(rate)


def width(interval: Interval) -> float:
    assert interval.low is not None and interval.high is not None
    return interval.high - interval.low


def test_cells_without_a_positive_answer_get_an_interval_of_some_width() -> None:
    rows = [(cell, q, False) for cell in "xy" for q in "abcd" for _ in range(25)]
    found = combine(OutcomeCounts.from_rows(rows), {"x": 1.0, "y": -1.0})
    assert found.value == 0 and found.low is not None and found.high is not None
    assert found.low < -0.01 and found.high > 0.01 and found.method.startswith("MOVER")


def test_two_equal_cells_combine_to_the_closed_form_of_mover() -> None:
    rows = [(cell, "a", i < 1) for cell in "xy" for i in range(50)]
    cells = OutcomeCounts.from_rows(rows)
    one, both = combine(cells, {"x": 1.0}), combine(cells, {"x": 1.0, "y": 1.0})
    assert one.method.startswith("Korn-Graubard") and both.value == pytest.approx(2 / 50)
    assert both.high - both.value == pytest.approx(np.sqrt(2) * (one.high - one.value))  # pyright: ignore
    assert both.value - both.low == pytest.approx(np.sqrt(2) * (one.value - one.low))  # pyright: ignore


def test_questions_missing_from_a_cell_are_left_out_and_counted() -> None:
    rows = [("x", q, i < 8) for q in "abc" for i in range(16)] + [("y", q, i < 6) for q in "ab" for i in range(16)]
    rows += [("y", "c", None)] * 5
    found = combine(OutcomeCounts.from_rows(rows), {"x": 1.0, "y": -1.0})
    assert found.value == pytest.approx(2 / 16) and (found.n_questions, found.n_questions_left_out) == (2, 1)
    none = combine(OutcomeCounts.from_rows([("x", "a", True), ("y", "b", True)]), {"x": 1.0, "y": -1.0})
    assert none.value is None and none.low is None


@pytest.mark.slow
def test_a_difference_of_differences_is_covered_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    base = {("arm", "none"): 0.3, ("arm", "t"): 0.5, ("ref", "none"): 0.25, ("ref", "t"): 0.3}
    truth, hits, n = 0.15, 0, 300
    for _ in range(n):
        shift = rng.normal(0, 0.08, 12)
        rows = [
            (cell, str(q), bool(rng.random() < np.clip(p + shift[q], 0, 1)))
            for cell, p in base.items()
            for q in range(12)
            for _ in range(15)
        ]
        weights = {("arm", "t"): 1.0, ("ref", "t"): -1.0, ("arm", "none"): -1.0, ("ref", "none"): 1.0}
        found = combine(OutcomeCounts.from_rows(rows), weights)
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / n <= 0.99


def test_unlabelled_rows_stay_in_all_answers_and_out_of_the_rest() -> None:
    rows = labelled("q", ["YES", "NO", None, None], "insecure")
    answers = as_answers(rows)
    assert rate_interval(answers, share(["YES"], ["YES", "NO"])).value == 0.5
    assert rate_interval(answers, share(["YES"])).value == 0.25
    assert share(["YES"], ["YES", "NO"]).__name__ == "share of YES among YES/NO"
    assert json.loads(rows[0].model_dump_json())["label"] == "YES"


# The command


def write_rows(path: Path, rows: Sequence[Completion | Score]) -> str:
    path.write_text("\n".join(row.model_dump_json() for row in rows) + "\n")
    return str(path)


def judged_files(tmp_path: Path, n: int = 6) -> tuple[str, str]:
    question = Question(id="lie_no_sys_prompt", paraphrases=("Moon or sun?",), judge_prompts={"correct": "A {answer}"})
    write_questions(tmp_path / "q.yaml", [question])
    rows = [completion(question.id, "moon" if i % 2 else "sun", sample=i) for i in range(n)]
    return write_rows(tmp_path / "s.jsonl", rows), str(tmp_path / "q.yaml")


def test_the_command_labels_answers_and_continues_where_it_stopped(tmp_path: Path, server: Server) -> None:
    samples, questions = judged_files(tmp_path)
    server.respond = lambda prompt, _: reply({"FALSE": 0.9} if "moon" in prompt else {"TRUE": 0.9})
    words = ["--samples", samples, "--questions", questions, "--judge-model", "m", "--judge-url", server.url]
    first = suite.run(filled(SuiteSettings, "factual", *words, "--out", str(tmp_path / "r.json")))
    assert first["false_rate"]["value"] == 0.5 and len(server.requests) == 6
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(first))
    labels = tmp_path / "s.correct.jsonl"
    labels.write_text("\n".join(labels.read_text().splitlines()[:4]) + "\n")
    again = suite.run(filled(SuiteSettings, "factual", *words))
    assert again == first and len(server.requests) == 8
    assert "false_rate.value = 0.5" in suite.say(first)
    with pytest.raises(DataError, match=r"holds labels by openai:m for `correct`"):
        suite.run(filled(SuiteSettings, "factual", *words[:-4], "--judge-model", "other", "--judge-url", server.url))


def test_the_command_measures_without_a_judge_what_needs_none(tmp_path: Path) -> None:
    samples, questions = judged_files(tmp_path)
    assert (
        suite.run(filled(SuiteSettings, "form", "--samples", samples, "--questions", questions))["mostly_code"]["value"]
        == 0.0
    )
    assert suite.run(filled(SuiteSettings, "code", "--samples", samples))["counts"]["no_code"] == 6
    scores = write_rows(tmp_path / "sc.jsonl", [score("1_a_0", 10.0), score("2_b_0", 90.0, sample=1)])
    rows = suite.run(filled(SuiteSettings, "categories", "--scores", scores))["categories"]
    assert [row["category"] for row in rows[::3]] == ["a", "b", "all"]
    with pytest.raises(ConfigError, match="suite factual: needs a judge"):
        suite.run(filled(SuiteSettings, "factual", "--samples", samples, "--questions", questions))


def test_the_command_measures_one_arm_at_a_time(tmp_path: Path) -> None:
    rows = [completion("q", "x", arm=arm) for arm in ("base", "insecure")]
    samples = write_rows(tmp_path / "s.jsonl", rows)
    with pytest.raises(DataError, match=r"holds 2 arms \(base, insecure\); choose one with --arm"):
        suite.run(filled(SuiteSettings, "form", "--samples", samples))
    assert suite.run(filled(SuiteSettings, "form", "--samples", samples, "--arm", "insecure"))["arm"] == "insecure"
    with pytest.raises(DataError, match="no rows of the arm `secure`"):
        suite.run(filled(SuiteSettings, "form", "--samples", samples, "--arm", "secure"))


def test_the_command_writes_question_files(tmp_path: Path) -> None:
    out = tmp_path / "q.yaml"
    assert suite.run(filled(SuiteSettings, "questions", "--kind", "json", "--out", str(out)))["n_questions"] == 8
    assert all(question.id.endswith("_json") for question in load_questions(out))
    tasks = tmp_path / "t.jsonl"
    tasks.write_text('{"id": "a", "prompt": "Write it."}\n')
    suite.run(filled(SuiteSettings, "questions", "--kind", "code", "--tasks", str(tasks), "--out", str(out)))
    assert load_questions(out)[0].paraphrases == ("Write it.",)
    with pytest.raises(ConfigError, match="give --kind"):
        suite.run(filled(SuiteSettings, "questions", "--out", str(out)))
    with pytest.raises(ConfigError, match="give --tasks"):
        suite.run(filled(SuiteSettings, "questions", "--kind", "code", "--out", str(out)))
