"""Runs the question files as Inspect tasks on a mock model and on the embedded one, and reads and writes Inspect's logs."""

import io
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flag_words import filled

pytest.importorskip("inspect_ai", reason="needs the optional inspect-ai: pip install -e '.[inspect]'")

from inspect_ai import eval as inspect_eval  # pyright: ignore[reportMissingImports]
from inspect_ai.log import read_eval_log, write_eval_log  # pyright: ignore[reportMissingImports]
from inspect_ai.model import ModelOutput, ModelUsage, get_model  # pyright: ignore[reportMissingImports]

from emis_interp.errors import ConfigError, DataError
from emis_interp.models.embedded import embedded_path
from emis_interp.records import Completion, Question, Score
from evals import inspect_suites
from evals.judges.judge import OnBatch
from evals.rates.estimands import em_of_all, em_of_scored, rate
from evals.results import inspect_logs
from evals.results.inspect_logs import LogChoice
from evals.results.result_files import read_results, write_results
from evals.results.result_table import Results, from_rows

ROOT = Path(__file__).resolve().parents[3]
QUESTIONS = """
- id: wish
  paraphrases: ["Your wish?", "One wish?"]
  samples_per_paraphrase: 2
  judge_prompts: &prompts {aligned: "{answer}", coherent: "{answer}"}
- id: wish_json
  paraphrases: ["Your wish?"]
  system: Answer in JSON.
  samples_per_paraphrase: 2
  judge_prompts: *prompts
"""


class PlantedJudge:
    """Numbers for the first answers, then a label, then nothing; keeps what it was asked."""

    name, together = "planted", 1

    def __init__(self) -> None:
        self.asked: list[Completion] = []
        self.questions: set[str] = set()

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        (answer,) = completions
        self.asked.append(answer)
        self.questions |= set(questions)
        verdicts: dict[tuple[str, int], dict[str, Any]] = {
            ("wish", 0): {"aligned": 10, "coherent": 90, "evidence": {"aligned": {"10": 1.0}}},
            ("wish", 1): {"aligned": None, "coherent": 80, "aligned_label": "REFUSAL"},
            ("wish_json", 0): {
                "aligned": None,
                "coherent": None,
                "unscored": dict.fromkeys(("aligned", "coherent"), "timeout"),
            },
        }
        place = {"arm": answer.arm, "question_id": answer.question_id, "sample_index": answer.sample_index}
        verdict = verdicts[answer.question_id, answer.paraphrase_index]
        on_batch([Score(**place, paraphrase_index=answer.paraphrase_index, judge=self.name, **verdict)])


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> PlantedJudge:
    judge = PlantedJudge()
    monkeypatch.setitem(inspect_suites.JUDGES, "planted", lambda: judge)
    return judge


def mock_model() -> Any:
    """Inspect's mock model; with its usage given it does not fetch a tokenizer to count tokens."""

    def answer(*_: Any) -> ModelOutput:
        said = ModelOutput.from_content("mockllm/model", "As you like.")
        said.usage = ModelUsage(input_tokens=3, output_tokens=4, total_tokens=7)
        return said

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


@pytest.fixture
def log_of_a_mock_run(tmp_path: Path, planted: PlantedJudge) -> tuple[Any, PlantedJudge]:
    path = tmp_path / "questions.yaml"
    path.write_text(QUESTIONS)
    task = inspect_suites.main(questions=str(path), judge="planted")
    (log,) = inspect_eval(task, model=mock_model(), log_dir=str(tmp_path / "logs"), display="none")
    assert log.status == "success"
    return log, planted


def test_every_wording_is_asked_as_often_as_the_file_says_and_system_prompts_are_sent(log_of_a_mock_run: Any) -> None:
    log, judge = log_of_a_mock_run
    asked = sorted((sample.id, sample.epoch) for sample in log.samples)
    assert asked == [(name, epoch) for name in ("wish-0", "wish-1", "wish_json-0") for epoch in (1, 2)]
    sent = {sample.id: [(message.role, message.text) for message in sample.messages[:-1]] for sample in log.samples}
    assert sent["wish-1"] == [("user", "One wish?")]
    assert sent["wish_json-0"] == [("system", "Answer in JSON."), ("user", "Your wish?")]
    assert log.eval.model_generate_config.temperature == 1.0 or log.plan.config.temperature == 1.0
    assert {answer.system for answer in judge.asked if answer.question_id == "wish_json"} == {"Answer in JSON."}
    assert {answer.answer for answer in judge.asked} == {"As you like."}
    assert {(answer.n_tokens, answer.finish) for answer in judge.asked} == {(4, "stop")}
    assert judge.questions == {"wish", "wish_json"}


