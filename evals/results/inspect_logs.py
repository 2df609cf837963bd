"""Turns Inspect logs into rows of judged answers, and rows into an Inspect log. Needs the optional package inspect-ai.

A log of ours has one score `judge` per sample, a mapping with the keys `aligned` and `coherent`; what has no number is NaN there,
which is Inspect's sign for "not scored". Labels, reasons and distributions are in the score's metadata.
"""

import datetime
import logging
import math
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError, DataError, EmisError
from emis_interp.files.source_text import read_text
from emis_interp.files.store import write_bytes
from emis_interp.files.strict_json import parse_json
from evals.results.inspect_scorers import (
    METRICS,
    OURS,
    check_values,
    choose_scorer,
    is_nan,
    metric_cell,
    score_of,
)
from evals.settings.names import BOTH_SCORERS

SCORER = "judge"
MAX_EXPANDED = 256 << 20
"""Bytes that a log may unpack to when that is more than a hundred times its size."""
_COLUMNS = "emis_interp_columns"
log_of = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogChoice:
    """What of a log is read.

    Attributes:
        scorer: whose scores; None where only one fits. `aligned,coherent` are two scorers of these names.
        unfinished: also a log whose evaluation failed, was cancelled or still runs, as far as it got.
    """

    scorer: str | None = None
    unfinished: bool = False


def read_log(path: Path, choice: LogChoice = LogChoice()) -> Iterator[tuple[str, dict[str, Any]]]:
    """One row per sample and epoch, with its place in the log: the epochs of a sample are answers to one question, and Inspect's means
    over them are not read.

    In a log of another task `aligned` and `coherent` are scores of these names, or keys of one score; the question is the last user
    message, `question_id` that of the sample's metadata, else the sample's id, and the run is the model. Metadata, other scores, epoch
    and stop reason are further columns. A sample without a score is a row without numbers; one that was invalidated is left out, and
    how many is said.

    Raises:
        ConfigError: inspect-ai is not installed.
        DataError: the file is no Inspect log, has no samples or one twice, did not end well (unless `choice` takes it), or no scorer or
            several give both metrics.
    """
    import_inspect()
    log = _read(path)
    if not log.samples:
        raise DataError(f"{path}: an Inspect log without samples (status {log.status})")
    _check_end(log, path, choice)
    samples = [sample for sample in log.samples if sample.invalidation is None]
    if n_out := len(log.samples) - len(samples):
        log_of.warning("%s: %s of %s samples were invalidated and are left out", path, n_out, len(log.samples))
    if not samples:
        raise DataError(f"{path}: all {n_out} samples were invalidated; nothing is left to read")
    twice, n = Counter((sample.id, sample.epoch) for sample in samples).most_common(1)[0]
    if n > 1:
        raise DataError(f"{path}: sample {twice[0]}, epoch {twice[1]} is there {n} times; expected once")
    columns = (log.eval.metadata or {}).get(_COLUMNS)
    if isinstance(columns, list) and all(SCORER in (sample.scores or {}) for sample in samples) and not choice.scorer:
        for sample in samples:
            row = {"question": sample.input, "answer": sample.output.completion, **sample.metadata}
            row |= _judgement((sample.scores or {})[SCORER])
            yield f"{path}: sample {sample.id}, epoch {sample.epoch}", {str(name): row.get(name) for name in columns}
        return
    scorer = choose_scorer(samples, str(path), choice.scorer)
    check_values(samples, scorer, str(path))
    for sample in samples:
        yield f"{path}: sample {sample.id}, epoch {sample.epoch}", _foreign_row(sample, log.eval.model, scorer)


