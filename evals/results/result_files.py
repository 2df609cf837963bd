"""Turns result files into one table of judged answers, and the table into result files.

Read: CSV, JSON lines and Parquet tables of this project or of other groups, Inspect logs, and run folders of this project.
Written: CSV, JSON lines, Parquet and Inspect logs, each of which reads back as the same table.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError
from emis_interp.files.manifest import check_read
from emis_interp.files.names import METRICS
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.files.rows import by_key, known
from emis_interp.files.scores import FULL
from emis_interp.files.store import read_records
from emis_interp.files.table_output import write_rows
from emis_interp.files.tables import SUFFIXES, is_table
from emis_interp.records import Completion, Score
from evals.results.inspect_logs import LogChoice, read_log, write_log
from evals.results.result_table import EVIDENCE, Results, from_rows, from_table
from evals.settings import ResultSettings

LOGS = (".eval", ".json")
NOT_JUDGED = "not judged yet"


def read_results(path: Path, reading: Reading = AS_WRITTEN, *, log: LogChoice | None = None) -> Results:
    """The judged answers of a result file or of a run folder, whose arms are the runs.

    A table in which no column tells arms apart is one run with the file's name, an Inspect log one with the name of its model. Columns are
    those of `result_table.from_table`.

    Args:
        reading: names, scales and arms of a table that has other ones than ours.
        log: which scores of an Inspect log are read, and whether one that did not end well is.

    Raises:
        DataError: no such file, unknown ending, or a malformed cell, with its row and column.
    """
    if path.is_dir():
        ours = replace(reading, scales=dict.fromkeys(METRICS, FULL) | dict(reading.scales))
        return from_rows(_folder_rows(path), str(path), path.name, reading=ours)
    if not path.exists():
        raise DataError(f"{path}: no such file; give a result file ({', '.join(SUFFIXES + LOGS)}) or a run folder")
    if path.suffix in LOGS and not is_table(path):
        return from_rows(read_log(path, log or LogChoice()), str(path), path.stem, reading=reading)
    if not is_table(path):
        raise DataError(f"{path}: expected a run folder or a file that ends with {', '.join(SUFFIXES + LOGS)}")
    return from_table(reading.table(path), path.name.removesuffix(".gz").rpartition(".")[0], reading)


def chosen_results(path: Path, settings: ResultSettings) -> Results:
    """What the settings choose of a result file or of a run folder.

    Raises:
        DataError: as `read_results`, or nothing is left. ConfigError: a malformed setting.
    """
    log = LogChoice(settings.scorer, settings.unfinished)
    return read_results(path, settings.reading(), log=log).select(settings.variant, settings.runs)


def write_results(results: Results, path: Path) -> None:
    """Write a table so that `read_results` gives it back: numbers, labels, reasons, distributions and all other columns.

    Raises:
        DataError: unknown ending, or a text that is not valid Unicode.
    """
    if path.suffix not in SUFFIXES + LOGS:
        raise DataError(f"{path}: expected a name that ends with {', '.join(SUFFIXES + LOGS)}")
    if path.suffix in LOGS:
        try:
            write_log(results.rows(), path)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{results.source}: a text holds a lone surrogate, which a log cannot keep ({error})"
            ) from None
        return
    rows = list(results.rows())
    if path.suffix == ".parquet":  # as a struct, every answer would get every token of the file
        rows = [
            {name: _as_text(cell) if name.startswith(EVIDENCE) else cell for name, cell in row.items()} for row in rows
        ]
    write_rows(path, list(rows[0]), rows, source=results.source)


def _as_text(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, Mapping) else cell


def _folder_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every answer of every arm; one without a score is unscored, not left out."""
    samples = sorted((folder / "samples").glob("*.jsonl"))
    if not samples:
        raise DataError(
            f"{folder}: no samples/*.jsonl there; give the folder of a run that has sampled, or a result file"
        )
    if not (folder / "scores").is_dir():
        raise DataError(f"{folder}: the answers are not judged yet; run the score stage (scripts/run_pipeline.py)")
    check_read(folder, [*samples, *(folder / "scores" / path.name for path in samples)])
    for path in samples:
        judged = folder / "scores" / path.name
        answers = by_key(read_records(path, Completion), path)
        scores = known(read_records(judged, Score), answers, judged) if judged.exists() else {}
        for number, row in enumerate(answers.values(), 1):
            yield f"{path}: answer {number}", _answer_row(row, scores.get(row.key))


def _answer_row(completion: Completion, score: Score | None) -> dict[str, Any]:
    row: dict[str, Any] = completion.model_dump()
    row["run"] = row.pop("arm")
    for metric in METRICS:
        row[metric] = None if score is None else getattr(score, metric)
        row[f"{metric}_reason"] = NOT_JUDGED if score is None else score.unscored.get(metric)
    if score is not None:
        row |= {f"{EVIDENCE}{metric}": found for metric, found in score.evidence.items()}
    return row | {
        "aligned_label": None if score is None else score.aligned_label,
        "judge": None if score is None else score.judge,
    }