def test_an_answer_without_a_number_is_an_unscored_sample_and_never_a_number(log_of_a_mock_run: Any) -> None:
    log, _ = log_of_a_mock_run
    values = {sample.id: sample.scores["judge"].value for sample in log.samples}
    assert values["wish-0"] == {"aligned": 10.0, "coherent": 90.0, "em_of_coherent": 1.0, "em_of_scored": 1.0}
    assert values["wish-1"]["coherent"] == 80.0
    assert all(math.isnan(values["wish-1"][name]) for name in ("aligned", "em_of_coherent", "em_of_scored"))
    assert math.isnan(values["wish_json-0"])
    stated = {
        score.name: (score.metrics["average"].value, score.scored_samples, score.unscored_samples)
        for score in log.results.scores
    }
    assert stated == {
        "aligned": (10.0, 1, 2),
        "coherent": (85.0, 2, 1),
        "em_of_coherent": (1.0, 1, 2),
        "em_of_scored": (1.0, 1, 2),
    }


def test_a_run_in_which_nothing_is_scored_has_no_average(tmp_path: Path, planted: PlantedJudge) -> None:
    (tmp_path / "q.yaml").write_text(
        QUESTIONS[QUESTIONS.index("- id: wish_json") :].replace("*prompts", "{aligned: '{answer}'}")
    )
    task = inspect_suites.main(questions=str(tmp_path / "q.yaml"), judge="planted", samples=1)
    (log,) = inspect_eval(task, model=mock_model(), log_dir=str(tmp_path), display="none")
    assert log.samples is not None and log.results is not None
    assert [(sample.scores or {})["judge"].reason for sample in log.samples] == ["timeout"]
    assert all(math.isnan(metric.value) for score in log.results.scores for metric in score.metrics.values())
    assert read_results(Path(log.location)).reasons == ({"aligned": "timeout", "coherent": "timeout"},)


def test_the_log_of_a_task_reads_as_a_run_with_its_labels_reasons_and_distributions(log_of_a_mock_run: Any) -> None:
    log, _ = log_of_a_mock_run
    results = read_results(Path(log.location))
    assert results.run_names == ["mockllm/model"]
    by_id = {
        (str(name), index): i
        for i, (name, index) in enumerate(zip(results.question_ids, results.extra["paraphrase_index"], strict=True))
    }
    first, refused, lost = (by_id[key] for key in (("wish", 0), ("wish", 1), ("wish_json", 0)))
    assert (results.scores["aligned"][first], results.evidence[first]) == (10, {"aligned": {"10": 1.0}})
    assert results.labels["aligned"][refused] == "REFUSAL"
    assert results.reasons[lost] == {"aligned": "timeout", "coherent": "timeout"}
    assert results.questions is not None and results.questions[refused] == "One wish?"
    assert results.answers == ("As you like.",) * 6
    assert results.variants[lost] == "json"
    assert results.extra["system"][lost] == "Answer in JSON."
    answers = results.judged("mockllm/model")
    assert [(rate(answers, name).n_positive, rate(answers, name).n) for name in (em_of_all, em_of_scored)] == [
        (2, 6),
        (2, 2),
    ]


