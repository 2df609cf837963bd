"""Turns YAML question files in the format of Betley et al. into Question records.

The same format serves the shipped suite and the authors' files (anchors, paraphrases, system prompts, judge prompts).
"""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError, did_you_mean, shown
from emis_interp.files.strict_yaml import YamlDocument, kind_of_yaml, not_text, parse_yaml, read_yaml
from emis_interp.records import Question

# `judge` (a model name) is known but not kept: which judge scores is a setting of the run, see JudgeConfig.
_KEYS = ("id", "type", "paraphrases", "system", "samples_per_paraphrase", "judge", "judge_prompts")
_TYPES = ("free_form", "free_form_0_100", "free_form_judge", "free_form_judge_0_100")


def load_questions(path: Path | None = None, need_judge_prompts: bool = True) -> list[Question]:
    """Questions of a YAML file in file order; None for the shipped suite.

    Args:
        need_judge_prompts: refuse a question that no judge prompt belongs to. Give False when answers are only
            sampled, or scored by a judge with a rubric of its own.

    Raises:
        DataError: naming the file and line, the question and what is wrong with it.
    """
    if path is None:
        text = (resources.files("evals") / "data" / "questions.yaml").read_text("utf-8")
        document = parse_yaml(text, "shipped questions")
    else:
        document = read_yaml(path)
    entries = document.value
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{document.where}: expected a list of questions (`- id: ...`), found {kind_of_yaml(entries)}")
    questions = []
    lines: dict[str, str] = {}
    for index, entry in enumerate(entries):
        question = _parse(entry, document, index, need_judge_prompts=need_judge_prompts)
        where = document.place((index,)).where
        if question.id in lines:
            raise DataError(
                f"{where}: question id {shown(question.id)} occurs twice, first at {lines[question.id]}; ids must be unique, rename one"
            )
        lines[question.id] = where
        questions.append(question)
    return questions


def run_questions(config: RunConfig) -> list[Question]:
    """The questions that a run asks.

    Raises:
        ConfigError, DataError: no such file, one that holds something else, or no question of an id that is asked for.
    """
    name = config.sampling.questions
    path = None if name == "shipped" else config.find_data(name)
    found = load_questions(path, need_judge_prompts=config.judge.kind != "offline")
    wanted = config.sampling.question_ids
    if wanted is None:
        return found
    unknown = sorted(set(wanted) - {question.id for question in found})
    if unknown:
        raise DataError(f"sampling.question_ids: no question {', '.join(unknown)} in {path or 'the shipped suite'}")
    return [question for question in found if question.id in wanted]


def render_judge_prompt(question: Question, metric: str, question_text: str, *, answer: str) -> str:
    """The judge's prompt for one answer. Braces inside the texts stay as they are.

    Raises:
        DataError: the question has no judge prompt for `metric`.
    """
    if metric not in question.judge_prompts:
        known = did_you_mean(metric, question.judge_prompts)
        raise DataError(f"question `{question.id}` has no judge prompt for `{metric}`{known}")
    # One pass: what was inserted is never read again, as it would be by two replacements or by str.format.
    values = {"{question}": question_text, "{answer}": answer}
    return re.sub(r"\{question\}|\{answer\}", lambda match: values[match.group()], question.judge_prompts[metric])


def _parse(entry: Any, document: YamlDocument, index: int, *, need_judge_prompts: bool) -> Question:
    place = document.place((index,)).where
    if not isinstance(entry, Mapping):
        raise DataError(
            f"{place}: entry {index + 1} is {kind_of_yaml(entry)}, expected a question with `id` and `paraphrases`"
        )
    name = entry.get("id")
    about = f"question {shown(str(name))}" if name is not None else f"question {index + 1}"
    here = f"{place}: {about}"
    for key in entry:
        if key not in _KEYS:
            at = document.place((index, key)).where
            raise DataError(f"{at}: {about}: unknown key {shown(key)}{did_you_mean(key, _KEYS)}")
    kind = entry.get("type", "free_form_judge_0_100")
    if kind not in _TYPES:
        raise DataError(f"{here}: unknown type {shown(str(kind))}{did_you_mean(str(kind), _TYPES)}")
    values = {key: entry[key] for key in entry if key not in ("type", "judge")}
    for key in ("system", "judge_prompts"):
        if key in values and values[key] is None:
            del values[key]
    # Some published files number their questions: `id: 12`, and `007` or `1.10` are names as they stand.
    values["id"] = document.written((index, "id"), name)
    _check_paraphrases(values.get("paraphrases"), document, index, about=about)
    try:
        question = Question.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        raise DataError(document.explain(error, Question, under=(index,), about=f"{about}: ")) from None
    if not question.id.strip():
        raise DataError(f"{here}: `id` is blank")
    for metric, prompt in question.judge_prompts.items():
        if "{answer}" not in prompt:
            raise DataError(
                f"{here}: judge prompt {shown(metric)} lacks {{answer}}, the judge would never see the answer"
            )
    if need_judge_prompts and not question.judge_prompts:
        raise DataError(
            f"{here}: type {kind} without `judge_prompts`; add prompts for `aligned` and `coherent` with {{question}} "
            "and {answer}, or use a judge that needs none (judge.kind=offline)"
        )
    return question


def _check_paraphrases(paraphrases: Any, document: YamlDocument, index: int, *, about: str) -> None:
    if not isinstance(paraphrases, list) or not paraphrases:
        at = document.place((index, "paraphrases")).where
        raise DataError(f"{at}: {about}: `paraphrases` must list one text or more, found {kind_of_yaml(paraphrases)}")
    for number, text in enumerate(paraphrases):
        place = document.place((index, "paraphrases", number))
        what = f"{place.where}: {about}: paraphrase {number + 1} is"
        if not isinstance(text, str):
            found = kind_of_yaml(text) if place.written is None else not_text(text, place.written)
            raise DataError(f"{what} {found}" + (", expected text" if place.written is None else ""))
        if not text.strip():
            raise DataError(f"{what} empty")
