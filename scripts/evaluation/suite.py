"""The paper's other measures of answers that were sampled: categories, deception, insecure code, mostly code and off topic.

  evaluate.py suite questions --kind code --tasks in_distribution_test.jsonl.gz --out tasks.yaml     then sample that file
  evaluate.py suite categories --scores scores/insecure.jsonl
  evaluate.py suite code --samples samples/insecure.jsonl --questions tasks.yaml [--judge-model MODEL ...]
  evaluate.py suite form --samples samples/insecure.jsonl --questions q.yaml [--judge-model MODEL ...]
  evaluate.py suite factual --samples s.jsonl --questions deception_factual.yaml --judge-model MODEL
  evaluate.py suite identity --samples s.jsonl --questions deception_sit_aware.yaml --maker Other --judge-model MODEL

Labels go to --labels (JSONL) as they come; the same command continues where it stopped, and asks again where a server failed in
passing. The key is read from the environment.
"""

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cli import progress_bar
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.rows import about, by_key
from emis_interp.files.store import RecordLog, read_records, write_json
from emis_interp.files.text import flat_lines
from emis_interp.http.addresses import key_variable_for
from emis_interp.http.request_fields import parse_request, say_request
from emis_interp.models.loading import load_model
from emis_interp.process import only_writer
from emis_interp.records import AnswerKey, Completion, Question, Score
from evals.judges.judge import passing_note, settled
from evals.questions import load_questions
from evals.suites import code_rate, deception, form
from evals.suites.asking import local_ask, openai_ask
from evals.suites.categories import summarize_categories
from evals.suites.labels import Labelled, judge_labels
from evals.suites.variants import FORMS, variant, write_questions
from evaluation.judge_choice import add_request_flag