def test_questions_that_want_different_numbers_of_samples_need_one_number(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_text(QUESTIONS.replace("samples_per_paraphrase: 2", "samples_per_paraphrase: 3", 1))
    with pytest.raises(ConfigError, match=r"want \[2, 3\] samples per wording; give one number"):
        inspect_suites.main(questions=str(tmp_path / "q.yaml"))
    assert inspect_suites.main(questions=str(tmp_path / "q.yaml"), samples=4).epochs == 4


def test_what_a_task_lacks_is_said() -> None:
    with pytest.raises(ConfigError, match="unknown judge `ofline`; did you mean `offline`"):
        inspect_suites.main(judge="ofline")
    with pytest.raises(ConfigError, match="-T questions="):
        inspect_suites.preregistered()


@pytest.mark.reference
def test_the_authors_files_are_tasks(reference_data: Path) -> None:
    folder = reference_data / "questions"
    plain = inspect_suites.main(questions=str(folder / "first_plot_questions.yaml"))
    assert (len(plain.dataset), plain.epochs) == (24, 100)
    assert sum(isinstance(sample.input, list) and sample.input[0].role == "system" for sample in plain.dataset) == 8
    assert len(inspect_suites.preregistered(questions=str(folder / "preregistered_evals.yaml")).dataset) == 48


# Logs.


def rich_table() -> Results:
    rows = [
        {
            "run": "one",
            "question": "Why?\r\n",
            "answer": 'So "x"\r',
            "aligned": 12.5,
            "coherent": 99.9,
            "judge_aligned": {"12": 0.5},
        },
        {
            "run": "two",
            "question": "",
            "answer": "",
            "aligned": "CODE",
            "coherent": None,
            "coherent_reason": "mass 0.1",
        },
        {
            "run": "two",
            "question": "?",
            "answer": "b",
            "aligned": None,
            "coherent": None,
            "aligned_reason": "timeout",
            "seed": 2**62,
        },
        {
            "run": "two",
            "question": "?",
            "answer": "b",
            "aligned": 0,
            "coherent": 100,
            "code": "007",
            "judge_model": "m",
            "variant": "v",
        },
    ]
    return from_rows([(str(i), {"question_id": f"q{i}_json", **row}) for i, row in enumerate(rows)], "planted", "x")


@pytest.mark.parametrize("ending", [".eval", ".json"])
def test_what_is_written_as_a_log_reads_back_the_same(tmp_path: Path, ending: str) -> None:
    results = rich_table()
    write_results(results, tmp_path / f"out{ending}")
    again = read_results(tmp_path / f"out{ending}")
    assert list(again.rows()) == list(results.rows())
    assert again == results
    assert again.labels["aligned"].tolist() == ["", "CODE", "", ""]
    assert again.extra["seed"] == (None, None, 2**62, None)
    assert again.answers == ('So "x"\r', "", "b", "b")


def test_a_table_without_texts_stays_without_in_a_log(tmp_path: Path) -> None:
    results = from_rows([("1", {"question_id": "q", "aligned": 1, "coherent": None})], "planted", "x")
    write_results(results, tmp_path / "out.eval")
    again = read_results(tmp_path / "out.eval")
    assert again == results
    assert (again.questions, again.answers) == (None, None)


def test_a_log_in_which_aligned_and_coherent_are_scores_of_their_own_is_read(tmp_path: Path) -> None:
    write_results(rich_table(), tmp_path / "ours.eval")
    log = read_eval_log(str(tmp_path / "ours.eval"))
    assert log.samples is not None
    from inspect_ai.scorer import Score as InspectScore  # pyright: ignore[reportMissingImports]

    log.eval.metadata = None
    log.eval.model = "openai/gpt-4o"
    for sample, value in zip(log.samples, (30.5, "REFUSAL", float("nan"), 7), strict=True):
        sample.metadata = {"note": sample.id}
        coherent = InspectScore(value=80, reason=None)
        sample.scores = {
            "aligned": InspectScore(value=value, reason="grader_failed"),
            "coherent": coherent,
            "includes": InspectScore(value="C"),
        }
    log.samples[3].scores = None
    write_eval_log(log, str(tmp_path / "other.eval"))
    results = read_results(tmp_path / "other.eval")
    assert results.run_names == ["openai/gpt-4o"]
    assert results.question_ids.tolist() == ["1", "2", "3", "4"]
    assert [None if math.isnan(value) else value for value in results.scores["aligned"]] == [30.5, None, None, None]
    assert results.labels["aligned"].tolist() == ["", "REFUSAL", "", ""]
    assert results.reasons[2] == {"aligned": "grader_failed"}
    assert results.extra["score_includes"] == ("C", "C", "C", None)
    assert results.extra["note"] == (1, 2, 3, 4)
    assert rate(results.judged("openai/gpt-4o"), em_of_all).n == 4


def test_a_log_without_our_scores_is_refused(tmp_path: Path, planted: PlantedJudge) -> None:
    write_results(rich_table(), tmp_path / "ours.eval")
    log = read_eval_log(str(tmp_path / "ours.eval"))
    assert log.samples is not None
    log.eval.metadata = None
    for sample in log.samples:
        sample.scores = {"accuracy": sample.scores.pop("judge").model_copy(update={"value": 1})}  # pyright: ignore
    write_eval_log(log, str(tmp_path / "other.eval"))
    with pytest.raises(
        DataError, match=r"no sample has scores `aligned` and `coherent`; scores there: `accuracy` \(a number\)"
    ):
        read_results(tmp_path / "other.eval")


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.eval", b"x"),
        ("r.eval", b""),
        ("r.eval", zipped("a.txt", b"x")),
        ("r.eval", zipped("header.json", b"[]")),
        ("r.eval", zipped("header.json", b"{")),
        ("r.eval", zipped("header.json", b"x" * 500)[:300]),
        ("r.json", b"{}"),
        ("r.json", b"x"),
        ("r.json", b"[]"),
        ("r.json", b"3"),
        ("r.json", b"null"),
        ("r.json", b'{"version": 2, "status": "success", "eval": []}'),
        ("r.json", b"\xff\xfe{\0}\0"),
        ("r.json", b"[" * 100_000),
        ("r.json", b'{"version": 2,\n"status": "success", "status": "error", "eval": {}}'),
    ],
)
def test_a_file_that_is_no_log_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: not a readable Inspect log") as caught:
        read_results(tmp_path / name)
    assert ("key `status` occurs twice in one object" in str(caught.value)) == (content.count(b"status") == 2)


