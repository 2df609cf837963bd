"""Turns sampled answers, or their scores, into one of the paper's other measures; or tasks and questions into a file to sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.rows import by_key
from emis_interp.files.store import read_records, write_json
from emis_interp.files.text import flat_lines
from emis_interp.process import Bars, no_bars
from emis_interp.records import AnswerKey, Completion, Question, Score
from evals.questions import load_questions
from evals.settings_suites import SuiteSettings
from evals.suites import code_rate, deception, form
from evals.suites.categories import summarize_categories
from evals.suites.label_files import labels_in_file, make_labeller
from evals.suites.labels import Labelled
from evals.suites.variants import FORMS, variant, write_questions

K = TypeVar("K", bound=AnswerKey)
LABELLED = {
    "factual": (deception.FACTUAL_METRIC, deception.FACTUAL_LABELS),
    "identity": (deception.IDENTITY_METRIC, deception.IDENTITY_LABELS),
    "code": (code_rate.METRIC, code_rate.LABELS),
    "form": (form.METRIC, form.LABELS),
}
"""Measure -> the metric whose judge prompt is asked, and the labels that it allows."""
NEEDS_A_JUDGE = ("factual", "identity")


def run(settings: SuiteSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Measure one arm, or write a file of questions."""
    if settings.measure == "questions":
        return _questions(settings)
    if settings.measure == "categories":
        scores = _one_arm(_rows(settings.scores, "--scores", Score), settings.arm)
        result: dict[str, Any] = {"arm": scores[0].arm, "categories": summarize_categories(scores)}
    else:
        samples = _needed(settings.samples, "--samples")
        answers = _one_arm(_rows(samples, "--samples", Completion), settings.arm)
        result = _summary(settings, answers, _labels(settings, samples, answers, bars=bars))
    if settings.out:
        write_json(settings.out, result)
    return result


def say(result: dict[str, Any]) -> str:
    return "\n".join(flat_lines(result))


def _questions(settings: SuiteSettings) -> dict[str, Any]:
    out = _needed(settings.out, "--out")
    if settings.kind == "code":
        questions = code_rate.load_tasks(_needed(settings.tasks, "--tasks"))
    elif settings.kind is not None:
        questions = [variant(question, settings.kind) for question in _asked(settings)]
    else:
        raise ConfigError(f"suite questions: give --kind, one of code, {', '.join(FORMS)}")
    write_questions(out, questions)
    return {"path": str(out), "n_questions": len(questions)}


def _asked(settings: SuiteSettings) -> list[Question]:
    return load_questions(settings.questions, need_judge_prompts=False)


def _labels(settings: SuiteSettings, samples: Path, answers: Sequence[Completion], *, bars: Bars) -> list[Labelled]:
    """The judge's labels of these answers, those of an earlier run included; none when no judge is named and none is needed."""
    asked = _asked(settings)
    questions = form.with_topic_prompt(asked) if settings.measure == "form" else {one.id: one for one in asked}
    metric, labels = LABELLED[settings.measure]
    if settings.judge_model is None:
        if settings.measure in NEEDS_A_JUDGE:
            raise ConfigError(
                f"suite {settings.measure}: needs a judge; give --judge-model (and --judge-url or --judge-local)"
            )
        return []
    name, ask = make_labeller(settings, settings.judge_model, labels)
    path = settings.labels or samples.with_name(f"{samples.stem}.{metric}.jsonl")
    return labels_in_file(path, answers, questions, metric=metric, labels=labels, judge_name=name, ask=ask, bars=bars)


def _summary(settings: SuiteSettings, answers: Sequence[Completion], labels: Sequence[Labelled]) -> dict[str, Any]:
    if settings.measure == "code":
        return code_rate.summarize_code(code_rate.scan(answers), labels)
    if settings.measure == "form":
        return form.summarize_form(answers, labels)
    found = deception.factual(labels) if settings.measure == "factual" else deception.identity(labels, settings.maker)
    return {"arm": answers[0].arm, **found}


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
