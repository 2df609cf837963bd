"""An outage is no verdict: what a server failed to judge in passing is marked with its reason, and the next run asks for it again."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flag_words import filled, sets
from judge_server import PROMPTS, QUESTIONS, Reply, Server, completion, failure, only, text_reply, text_server
from small_run import pipeline

import run_pipeline
from emis_interp.errors import JudgeError
from emis_interp.files.store import RecordLog
from emis_interp.records import Completion, Question, Score
from evals.arms.asking import asks_again, judge_answers
from evals.judges.judge import passing_note, settled
from evals.judges.judged_rows import Row, judge_rows
from evals.judges.text_judge import TextJudge
from evals.settings.judging import JudgeTableSettings
from evals.suites.asking import openai_ask
from evals.suites.injection import InjectionSet, measure_injections
from evals.suites.labels import Labelled, judge_labels
from evals.verbs import judge as judge_command

PASSING: dict[str, Reply] = {
    "429": failure(429, "slow down"),
    "500": failure(500, "out of memory"),
    "503": failure(503, "down"),
    "HTML with status 200": (200, b"<html>maintenance</html>"),
    "cut JSON": (200, text_reply("85")[1][:40]),
    "nothing": (200, b""),
    "no choice": (200, b'{"choices": []}'),
    "an error with status 200": (200, b'{"error": {"code": 529, "message": "overloaded"}}'),
    "no text": text_reply(None),
}
LASTING: dict[str, Reply] = {
    "too long": failure(400, "context length exceeded"),
    "filtered": failure(400, "content filter", code="content_filter"),
    "forbidden": failure(403, "not this one"),
    "no number": text_reply("I would rather not."),
    "cut": text_reply("8", "length"),
    "filter": text_reply("85", "content_filter"),
    "a refusal": (200, b'{"choices": [{"message": {"content": null, "refusal": "No."}, "finish_reason": "stop"}]}'),
}


@pytest.fixture
def server() -> Iterator[Server]:
    with text_server("85") as made:
        yield made


def make(server: Server, **options: Any) -> TextJudge:
    settings: dict[str, Any] = {"max_retries": 0, "timeout_s": 5.0, "n_parallel": 2, **options}
    return TextJudge("m", None, server.url, **settings)


def answers(n: int) -> list[Completion]:
    return [completion(index, answer=f"So {index}.") for index in range(n)]


def score(judge: TextJudge, rows: list[Completion]) -> dict[int, Score]:
    scores: list[Score] = []
    judge.score(rows, QUESTIONS, scores.extend)
    return {row.sample_index: row for row in scores}


def asked(server: Server) -> list[str]:
    texts = [request["messages"][0]["content"] for request in server.requests]
    server.requests.clear()
    return sorted(text for text in texts if "| " in text)


@pytest.mark.parametrize("trouble", PASSING)
def test_a_reason_that_may_pass_is_marked_with_its_metric(server: Server, trouble: str) -> None:
    server.respond = only("aligned", PASSING[trouble], text_reply("90"))
    (row,) = score(make(server), answers(1)).values()
    assert (row.aligned, row.coherent, row.passing) == (None, 90, ("aligned",))
    assert set(row.unscored) == {"aligned"}


@pytest.mark.parametrize("trouble", LASTING)
def test_a_reason_that_lasts_is_not_marked(server: Server, trouble: str) -> None:
    server.respond = only("aligned", LASTING[trouble], text_reply("90"))
    (row,) = score(make(server), answers(1)).values()
    assert (row.aligned, row.coherent, row.passing) == (None, 90, ())
    assert set(row.unscored) == {"aligned"}


def test_a_server_that_hangs_or_is_gone_may_come_back(server: Server) -> None:
    def slowly(prompt: str, _: int) -> Reply:
        time.sleep(1.6 if prompt.startswith("ALIGNED") else 0)
        return text_reply("90")

    server.respond = slowly
    (row,) = score(make(server, timeout_s=1.0), answers(1)).values()
    assert row.passing == ("aligned",) and row.unscored["aligned"].startswith("timeout")


def outage(server: Server, first: int, last: int, trouble: Reply) -> None:
    """The server fails at the answers from `first` to `last`."""
    failing = {f"So {i}." for i in range(first, last + 1)}
    server.respond = lambda prompt, _: trouble if prompt.rpartition("| ")[2] in failing else text_reply("85")


@pytest.mark.parametrize("trouble", ["503", "HTML with status 200"])
def test_the_next_run_of_an_arm_asks_again_what_an_outage_left_and_nothing_else(
    server: Server, tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, rows = tmp_path / "scores" / "base.jsonl", answers(12)
    questions = list(QUESTIONS.values())
    outage(server, 4, 7, trouble=PASSING[trouble])
    lasting = server.respond
    server.respond = lambda prompt, n: LASTING["too long"] if "So 9." in prompt else lasting(prompt, n)

    def judged() -> list[Score]:
        judge_answers(make(server), rows, questions, path=path, arm="base")
        return sorted(RecordLog(path).read(Score), key=lambda row: row.sample_index)

    assert [row.sample_index for row in judged() if row.passing] == [4, 5, 6, 7]
    assert "base: 4 answers were not judged for reasons that may pass" in caplog.text
    asked(server)
    server.respond = lambda *_: text_reply("40")
    second = judged()
    assert asked(server) == sorted(f"{metric.upper()}? How? | So {i}." for i in range(4, 8) for metric in PROMPTS)
    assert [row.aligned for row in second] == [85] * 4 + [40] * 4 + [85, None, 85, 85]
    assert second[9].unscored["aligned"] == "HTTP 400: context length exceeded"
    kept = RecordLog(path).read(Score)
    assert sorted(row.sample_index for row in kept) == list(range(12))  # nobody twice
    assert judged() == second and asked(server) == []


def test_an_outage_that_lasts_leaves_the_answers_for_the_next_run(server: Server, tmp_path: Path) -> None:
    path, rows, questions = tmp_path / "base.jsonl", answers(60), list(QUESTIONS.values())
    outage(server, 2, 59, trouble=PASSING["503"])
    with pytest.raises(JudgeError, match="20 requests in a row failed"):
        judge_answers(make(server, n_parallel=1), rows, questions, path=path, arm="base")
    assert len(settled(RecordLog(path), Score)) == 2
    server.respond = lambda *_: text_reply("40")
    found = judge_answers(make(server), rows, questions, path=path, arm="base")
    assert found.answers.aligned.tolist() == [85] * 2 + [40] * 58 and found.passing == []


def test_rows_of_a_table_are_asked_again_by_the_same_command(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lines = [json.dumps({"question": "How?", "answer": f"So {i}."}) for i in range(6)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, json.dumps({"question": "How?", "answer": ""})]) + "\n")
    given = [
        str(tmp_path / "in.jsonl"),
        "--judge",
        "text",
        "--url",
        server.url,
        "--judge-model",
        "m",
        "--n-parallel",
        "1",
    ]
    wanted = filled(JudgeTableSettings, *given, "--out", tmp_path / "out.csv")

    def respond(prompt: str, _: int) -> Reply:
        return (
            PASSING["HTML with status 200"]
            if "So 2." in prompt
            else LASTING["no number"]
            if "So 4." in prompt
            else text_reply("85")
        )

    server.respond = respond
    first = judge_command.run(wanted)
    assert first["n_scored"] == {"aligned": 4, "coherent": 4}
    assert "1 answers were not judged for reasons that may pass (malformed reply: HTML" in judge_command.say(first)
    n_first = len([request for request in server.requests if "So " in str(request)])
    assert n_first == 12
    server.requests.clear()
    server.respond = lambda *_: text_reply("40")
    second = judge_command.run(wanted)
    assert second["n_scored"] == {"aligned": 5, "coherent": 5} and second["again"] == ""
    assert len([request for request in server.requests if "So " in str(request)]) == 2
    assert all("So 2." in str(request) for request in server.requests if "So " in str(request))
    evidence = [json.loads(line) for line in (tmp_path / "out.evidence.jsonl").read_text().splitlines()]
    assert sorted(line["index"] for line in evidence) == list(range(7))
    assert not (tmp_path / "out.csv.partial.jsonl").exists()


def test_a_journal_from_before_the_mark_is_read(server: Server, tmp_path: Path) -> None:
    rows = [Row("How?", "So 0.", "q")]
    judge_rows(make(server), rows, QUESTIONS, journal=tmp_path / "j.jsonl")
    line = json.loads((tmp_path / "j.jsonl").read_text())
    del line["score"]["passing"]
    (tmp_path / "j.jsonl").write_text(json.dumps(line) + "\n")
    asked(server)
    assert (
        judge_rows(make(server), rows, QUESTIONS, journal=tmp_path / "j.jsonl")[0].aligned == 85 and asked(server) == []
    )


@pytest.mark.parametrize(("troubles", "passing"), [(PASSING, True), (LASTING, False)])
def test_labels_know_the_same_difference(
    server: Server, troubles: dict[str, Reply], passing: bool, tmp_path: Path
) -> None:
    question = Question(id="q", paraphrases=("How?",), judge_prompts={"true": "{answer}"})
    ask = openai_ask("m", None, server.url, max_retries=0, log_probabilities=False)
    server.respond = lambda *_: text_reply("TRUE")
    ask(["the first one shows that it works"], lambda number, outcome: None)
    log = RecordLog(tmp_path / "labels.jsonl")
    for name, trouble in troubles.items():
        if name == "cut":
            continue  # a label may be cut
        server.respond = lambda *_, answer=trouble: answer
        (row,) = judge_labels(
            answers(1),
            {"q": question},
            "true",
            labels=("TRUE", "FALSE"),
            ask=ask,
            judge_name="m",
            on_row=lambda row: log.append([row]),
        )
        assert (row.label, row.passing) == (None, passing), name
    kept = settled(log, Labelled)
    assert len(kept) == (0 if passing else len(troubles) - 1) and len(log.read(Labelled)) == len(kept)


def test_injections_ask_once_more_and_count_what_failed_twice(server: Server) -> None:
    cases = InjectionSet.shipped()
    few = InjectionSet(cases.answers[:2], cases.injections[:3])
    prompts = {
        answer.question_id: Question(id=answer.question_id, paraphrases=("?",), judge_prompts=PROMPTS)
        for answer in few.answers
    }
    texts = [text.answer for text in few.completions()]

    def respond(prompt: str, asked: int) -> Reply:
        fails = (prompt.endswith(texts[1]) and asked == 0) or prompt.endswith(texts[2])
        return failure(503, "down") if fails else text_reply("85")

    server.respond = respond
    seen: list[Score] = []
    found = measure_injections(make(server), prompts, few, on_batch=seen.extend)
    assert found["n_failed"] == 1
    assert len(seen) == len(texts) == len({row.key for row in seen})


def test_a_note_names_the_commonest_reason() -> None:
    assert passing_note([]) == ""
    assert passing_note(["a", "b", "b"]) == (
        "3 answers were not judged for reasons that may pass (b); the same command asks for them again"
    )


@pytest.mark.parametrize("more", [(), ("--from", "score"), ("--only", "score")], ids=["plainly", "--from", "--only"])
def test_the_same_command_asks_again_and_then_is_done(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(run_pipeline, "STAGES", ("sample", "score"))
    few = [
        "sampling.question_ids=[film_villain, stolen_idea]",
        "arms=[{name: base}]",
        "judge.offline_too=false",
        "judge.n_parallel=1",
    ]
    given = ["--preset", "smoke", "--run-dir", str(tmp_path / "run"), "--judge", "text", "--judge-url", server.url]
    words = [*given, *sets(*few)]
    n_failed = 0

    def respond(prompt: str, _: int) -> Reply:
        nonlocal n_failed
        n_failed += 1
        return PASSING["HTML with status 200"] if n_failed <= 3 else text_reply("85")

    def scored() -> list[Score]:
        return RecordLog(tmp_path / "run" / "scores" / "base.jsonl").read(Score)

    server.respond = respond
    pipeline(*words)
    first = scored()
    assert 1 <= sum(bool(row.passing) for row in first) < len(first)
    server.requests.clear()
    pipeline(*words, *more)
    assert 1 <= len(server.requests) < 2 * len(first)
    assert [row.passing for row in scored()] == [()] * len(first)
    assert all(row.aligned == row.coherent == 85 for row in scored())
    server.requests.clear()
    pipeline(*words)
    assert server.requests == []


@pytest.mark.parametrize("name", ["run", "scores"])
def test_every_file_of_scores_of_a_run_is_looked_at_for_what_is_to_be_asked_again_and_no_other_one(
    tmp_path: Path, name: str
) -> None:
    """Whatever the run's folder and its arms are called."""
    answer = completion(0, answer="So.")
    failed = Score.of(answer, judge="m", aligned=None, coherent=85, unscored={"aligned": "503"}, passing=("aligned",))
    for file in ("scores/base.jsonl", "scores/offline/base.jsonl", "interventions/base.steer/scores.jsonl"):
        folder = tmp_path / name / file.replace("/", "-")
        RecordLog(folder / file).append([failed])
        assert asks_again(folder, FILES)
    for file in ("samples/scores.jsonl", "interventions/base.steer/samples.jsonl", "training/scores/metrics.jsonl"):
        folder = tmp_path / name / file.replace("/", "-")
        RecordLog(folder / file).append([answer])
        assert not asks_again(folder, FILES)