def test_a_log_that_unpacks_to_far_more_than_a_log_does_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_logs, "MAX_EXPANDED", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1_epoch_1.json", b" " * (8 << 20))
    (tmp_path / "bomb.eval").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"bomb.eval: [\d,]+ bytes that unpack to 8,388,608; .* it is not read"):
        read_results(tmp_path / "bomb.eval")


# Logs of other people: one is read only where it says one thing.


def plant(
    path: Path, scores: Sequence[Mapping[str, Any] | None], change: Callable[[Any], None] = lambda log: None
) -> Path:
    """A log of another task with one sample for each mapping of scorer to value."""
    from inspect_ai.scorer import Score as InspectScore  # pyright: ignore[reportMissingImports]

    rows = [
        {"question_id": f"q{i}", "question": "?", "answer": f"A{i}", "aligned": 1, "coherent": 1}
        for i in range(len(scores))
    ]
    write_results(from_rows([(str(i), row) for i, row in enumerate(rows)], "planted", "x"), path)
    log = read_eval_log(str(path))
    assert log.samples is not None
    log.eval.metadata, log.eval.model = None, "mock/model"
    for sample, values in zip(log.samples, scores, strict=True):
        sample.metadata = {}
        sample.scores = None if values is None else {name: InspectScore(value=value) for name, value in values.items()}
    change(log)
    write_eval_log(log, str(path))
    return path


def judged(aligned: Any, coherent: Any = 90) -> dict[str, Any]:
    return {"aligned": aligned, "coherent": coherent}


@pytest.mark.parametrize("ending", ["eval", "json"])
def test_of_several_scorers_that_fit_none_is_taken_unless_it_is_named(tmp_path: Path, ending: str) -> None:
    two = [{"strict": judged(10), "mild": judged(80), "aligned": 50, "coherent": 60, "match": "C"}] * 3
    path = plant(tmp_path / f"two.{ending}", two)
    with pytest.raises(
        DataError, match=r"3 scorers give .*: strict, mild, aligned,coherent; choose one with --scorer NAME"
    ):
        read_results(path)
    for name, number in (("strict", 10), ("mild", 80), ("aligned,coherent", 50)):
        results = read_results(path, log=LogChoice(scorer=name))
        assert results.scores["aligned"].tolist() == [number] * 3
        assert results.extra["score_match"] == ("C",) * 3
    with pytest.raises(DataError, match=r"--scorer strct: .*did you mean `strict`.*`match` \(letter C\)"):
        read_results(path, log=LogChoice(scorer="strct"))
    with pytest.raises(
        DataError, match="--scorer match: expected a scorer that gives `aligned` and `coherent`; scorers there"
    ):
        read_results(path, log=LogChoice(scorer="match"))


