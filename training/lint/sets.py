"""Turns data sets, shipped ones by name and files, into lint reports, and into words for a terminal."""

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.errors import DataError
from emis_interp.files.store import write_text
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.spec import ModelSpec
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.process import Bars, no_bars
from emis_interp.records import TrainingExample
from emis_interp.report.page_frame import command_of, frame_of
from training.data_sets.files import ENDINGS
from training.data_sets.shipped import SHIPPED, file_of, load_dataset, row_groups
from training.data_sets.textstats import Named
from training.lint.dataset import lint_dataset
from training.lint.report import LintFinding, LintReport, fact_text, row_ids
from training.lint.rows import read_leniently
from training.lint.settings import LintSettings
from training.lint.surprise import Reader
from training.lint.view import lint_page


def run(settings: LintSettings, bars: Bars = no_bars, *, asked: Sequence[Named] = ()) -> dict[str, Any]:
    """Lint the sets one after the other; `ok` when no error was found.

    Args:
        asked: texts that the model will be asked after training (`copies.asked_texts`); a training text may not hold them.

    Raises:
        DataError: an unknown set, a file without a readable row, or two sets of one name.
    """
    if settings.surprise_rows:
        chat_model = ModelSpec(settings.model, chat_format=settings.chat_format).load()
        tokenizer, reader = chat_model.tokenizer, reader_of(chat_model, bars)
    else:
        tokenizer, reader = load_tokenizer(settings.model, settings.chat_format), None
    paired = settings.paired_with
    partner = (named(paired), read(paired)[0]) if paired else None
    names = [named(data) for data in settings.data]
    if len(set(names)) < len(names):
        raise DataError(f"two of the data sets are called the same ({', '.join(names)}); rename one of the files")
    system, evaluation = settings.system, settings.evaluation_system
    reports = []
    for data, name in zip(settings.data, names, strict=True):
        examples, refused = read(data)
        report = lint_dataset(
            examples,
            tokenizer,
            data=name,
            model=settings.model,
            system=system,
            evaluation_system=system if evaluation is None else evaluation,
            max_tokens=settings.max_tokens,
            questions=asked,
            groups=row_groups(data),
            partner=partner,
            refused=refused,
            reader=reader,
            n_read=settings.surprise_rows,
            n_ids=settings.n_ids,
        )
        if settings.out:
            folder = settings.out / name if len(names) > 1 else settings.out
            numbers, page = folder / "lint.json", folder / "lint.html"
            report.save(numbers)
            frame = frame_of(page, command_of("scripts/lint_data.py", settings), numbers)
            write_text(page, lint_page(report, frame))
        reports.append(report)
    left_out = {"lengths", "shown"}  # they are in lint.json
    ok = not any(report.of("error") for report in reports)
    return {"ok": ok, "sets": [report.model_dump(mode="json", exclude=left_out) for report in reports]}


def reader_of(chat_model: ChatModel, bars: Bars) -> Reader:
    """The model as one who says how rows surprise it."""

    def read(chats: Sequence[EncodedChat]) -> Float[np.ndarray, "n_rows"]:
        with bars("surprise", len(chats)) as advance:
            return -mean_logprobs(chat_model, chats, progress=advance)

    return read


def named(data: str) -> str:
    """A shipped name, or a file's without its endings."""
    name = Path(data).name.removesuffix(".gz")
    return data if data in SHIPPED else next((name.removesuffix(e) for e in ENDINGS if name.endswith(e)), name)


def read(data: str) -> tuple[list[TrainingExample], list[LintFinding]]:
    """The readable rows of a shipped set or a file, and what is wrong with its other lines."""
    path = file_of(data)
    return (load_dataset(data), []) if path is None else read_leniently(path)


def say(result: dict[str, Any]) -> str:
    width = min(120, shutil.get_terminal_size((120, 40)).columns)
    return "\n\n".join("\n".join(_lines(LintReport.model_validate(one), width)) for one in result["sets"])


def _lines(report: LintReport, width: int) -> list[str]:
    limit = "no limit" if report.max_tokens is None else f"limit {report.max_tokens} tokens"
    shown = [f"{report.data}: {report.n_rows:,} rows, read by the tokenizer of {report.model}, {limit}"]
    for name, value in report.facts.items():
        shown += _wrapped(f"{name}: {fact_text(value)}", width, "  ")
    for finding in report.findings:
        share = f"{finding.count:,} row{'s' * (finding.count != 1)} ({finding.share:.1%})"
        shown += ["", f"{finding.severity.upper():8}{finding.check}, {share}"]
        for text in (f"{finding.found} {row_ids(finding)}", f"{finding.meaning} {finding.advice}"):
            shown += _wrapped(text, width, " " * 8)
    counts = [f"{len(report.of(severity))} {severity}s" for severity in ("error", "warning", "info")]
    shown += ["", f"{report.data}: {', '.join(counts)}"]
    return shown + [f"not looked for: {text}" for text in report.skipped]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)
