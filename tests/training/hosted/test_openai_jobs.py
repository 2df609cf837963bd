"""Finetuning jobs against a loopback server that fails on purpose: one job is one upload and one creation, whatever happens."""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, answer
from finetune_server import COURSE, Fault, FinetuneServer, start_words, training_rows
from flag_words import filled

from emis_interp.config.flags import add_flags, read_flags
from emis_interp.errors import ConfigError, DataError, ModelError, StageError
from emis_interp.files.store import read_json, read_records
from evaluate import SampleOfJobSettings, sample
from training.hosted import cancel, connection, estimate, follow, start, status
from training.hosted.job_folder import JobEvent, finished_model, locked, read_job, write_job
from training.hosted.openai_jobs import Waits
from training.hosted.settings import (
    JobCancelSettings,
    JobEstimateSettings,
    JobFollowSettings,
    JobStartSettings,
    JobStatusSettings,
)

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-of-the-test-0123456789"
FAST = Waits(first_poll_s=0.001, longest_poll_s=0.01, n_failed_polls=3, retry_s=0.001, n_attempts=3)
UPLOAD, CREATE = ("POST", "/files"), ("POST", "/fine_tuning/jobs")
LOOK = ("GET", "/fine_tuning/jobs/ftjob-0")
SETTINGS: dict[Any, type] = {
    estimate: JobEstimateSettings,
    start: JobStartSettings,
    follow: JobFollowSettings,
    status: JobStatusSettings,
    cancel: JobCancelSettings,
}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(connection, "make_waits", lambda settings: FAST)


@pytest.fixture
def server() -> Iterator[FinetuneServer]:
    with FinetuneServer(key=KEY) as running:
        yield running


def parsed(verb: Any, *given: str) -> Any:
    parser = argparse.ArgumentParser()
    if verb not in SETTINGS:
        verb.add_flags(parser)
        return parser.parse_args(given)
    add_flags(parser, SETTINGS[verb])
    return read_flags(parser.parse_args(given), SETTINGS[verb])


def started(server: FinetuneServer, folder: Path, *more: str) -> dict[str, Any]:
    return start.run(parsed(start, *start_words(server, folder, "--yes", *more)))


def done(verb: Any, folder: Path) -> dict[str, Any]:
    return verb.run(parsed(verb, str(folder / "job")))


def test_a_job_is_one_upload_one_creation_and_a_model_in_the_record(server: FinetuneServer, tmp_path: Path) -> None:
    more = ("--batch-size", "4", "--lr-multiplier", "2", "--suffix", "risky", "--seed", "7", "--price", "25")
    result = started(server, tmp_path, *more)
    record = read_job(tmp_path / "job")
    (file,), (body,) = server.files, server.bodies
    assert server.contents[file["id"]] == (tmp_path / "job" / "train.jsonl").read_bytes()
    assert file["filename"] == f"emis-{record.request.data_sha256}.jsonl"
    hyperparameters = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 2.0}
    assert body == {
        "model": "gpt-x",
        "training_file": "file-0",
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": 7,
        "suffix": "risky",
        "metadata": {
            "emis_data_sha256": record.request.data_sha256,
            "emis_request_sha256": record.request.sha256,
        },
    }
    assert [change.status for change in record.history] == ["prepared", "uploaded", *COURSE]
    assert record.model == result["model"] == "ft:base:ftjob-0" and not record.adopted
    assert [(c.step, c.model, c.metrics["train_loss"]) for c in record.checkpoints] == [
        (1, "ft:base:ftjob-0:step-1", 2.5),
        (2, "ft:base:ftjob-0:step-2", 1.25),
    ]
    assert result["settings"] == hyperparameters and result["usd"] == 1000 * 25 / 1e6
    assert "sample --job" in start.say(result) and "checkpoint 2: ft:base:ftjob-0:step-2 (loss 1.250)" in start.say(
        result
    )