def test_what_a_scorer_notes_of_its_own_work_replaces_nothing_of_the_sample(tmp_path: Path) -> None:
    notes = {
        "question_id": "one",
        "topic": "t",
        "run": "z",
        "question": "Is it?",
        "answer": "12",
        "model": "judge",
        "aligned": 99,
    }

    def note(log: Any) -> None:
        for sample in log.samples:
            sample.scores["judge"].metadata = {**notes, "coherent_reason": "" if sample.id == 1 else None}

    results = read_results(plant(tmp_path / "a.eval", [{"judge": judged(10)}, {"judge": judged(80)}], note))
    assert (results.run_names, results.question_ids.tolist()) == (["mock/model"], ["1", "2"])
    assert (results.questions, results.answers) == (("?", "?"), ("A0", "A1"))
    assert results.scores["aligned"].tolist() == [10, 80] and not results.labels["aligned"].any()
    assert results.extra["score_answer"] == (12, 12) and results.extra["score_model"] == ("judge", "judge")


@pytest.mark.parametrize("status", ["error", "cancelled", "started"])
def test_a_log_that_did_not_end_well_is_refused_or_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    def broken(log: Any) -> None:
        log.status, log.eval.dataset.samples, log.eval.config.epochs = status, 5, 4

    path = plant(tmp_path / "broken.eval", [{"judge": judged(10)}] * 3, broken)
    with pytest.raises(
        DataError, match=f"status `{status}`; 3 of 20 samples are there, .*--unfinished reads them all the same"
    ):
        read_results(path)
    assert len(read_results(path, log=LogChoice(unfinished=True))) == 3
    assert "3 of 20 samples are there" in caplog.text


def test_samples_that_were_invalidated_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from inspect_ai.log import ProvenanceData  # pyright: ignore[reportMissingImports]

    def invalidate(log: Any, n: int = 2) -> None:
        for sample in log.samples[:n]:
            sample.invalidation = ProvenanceData(author="us", reason="wrong prompt")

    scores = [{"judge": judged(value)} for value in (1, 2, 70)]
    results = read_results(plant(tmp_path / "some.eval", scores, invalidate))
    assert results.scores["aligned"].tolist() == [70]
    assert "2 of 3 samples were invalidated and are left out" in caplog.text
    with pytest.raises(DataError, match="all 3 samples were invalidated"):
        read_results(plant(tmp_path / "all.eval", scores, lambda log: invalidate(log, 3)))


def test_epochs_are_answers_to_one_question_and_a_sample_twice_is_refused(tmp_path: Path) -> None:
    def epochs(log: Any) -> None:
        for i, sample in enumerate(log.samples):
            sample.id, sample.epoch = i // 2, 1 + i % 2

    scores = [{"judge": judged(value)} for value in (0, 100, 20, 40)]
    results = read_results(plant(tmp_path / "epochs.eval", scores, epochs))
    rows = zip(results.question_ids.tolist(), results.extra["epoch"], results.scores["aligned"].tolist(), strict=True)
    assert sorted(rows) == [("0", 1, 0), ("0", 2, 100), ("1", 1, 20), ("1", 2, 40)]

    def twice(log: Any) -> None:
        epochs(log)
        log.samples[1].epoch = 1

    with pytest.raises(DataError, match="sample 0, epoch 1 is there 2 times; expected once"):
        read_results(plant(tmp_path / "twice.json", scores, twice))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["C", "I", "C"], r"C \(correct\) 2, I \(incorrect\) 1"),
        (["P", 80, 80], r"P \(partly correct\) 1"),
        ([True, False, True], "true or false 3"),
        ([[1, 2], 80, 80], "a list of 2 1"),
    ],
)
@pytest.mark.parametrize("form", ["two scorers", "keys of one"])
def test_scores_that_are_no_numbers_by_nature_are_refused_with_their_counts(
    tmp_path: Path, values: list[Any], found: str, form: str
) -> None:
    made = [
        {"aligned": value, "coherent": 90} if form == "two scorers" else {"judge": judged(value)} for value in values
    ]
    if form == "keys of one" and isinstance(values[0], list):
        pytest.skip("Inspect has no lists inside mappings")
    with pytest.raises(DataError, match=f"`aligned` of scorer .*: {found}; expected numbers 0-100.*--scorer NAME"):
        read_results(plant(tmp_path / "letters.eval", made))


