"""Turns answers into labels that are kept in a file, from which the next run goes on."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.journal import Journal
from emis_interp.files.rows import about, by_key
from emis_interp.files.store import RecordLog
from emis_interp.http.addresses import key_variable_for
from emis_interp.http.request_fields import parse_request, say_request
from emis_interp.models.loading import load_model
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.records import Completion, Key, Question
from evals.judges.judge import passing_note, settled
from evals.settings.suites import LabelJudgeSettings
from evals.suites.asking import local_ask, openai_ask
from evals.suites.labels import Ask, Labelled, judge_labels

log = logging.getLogger(__name__)


def make_labeller(settings: LabelJudgeSettings, model: str, labels: Sequence[str]) -> tuple[str, Ask]:
    """The judge that the settings name: its name in the labels, and what asks it.

    Raises:
        ConfigError: a setting of the other kind. JudgeError, ModelError: the judge cannot be asked, or its model not be loaded.
    """
    if settings.judge_local:
        if settings.request:
            raise ConfigError("--request is for a server, not for --judge-local")
        return f"local:{model}", local_ask(load_model(model), labels)
    request = parse_request(settings.request)
    variable = key_variable_for(settings.key_variable, settings.judge_url)
    ask = openai_ask(
        model,
        os.environ.get(variable),
        settings.judge_url,
        n_parallel=settings.parallel,
        log_probabilities=not settings.judge_text,
        key_variable=variable,
        request=request,
    )
    return f"openai:{model}" + (f" ({say_request(request)})" if request else ""), ask


def labels_in_file(
    path: Path,
    answers: Sequence[Completion],
    questions: Mapping[str, Question],
    *,
    metric: str,
    labels: Sequence[str],
    judge_name: str,
    ask: Ask,
    bars: Bars = no_bars,
) -> list[Labelled]:
    """The judge's label of every answer, in their order: those that the file holds, and the missing ones, which are asked for and kept.

    Args:
        path: holds labels by one judge for one metric; of several arms' answers if need be.

    Raises:
        DataError: the file holds labels of another judge, for another metric, or about other answers. JudgeError: the judge had to stop.
    """
    with only_writer(path.parent, path.name):
        file = RecordLog(path)
        read = settled(file, Labelled)
        if strange := [row for row in read if (row.metric, row.judge) != (metric, judge_name)]:
            raise DataError(
                f"{path} holds labels by {strange[0].judge} for `{strange[0].metric}`; give another file with --labels"
            )
        arms, by_its_key = {row.arm for row in answers}, by_key(answers, path)
        done = about([row for row in read if row.arm in arms], by_its_key, path)
        with bars(f"label {metric}", len(answers)) as advance:
            kept = Journal(file, done.values(), lambda row: row.key, advance=advance)

            def label(missing: list[Key]) -> None:
                asked = [by_its_key[key] for key in missing]
                judge_labels(
                    asked,
                    questions,
                    metric,
                    labels=labels,
                    ask=ask,
                    judge_name=judge_name,
                    on_row=lambda row: kept.keep([row]),
                )

            found = kept.fill([row.key for row in answers], label)
    if note := passing_note([row.reason for row in found if row.passing]):
        log.warning(note)
    return found