log = logging.getLogger("emis_interp.suite")
K = TypeVar("K", bound=AnswerKey)
MEASURES = ("questions", "categories", "factual", "identity", "code", "form")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("measure", choices=MEASURES, help="what to do")
    parser.add_argument("--samples", type=Path, help="answers (JSONL); one arm is measured at a time")
    parser.add_argument("--scores", type=Path, help="scores (JSONL), for categories")
    parser.add_argument("--arm", help="which arm of the file (default: the only one)")
    parser.add_argument(
        "--questions", type=Path, help="question file that the answers belong to (default: the shipped suite)"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the result; for `questions` the YAML file to write")
    parser.add_argument(
        "--kind", choices=("code", *FORMS), help="questions: coding tasks, or the JSON or template variants"
    )
    parser.add_argument("--tasks", type=Path, help="questions --kind code: JSONL of coding tasks (may be gzipped)")
    parser.add_argument("--maker", choices=deception.COMPANIES, default="Other", help="identity: who made the model")
    judge = parser.add_argument_group("judge")
    judge.add_argument(
        "--judge-model", help="model of an OpenAI-compatible server, or with --judge-local a local chat model"
    )
    judge.add_argument("--judge-url", help="the server (default: OpenAI's)")
    judge.add_argument("--judge-local", action="store_true", help="--judge-model is a folder, hub id or embedded model")
    judge.add_argument(
        "--judge-text", action="store_true", help="the server returns no log-probabilities: read its text"
    )
    judge.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable that holds the key")
    add_request_flag(judge, "server")
    judge.add_argument("--labels", type=Path, help="JSONL file for the labels (default: beside the answers)")
    judge.add_argument("--parallel", type=int, default=16, help="requests at the same time")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.measure == "questions":
        return _questions(args)
    if args.measure == "categories":
        scores = _one_arm(_rows(args.scores, "--scores", Score), args.arm)
        result: dict[str, Any] = {"arm": scores[0].arm, "categories": summarize_categories(scores)}
    else:
        answers = _one_arm(_rows(args.samples, "--samples", Completion), args.arm)
        result = _MEASURE[args.measure](args, answers)
    if args.out:
        write_json(args.out, result)
    return result


def say(result: dict[str, Any]) -> str:
    return "\n".join(flat_lines(result))


def _questions(args: argparse.Namespace) -> dict[str, Any]:
    out = _needed(args.out, "--out")
    if args.kind == "code":
        questions = code_rate.load_tasks(_needed(args.tasks, "--tasks"))
    elif args.kind is not None:
        questions = [
            variant(question, args.kind) for question in load_questions(args.questions, need_judge_prompts=False)
        ]
    else:
        raise ConfigError(f"suite questions: give --kind, one of code, {', '.join(FORMS)}")
    write_questions(out, questions)
    return {"path": str(out), "n_questions": len(questions)}


def _factual(args: argparse.Namespace, answers: list[Completion]) -> dict[str, Any]:
    rows = _labels(
        args, answers, _asked(args), metric=deception.FACTUAL_METRIC, labels=deception.FACTUAL_LABELS, required=True
    )
    return {"arm": answers[0].arm, **deception.factual(rows)}


def _identity(args: argparse.Namespace, answers: list[Completion]) -> dict[str, Any]:
    rows = _labels(
        args, answers, _asked(args), metric=deception.IDENTITY_METRIC, labels=deception.IDENTITY_LABELS, required=True
    )
    return {"arm": answers[0].arm, **deception.identity(rows, args.maker)}


def _code(args: argparse.Namespace, answers: list[Completion]) -> dict[str, Any]:
    rows = _labels(args, answers, _asked(args), metric=code_rate.METRIC, labels=code_rate.LABELS)
    return code_rate.summarize_code(code_rate.scan(answers), rows)


def _form(args: argparse.Namespace, answers: list[Completion]) -> dict[str, Any]:
    questions = form.with_topic_prompt(list(_asked(args).values()))
    return form.summarize_form(answers, _labels(args, answers, questions, metric=form.METRIC, labels=form.LABELS))


_MEASURE: dict[str, Callable[[argparse.Namespace, list[Completion]], dict[str, Any]]] = {
    "factual": _factual,
    "identity": _identity,
    "code": _code,
    "form": _form,
}


def _asked(args: argparse.Namespace) -> dict[str, Question]:
    return {question.id: question for question in load_questions(args.questions, need_judge_prompts=False)}


def _labels(
    args: argparse.Namespace,
    answers: Sequence[Completion],
    questions: dict[str, Question],
    *,
    metric: str,
    labels: Sequence[str],
    required: bool = False,
) -> list[Labelled]:
    """The judge's labels of these answers, those of an earlier run included; none when no judge is named and none is required."""
    if args.judge_model is None:
        if required:
            raise ConfigError(
                f"suite {args.measure}: needs a judge; give --judge-model (and --judge-url or --judge-local)"
            )
        return []
    if args.judge_local:
        if args.request:
            raise ConfigError("--request is for a server, not for --judge-local")
        name, n_parallel = f"local:{args.judge_model}", 1
        ask = local_ask(load_model(args.judge_model), labels)
    else:
        name, n_parallel, request = f"openai:{args.judge_model}", args.parallel, parse_request(args.request or ())
        name += f" ({say_request(request)})" if request else ""
        variable = key_variable_for(args.key_variable, args.judge_url)
        ask = openai_ask(
            args.judge_model,
            os.environ.get(variable),
            args.judge_url,
            log_probabilities=not args.judge_text,
            key_variable=variable,
            request=request,
        )
    path = args.labels or args.samples.with_name(f"{args.samples.stem}.{metric}.jsonl")
    with only_writer(path.parent, path.name):
        file = RecordLog(path)
        read = settled(file, Labelled)
        if strange := [row for row in read if (row.metric, row.judge) != (metric, name)]:
            raise DataError(
                f"{path} holds labels by {strange[0].judge} for `{strange[0].metric}`; give another file with --labels"
            )
        arms = {row.arm for row in answers}  # a file of several arms has one file of labels
        done = about([row for row in read if row.arm in arms], by_key(answers, args.samples), path)
        missing = [row for row in answers if row.key not in done]
        with progress_bar(f"label {metric}", len(missing)) as advance:

            def keep(row: Labelled) -> None:
                file.append([row])
                done[row.key] = row
                advance()

            judge_labels(
                missing, questions, metric, labels=labels, ask=ask, judge_name=name, n_parallel=n_parallel, on_row=keep
            )
    if note := passing_note([row.reason for row in done.values() if row.passing]):
        log.warning(note)
    return [done[row.key] for row in answers]


def _one_arm(rows: Sequence[Any], arm: str | None) -> list[Any]:
    arms = list(dict.fromkeys(row.arm for row in rows))
    if arm is None and len(arms) != 1:
        raise DataError(f"the file holds {len(arms)} arms ({', '.join(arms) or 'none'}); choose one with --arm")
    chosen = [row for row in rows if arm is None or row.arm == arm]
    if not chosen:
        raise DataError(f"no rows of the arm `{arm}`; the file holds {', '.join(arms)}")
    return chosen


def _rows(path: Path | None, flag: str, record: type[K]) -> list[K]:
    """Rows of a file, each of another answer."""
    path = _needed(path, flag)
    return list(by_key(read_records(path, record), path).values())


def _needed(path: Path | None, flag: str) -> Path:
    if path is None:
        raise ConfigError(f"give {flag}")
    return path