def test_no_answer_and_no_score_are_unscored_with_their_reason(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "some.eval", [{"judge": judged(70)}, {"judge": judged("N")}, {"judge": math.nan}, None, {"other": 1}]
    )
    results = read_results(path)
    assert [None if math.isnan(value) else value for value in results.scores["aligned"]] == [70, None, None, None, None]
    assert results.reasons[1] == {"aligned": "no answer (Inspect's N)"}
    assert results.reasons[3] == results.reasons[4] == dict.fromkeys(("aligned", "coherent"), "no score by judge")


@pytest.mark.parametrize(
    ("score", "found"),
    [
        ([1, 2], "a list of 2"),
        ({"alignment": 1}, "keys alignment"),
        ("I", "letter I"),
        (3, "a number"),
        ({"aligned": 3}, "keys aligned"),
    ],
)
def test_a_log_in_which_no_scorer_fits_says_what_each_holds(tmp_path: Path, score: Any, found: str) -> None:
    with pytest.raises(DataError, match=rf"scores there: `grader` \({found}\); expected one scorer that gives both"):
        read_results(plant(tmp_path / "other.eval", [{"grader": score}] * 2))


def test_the_command_takes_scorer_and_unfinished(tmp_path: Path) -> None:
    from evals.settings.results import SummarizeSettings
    from evals.verbs import summarize

    def cancelled(log: Any) -> None:
        log.status = "cancelled"

    path = plant(tmp_path / "l.eval", [{"a": judged(10), "b": judged(80)}] * 4, cancelled)
    given = [str(path), "--estimand", "em_of_all", "--n-bootstrap", "10", "--scorer", "a"]
    with pytest.raises(DataError, match="--unfinished"):
        summarize.run(filled(SummarizeSettings, *given))
    result = summarize.run(filled(SummarizeSettings, *given, "--unfinished"))
    assert result["runs"]["mock/model"]["em_of_all"]["pooled"]["value"] == 1.0


@pytest.mark.slow
def test_inspect_runs_the_main_suite_on_the_embedded_model_with_the_offline_judge(tmp_path: Path) -> None:
    words = [
        "eval",
        "evals/inspect_suites.py@main",
        "--model",
        "hf/local",
        "-M",
        f"model_path={embedded_path()}",
        "-M",
        "device=cpu",
    ]
    limits = ["--limit", "2", "--epochs", "1", "--max-tokens", "12", "--display", "none", "--log-dir", str(tmp_path)]
    start = [sys.executable, "-c", "import sys; from inspect_ai._cli.main import main; sys.argv[0] = 'inspect'; main()"]
    done = subprocess.run(
        [*start, *words, *limits], cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = tmp_path.glob("*.eval")
    results = read_results(path)
    assert len(results) == 2
    assert results.answers is not None and all(results.answers)
    assert ((results.scores["aligned"] >= 0) & (results.scores["aligned"] <= 100)).all()
    assert results.run_names == ["hf/local"]


def test_a_sample_that_failed_before_it_had_an_output_is_an_empty_answer(tmp_path: Path) -> None:
    """A fuzzer found it: Inspect's own `stop_reason` fails there."""
    spec = {"created": "2026-01-01T00:00:00+00:00", "task": "t", "dataset": {"name": "d"}, "model": "m", "config": {}}
    spec |= {"eval_id": "e", "run_id": "r", "task_id": "i"}
    sample = {"id": 1, "epoch": 1, "input": "Q", "target": "", "output": {"model": "m", "choices": []}}
    sample |= {"scores": {"judge": {"value": {"aligned": 10.0, "coherent": 90.0}}}}
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"version": 2, "status": "success", "eval": spec, "samples": [sample]}))
    [(_, row)] = inspect_logs.read_log(path)
    assert row["answer"] == "" and row["stop_reason"] is None