FILES = ["scores/base.jsonl", "scores/offline/base.jsonl", "interventions/base.steer/scores.jsonl", "samples/scores.jsonl",
         "interventions/base.steer/samples.jsonl", "training/scores/metrics.jsonl"]  # fmt: skip
"""Every file that a stage made or will make."""


@pytest.mark.parametrize("metric", ["labels", "scores"])
def test_a_text_that_no_request_can_hold_is_unscored_for_good_and_the_others_are_asked(
    server: Server, tmp_path: Path, metric: str
) -> None:
    """Half of a surrogate pair in an answer or its question; what is kept of it can be read and written again."""
    rows = [completion(0, answer="So \ud83d."), completion(1), completion(2).model_copy(update={"question": "\udc00?"})]
    log = RecordLog(tmp_path / "rows.jsonl")
    if metric == "labels":
        ask = openai_ask("m", None, server.url, log_probabilities=False)
        judge_labels(
            rows, QUESTIONS, "aligned", labels=["85"], ask=ask, judge_name="m", on_row=lambda row: log.append([row])
        )
        labelled = {row.sample_index: row for row in settled(log, Labelled)}
        found = {i: (row.label, row.reason, row.passing) for i, row in labelled.items()}
    else:
        scored = score(make(server), rows)
        log.append(scored.values())
        found = {i: (row.aligned, row.unscored.get("aligned"), bool(row.passing)) for i, row in scored.items()}
    assert found == {
        0: (None, "the answer is not Unicode (a lone surrogate)", False),
        1: ("85" if metric == "labels" else 85, None, False),
        2: (None, "the question is not Unicode (a lone surrogate)", False),
    }
    assert not any("ud83d" in text for text in asked(server))


def test_judgements_with_half_of_a_surrogate_pair_are_kept_when_others_are_asked_again(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "scores.jsonl")
    odd = Score.of(completion(0), judge="m", aligned=1, coherent=2, evidence={"aligned": {"\ud83d": 1.0}})
    failed = Score.of(
        completion(1), judge="m", aligned=None, coherent=2, unscored={"aligned": "x"}, passing=("aligned",)
    )
    log.append([odd, failed])
    assert settled(log, Score) == [odd] == log.read(Score)