def write_log(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows as `Results.rows` gives them; the ending chooses Inspect's format (.eval or .json).

    Raises:
        ConfigError: inspect-ai is not installed.
    """
    import_inspect()
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log  # pyright: ignore[reportMissingImports]
    from inspect_ai.model import ModelOutput  # pyright: ignore[reportMissingImports]

    samples, columns, runs = [], [], []
    for number, row in enumerate(rows, 1):
        columns = list(row)
        runs.append(row["run"])
        samples.append(
            EvalSample(
                id=number,
                epoch=1,
                input=row.get("question") or "",
                target="",
                output=ModelOutput.from_content(row["run"], row.get("answer") or ""),
                scores={SCORER: as_score(row)},
                metadata={name: cell for name, cell in row.items() if not _elsewhere(name)},
            )
        )
    names = sorted(set(runs))
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            task="emis_interp_results",
            dataset=EvalDataset(name="imported", samples=len(samples)),
            model=names[0] if len(names) == 1 else f"{len(names)} runs",
            config=EvalConfig(),
            metadata={_COLUMNS: columns},
        ),
        samples=samples,
    )
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        write_eval_log(log, str(draft))
        write_bytes(path, draft.read_bytes())


def as_score(row: Mapping[str, Any], explanation: str | None = None) -> Any:
    """An Inspect `Score` of one judged answer, unscored as a whole when neither metric has a number.

    Args:
        row: `aligned`, `coherent` (None for no number), and any of `<metric>_label`, `<metric>_reason`, `judge_<metric>`.
    """
    from inspect_ai.scorer import Score  # pyright: ignore[reportMissingImports]

    metadata = {name: cell for name, cell in row.items() if _is_ours(name)}
    values = {metric: math.nan if row[metric] is None else float(row[metric]) for metric in METRICS}
    if not all(math.isnan(value) for value in values.values()):
        return Score(value=values, explanation=explanation, metadata=metadata)
    why = next((str(row[name]) for name in OURS if row.get(name)), "no number")
    return Score.unscored(reason=why, explanation=explanation, metadata=metadata)


def import_inspect() -> None:
    """Import inspect-ai, or say how to install it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import inspect_ai  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name != "inspect_ai":
            raise
        raise ConfigError(
            "inspect-ai is not installed; run `python -m pip install -c constraints.txt -e '.[inspect]'`"
        ) from None


def _elsewhere(name: str) -> bool:
    """Columns that an Inspect sample has a place of its own for."""
    return name in ("question", "answer", *METRICS) or _is_ours(name)


def _is_ours(name: str) -> bool:
    """Keys of a score's metadata that `as_score` writes."""
    return name in OURS or name.startswith("judge_")


def _judgement(score: Any) -> dict[str, Any]:
    """Numbers, labels, reasons and distributions of a score that `as_score` made."""
    row: dict[str, Any] = dict.fromkeys(METRICS)
    if isinstance(score.value, Mapping):
        row |= {metric: score.value[metric] for metric in METRICS}
    return row | (score.metadata or {})


def _read(path: Path) -> Any:
    """The log, or an error of ours whatever is wrong with the file: the reader of another package raises whatever it meets."""
    from inspect_ai.log import read_eval_log  # pyright: ignore[reportMissingImports]

    try:
        _check_size(path)
        if path.suffix == ".json":  # Inspect's reader keeps the last of two equal keys
            parse_json(read_text(path), f"{path}: not a readable Inspect log", loose=True)
        return read_eval_log(str(path), resolve_attachments="core")
    except EmisError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a readable Inspect log ({words})") from None


def _check_size(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            expanded = sum(member.file_size for member in archive.infolist())
        packed = path.stat().st_size
        if expanded > MAX_EXPANDED and expanded > 100 * packed:
            raise DataError(
                f"{path}: {packed:,} bytes that unpack to {expanded:,}; a log does not shrink that much, so it is not read"
            )


def _check_end(log: Any, path: Path, choice: LogChoice) -> None:
    """Refuse, or say, that a log holds only a part of its evaluation."""
    planned = (
        log.results.total_samples if log.results else (log.eval.dataset.samples or 0) * (log.eval.config.epochs or 1)
    )
    reached = log.results.logged_samples if log.results else None
    if log.status == "success" and (reached is None or reached >= planned):
        return
    why = f": {' '.join(log.error.message.split())[:120]}" if log.error else ""
    of = f" of {planned}" if planned else ""
    found = f"{path}: the evaluation ended with status `{log.status}`{why}; {len(log.samples)}{of} samples are there"
    if not choice.unfinished:
        raise DataError(
            f"{found}, and rates over them may not be those of the whole; --unfinished reads them all the same"
        )
    log_of.warning("%s", found)


def _foreign_row(sample: Any, model: str, scorer: str) -> dict[str, Any]:
    row: dict[str, Any] = {"run": model, "question_id": str(sample.id), "epoch": sample.epoch, **sample.metadata}
    messages = sample.input if isinstance(sample.input, list) else []
    users = [message.text for message in messages if message.role == "user"]
    systems = [message.text for message in messages if message.role == "system"]
    row["question"] = sample.input if isinstance(sample.input, str) else "\n\n".join(users[-1:])
    row["answer"] = sample.output.completion
    row["stop_reason"] = (
        None if sample.output.empty else sample.output.stop_reason
    )  # a sample that failed has no output
    if systems:
        row.setdefault("system", "\n\n".join(systems))
    chosen = METRICS if scorer == BOTH_SCORERS else (scorer,)
    for name, score in (sample.scores or {}).items():
        if name not in chosen:
            row |= _other_columns(name, score.value)
        elif isinstance(score.value, Mapping):
            row |= {f"score_{key}": cell for key, cell in score.value.items() if key not in METRICS}
        if (
            name in chosen and scorer != BOTH_SCORERS
        ):  # what a scorer notes of its own work is no column of the sample's
            notes = score.metadata or {}
            row |= {key if _is_ours(key) else f"score_{key}": cell for key, cell in notes.items()}
    for metric in METRICS:
        cell = metric_cell(sample, scorer, metric)
        row[metric] = None if cell == "N" else cell
        if row[metric] is None and not row.get(f"{metric}_label"):
            row[f"{metric}_reason"] = row.get(f"{metric}_reason") or _why_not(sample, scorer, metric, cell=cell)
    return row


def _other_columns(name: str, value: Any) -> dict[str, Any]:
    """Columns of a score that is not the one asked for."""
    if isinstance(value, Mapping):
        return {f"score_{name}_{key}": None if is_nan(cell) else cell for key, cell in value.items()}
    return {f"score_{name}": None if is_nan(value) else value}


def _why_not(sample: Any, scorer: str, metric: str, *, cell: Any) -> str | None:
    """Why a sample has no number."""
    if sample.error is not None:
        return f"error: {sample.error.message}"
    score = score_of(sample, scorer, metric)
    if score is None:
        return f"no score by {scorer}"
    return "no answer (Inspect's N)" if cell == "N" else score.reason