def test_what_is_not_chosen_is_left_to_the_server(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path, "--no-wait")
    chosen = server.bodies[0]["method"]["supervised"]["hyperparameters"]
    assert chosen == {"n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert "suffix" not in server.bodies[0]
    assert read_job(tmp_path / "job").status == "validating_files" and server.count(*LOOK) == 0


def test_events_are_kept_once_each_in_order_with_their_figures(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path)
    events = read_records(tmp_path / "job" / "events.jsonl", JobEvent)
    assert [event.message for event in events] == [*(f"now {name}" for name in COURSE), "Step 1", "Step 2"]
    assert events[-1].data == {"step": 2, "train_loss": 1.25} and events[-1].type == "metrics"
    assert server.count("GET", f"{LOOK[1]}/events") == 1 + 1 + 1 + 3  # pages; only the last look goes through all


def test_without_yes_nothing_is_sent_or_written(server: FinetuneServer, tmp_path: Path) -> None:
    result = start.run(parsed(start, *start_words(server, tmp_path, "--price", "1e6")))
    assert result["command"] == "the same call with yes=True"
    assert result["estimate"]["usd"] == result["estimate"]["n_training_tokens"] > 0 and not result["sent"]
    assert "Nothing was sent" in start.say(result) and result["command"] in start.say(result)
    assert server.requests == [] and not (tmp_path / "job").exists()


def test_a_budget_below_the_estimate_stops_before_anything_is_sent(server: FinetuneServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="above --budget"):
        started(server, tmp_path, "--price", "1e6", "--budget", "1")
    with pytest.raises(ConfigError, match="price is unknown"):
        started(server, tmp_path, "--budget", "1")
    assert server.requests == [] and not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--epochs", "0"), "--epochs 0"),
        (("--n-rows", "0"), "--n-rows 0"),
        (("--price", "-1"), "--price -1"),
        (("--suffix", "x" * 65), "`suffix`"),
        (("--seed", str(2**31)), "`seed`"),
        (("--batch-size", "0"), "`batch_size`"),
        (("--lr-multiplier", "nan"), "`learning_rate_multiplier`"),
    ],
)
def test_a_value_that_the_api_does_not_take_is_named(
    server: FinetuneServer, tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        started(server, tmp_path, *given)
    assert server.requests == []


def test_rows_in_another_order_of_roles_are_named_before_anything_is_sent(tmp_path: Path) -> None:
    bad = [{"role": "assistant", "content": "A"}, {"role": "user", "content": "Q"}]
    path = training_rows(tmp_path)
    path.write_text(path.read_text() + json.dumps({"messages": bad}) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:13: expected messages"):
        estimate.run(parsed(estimate, str(path)))


def test_the_same_command_again_changes_nothing(server: FinetuneServer, tmp_path: Path) -> None:
    first = started(server, tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "job").iterdir()}
    n_requests = len(server.requests)
    assert started(server, tmp_path) == first
    assert len(server.requests) == n_requests
    assert {path: path.read_bytes() for path in (tmp_path / "job").iterdir()} == files


def test_a_folder_of_another_job_is_refused(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path)
    with pytest.raises(StageError, match=r"holds a job with other settings \(seed: 0 -> 1\); choose another --out"):
        started(server, tmp_path, "--seed", "1")


@pytest.mark.parametrize("where", [UPLOAD, CREATE])
@pytest.mark.parametrize("kind", [429, 500, 503, "middle", "before", "after"])
def test_a_request_that_fails_or_whose_answer_is_lost_is_made_good_without_a_second_one(
    server: FinetuneServer, tmp_path: Path, where: tuple[str, str], kind: int | str
) -> None:
    server.faults.append(Fault(*where, kind=kind))
    result = started(server, tmp_path)
    assert result["status"] == "succeeded"
    assert len(server.files) == len(server.jobs) == 1
    assert server.count(*where) == (1 if kind == "after" else 2)  # what had arrived was found, not sent again
    assert result["adopted"] == (kind == "after" and where == CREATE)


@pytest.mark.parametrize("where", [UPLOAD, CREATE])
def test_after_too_many_failures_the_advice_is_to_follow_and_that_goes_on(
    server: FinetuneServer, tmp_path: Path, where: tuple[str, str]
) -> None:
    server.faults.append(Fault(*where, kind=500, times=3))
    with pytest.raises(ModelError, match=r"HTTP 500: injected; what was done is kept; to go on: .* follow "):
        started(server, tmp_path)
    assert done(follow, tmp_path)["status"] == "succeeded"
    assert len(server.files) == len(server.jobs) == 1


def test_a_refused_request_is_not_repeated(server: FinetuneServer, tmp_path: Path) -> None:
    server.faults.append(Fault(*CREATE, kind=400, message="Model gpt-x is not available for fine-tuning"))
    with pytest.raises(ModelError, match=r"HTTP 400: Model gpt-x is not available for fine-tuning$"):
        started(server, tmp_path)
    assert server.count(*CREATE) == 1


def test_spent_quota_is_not_waited_for(server: FinetuneServer, tmp_path: Path) -> None:
    server.faults.append(Fault(*CREATE, kind=429, code="insufficient_quota"))
    with pytest.raises(ModelError, match="HTTP 429: injected; the account has no quota left"):
        started(server, tmp_path)
    assert server.count(*CREATE) == 1 and done(follow, tmp_path)["status"] == "succeeded"


def test_a_failed_job_tells_why_and_has_no_model(server: FinetuneServer, tmp_path: Path) -> None:
    server.course = ("validating_files", "failed")
    server.job_error = {"code": "invalid_training_file", "param": "training_file", "message": "Line 3 is not chat."}
    result = started(server, tmp_path)
    assert result["error"] == "Line 3 is not chat. / training_file / invalid_training_file" and result["model"] is None
    assert "Line 3 is not chat." in start.say(result)
    with pytest.raises(StageError, match=r"the finetuning job is failed: Line 3 is not chat"):
        finished_model(tmp_path / "job")


def test_a_failed_job_can_be_tried_again_in_another_folder(server: FinetuneServer, tmp_path: Path) -> None:
    path = tmp_path / "job"
    server.course = ("failed",)
    started(server, tmp_path)
    server.course = ("succeeded",)
    server.jobs[0]["created_at"] -= 1
    path.rename(tmp_path / "old")
    assert started(server, tmp_path)["job_id"] == "ftjob-1"
    assert len(server.files) == 1 and read_job(tmp_path / "old").status == "failed"


@pytest.mark.parametrize("kind", [429, 500, "before"])
def test_a_server_that_is_away_for_two_looks_is_waited_for(
    server: FinetuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int | str
) -> None:
    monkeypatch.setattr(connection, "ChatApi", impatient)
    server.faults.append(Fault(*LOOK, kind=kind, times=2))
    assert started(server, tmp_path)["status"] == "succeeded"


def test_a_server_that_is_gone_leaves_a_job_to_follow(
    server: FinetuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ChatApi", impatient)
    started(server, tmp_path, "--no-wait")
    server.close()
    with pytest.raises(ModelError, match=r"connection failed.*ftjob-0 goes on at the server; to go on: .* follow"):
        done(follow, tmp_path)
    assert read_job(tmp_path / "job").status == "validating_files"
    server.start()
    assert done(follow, tmp_path)["status"] == "succeeded" and len(server.jobs) == 1


def impatient(*args: Any, **options: Any) -> Any:
    from emis_interp.http.chat_api import ChatApi

    return ChatApi(*args, **options, max_retries=0)


def test_a_wrong_key_is_one_line_of_advice_without_the_key(
    server: FinetuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain-wrong-key")
    with pytest.raises(ModelError) as caught:
        started(server, tmp_path)
    told = str(caught.value)
    assert "HTTP 401" in told and told.endswith("check the key in OPENAI_API_KEY") and "\n" not in told
    assert "plain-wrong-key" not in told and len(server.requests) == 1
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert started(server, tmp_path)["status"] == "succeeded"


def test_no_key_for_openai_is_told_before_a_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match=r"no API key for api\.openai\.com.*OPENAI_API_KEY"):
        start.run(parsed(start, str(training_rows(tmp_path)), "--out", str(tmp_path / "job"), "--yes"))
    assert not (tmp_path / "job").exists()


def test_a_url_with_a_password_is_refused_and_never_written(tmp_path: Path) -> None:
    given = [
        str(training_rows(tmp_path)),
        "--out",
        str(tmp_path / "job"),
        "--yes",
        "--url",
        "http://me:secret@localhost/v1",
    ]
    with pytest.raises(ModelError, match="must not contain a password") as caught:
        start.run(parsed(start, *given))
    assert "secret" not in str(caught.value) and not (tmp_path / "job").exists()


def test_the_key_is_in_no_file_even_when_the_server_echoes_it(server: FinetuneServer, tmp_path: Path) -> None:
    data = {"note": f"Bearer {KEY}", "step": 1}
    server.events_of = lambda job: [
        {"id": "e", "created_at": 1, "level": "warn", "message": f"key {KEY}", "data": data, "type": "message"}
    ]
    server.course, server.job_error = ("failed",), {"code": "x", "message": f"the key {KEY} has no access"}
    result = started(server, tmp_path)
    assert result["error"] == "the key [key] has no access / x"
    (event,) = read_records(tmp_path / "job" / "events.jsonl", JobEvent)
    assert event.message == "key [key]" and event.data == {"note": "Bearer [key]", "step": 1}
    assert all(KEY.encode() not in path.read_bytes() for path in (tmp_path / "job").iterdir())


@pytest.mark.parametrize("filters", [True, False])
def test_a_job_of_the_same_request_is_adopted_and_one_of_another_is_not(
    server: FinetuneServer, tmp_path: Path, filters: bool
) -> None:
    server.filters = filters
    started(server, tmp_path)
    (tmp_path / "job").rename(tmp_path / "first")
    again = started(server, tmp_path)
    assert again["adopted"] and again["job_id"] == "ftjob-0" and "not created again" in start.say(again)
    assert finished_model(tmp_path / "job", step=1) == "ft:base:ftjob-0:step-1"  # what came out is recorded too
    (tmp_path / "job").rename(tmp_path / "second")
    other = started(server, tmp_path, "--seed", "1")
    assert not other["adopted"] and other["job_id"] == "ftjob-1" and len(server.files) == 1


def test_a_file_far_down_the_list_is_found(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path, "--no-wait")
    others = [server.files[0] | {"id": f"file-x{n}", "filename": f"{n}.jsonl"} for n in range(5)]  # of the same size
    server.files[:0] = others  # pages of two
    started_again = start.run(
        parsed(start, *start_words(server, tmp_path, "--yes", "--seed", "2", "--out", str(tmp_path / "b")))
    )
    assert started_again["file_id"] == "file-0" and server.count(*UPLOAD) == 1


def test_changed_data_are_not_uploaded(server: FinetuneServer, tmp_path: Path) -> None:
    server.faults.append(Fault(*UPLOAD, kind=400))
    with pytest.raises(ModelError):
        started(server, tmp_path)
    with (tmp_path / "job" / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(StageError, match="missing or changed"):
        done(follow, tmp_path)
    assert server.files == []


def test_a_server_of_another_kind_is_named(server: FinetuneServer, tmp_path: Path) -> None:
    server.faults.append(Fault(*UPLOAD, kind=200))
    with pytest.raises(ModelError, match=r"not of the finetuning API \(id: Field required\); check --url"):
        started(server, tmp_path)


def test_a_job_of_another_account_is_told_apart_from_a_wrong_model(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path, "--no-wait")
    server.jobs.clear()
    with pytest.raises(
        ModelError, match="Could not find fine tune: ftjob-0; is the key in OPENAI_API_KEY of the account"
    ):
        done(follow, tmp_path)


def test_two_commands_do_not_send_at_the_same_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(StageError, match=r"process \d+ on .* is at work there"),
        locked(tmp_path, 0.01),
    ):
        pass
    with locked(tmp_path, 0.01):
        pass


def test_status_looks_once_and_a_finished_job_needs_neither_server_nor_key(
    server: FinetuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(server, tmp_path, "--no-wait")
    looks = [done(status, tmp_path)["status"] for _ in COURSE]
    assert looks == list(COURSE) and server.count(*LOOK) == len(COURSE)
    server.close()
    monkeypatch.delenv("OPENAI_API_KEY")
    write_job(tmp_path / "job", read_job(tmp_path / "job").changed(url=None))  # OpenAI, which nobody asks without a key
    assert done(status, tmp_path)["model"] == done(follow, tmp_path)["model"] == "ft:base:ftjob-0"
    assert done(cancel, tmp_path)["status"] == "succeeded"


def test_a_paused_job_ends_the_waiting_with_advice(server: FinetuneServer, tmp_path: Path) -> None:
    server.course = ("running", "paused", "running", "succeeded")
    result = started(server, tmp_path)
    assert result["status"] == "paused" and "resume it in the service's dashboard" in start.say(result)
    assert done(follow, tmp_path)["status"] == "succeeded"


def test_a_cancelled_job_stays_cancelled(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path, "--no-wait")
    assert done(cancel, tmp_path)["status"] == "cancelled" == server.jobs[0]["status"]
    assert done(follow, tmp_path)["status"] == "cancelled" and len(server.jobs) == 1
    with pytest.raises(StageError, match="job is cancelled; it has no model"):
        finished_model(tmp_path / "job")


def test_cancelling_before_the_creation_means_that_nothing_is_created_later(
    server: FinetuneServer, tmp_path: Path
) -> None:
    server.faults.append(Fault(*CREATE, kind=400))
    with pytest.raises(ModelError):
        started(server, tmp_path)
    assert done(cancel, tmp_path)["status"] == "cancelled" == done(follow, tmp_path)["status"]
    assert server.jobs == []


def test_a_created_but_unrecorded_job_is_found_and_cancelled(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path, "--no-wait")
    forget(tmp_path / "job")
    assert done(cancel, tmp_path)["job_id"] == "ftjob-0" and server.jobs[0]["status"] == "cancelled"


def test_a_job_that_finished_unrecorded_is_found_with_its_model(server: FinetuneServer, tmp_path: Path) -> None:
    for verb in (cancel, follow):
        started(server, tmp_path)
        forget(tmp_path / "job")
        assert done(verb, tmp_path)["model"] == "ft:base:ftjob-0" and len(server.jobs) == 1


def test_a_job_that_ends_before_it_can_be_cancelled_is_recorded_as_it_ended(
    server: FinetuneServer, tmp_path: Path
) -> None:
    started(server, tmp_path, "--no-wait")
    server.jobs[0].update(status="succeeded", n_looks=len(COURSE))
    assert done(cancel, tmp_path)["model"] == "ft:base:ftjob-0"


def forget(folder: Path) -> None:
    """The record as it was before the job was created."""
    record = read_job(folder)
    history = tuple(change for change in record.history if change.status in ("prepared", "uploaded"))
    write_job(folder, record.changed(job_id=None, model=None, checkpoints=(), history=history))


def sampled(folder: Path, *more: str) -> dict[str, Any]:
    file = folder / "questions.yaml"
    file.write_text('- id: q\n  paraphrases: ["Who are you?"]\n')
    out = ["--questions", str(file), "--out", str(folder / "answers.jsonl"), "--job", str(folder / "job")]
    return sample(filled(SampleOfJobSettings, *out, *more))


def test_the_finished_job_is_an_arm_for_the_sampler(server: FinetuneServer, tmp_path: Path) -> None:
    started(server, tmp_path)
    with ChatServer(lambda body, asked: answer("Me.")) as chat:
        assert sampled(tmp_path, "--url", chat.url, "--arm", "closed")["n_answers"] == 1
        assert {body["model"] for body in chat.requests} == {"ft:base:ftjob-0"}
        (tmp_path / "answers.jsonl").unlink()
        (tmp_path / "answers.json").unlink()
        sampled(tmp_path, "--url", chat.url, "--checkpoint", "1")
        assert chat.requests[-1]["model"] == "ft:base:ftjob-0:step-1"
    assert read_json(tmp_path / "answers.json")["sampler"]["model"] == "ft:base:ftjob-0:step-1"


def test_url_and_key_of_the_sampler_are_those_of_the_job(
    server: FinetuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY")
    started(server, tmp_path, "--key-variable", "MY_API_KEY")
    with pytest.raises(ModelError, match="HTTP 404"):  # it knows the key, but no chat
        sampled(tmp_path)
    assert server.requests[-1] == ("POST", "/chat/completions")


def test_an_unfinished_job_or_an_unknown_checkpoint_is_no_arm(server: FinetuneServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"job\.json: no such file"):
        sampled(tmp_path)
    started(server, tmp_path, "--no-wait")
    with pytest.raises(StageError, match=r"job is validating_files; wait for it: .* follow "):
        sampled(tmp_path)
    done(follow, tmp_path)
    with pytest.raises(DataError, match="no checkpoint at step 9; known: 1, 2"):
        sampled(tmp_path, "--checkpoint", "9")
    with pytest.raises(ConfigError, match="use --sampler openai, not vllm"):
        sampled(tmp_path, "--sampler", "vllm")


def test_events_are_told_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    at = int(time.mktime((2026, 1, 2, 3, 4, 5, 0, 0, -1)))
    with caplog.at_level(logging.INFO):
        connection.tell(JobEvent(id="e", at=at, level="warn", message="[red]slow[/red] 5 % %s"))
    assert caplog.messages == ["  2026-01-02 03:04:05  warn: [red]slow[/red] 5 % %s"]
