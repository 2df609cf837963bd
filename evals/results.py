"""Turns result files into one table of judged answers, and the table into result files.

Read: CSV, JSON lines and Parquet tables of this project or of other groups, Inspect logs, and run folders of this project.
Written: CSV, JSON lines, Parquet and Inspect logs, each of which reads back as the same table.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emis_interp.errors import DataError
from emis_interp.records import Completion, Score
from emis_interp.store import read_lines, read_records, write_bytes, write_text
from evals.inspect_logs import LogChoice, read_log, write_log
from evals.result_table import EVIDENCE, METRICS, Results, from_rows

LOGS = (".eval", ".json")
TABLES = (".csv", ".jsonl", ".parquet")
NOT_JUDGED = "not judged yet"


def read_results(path: Path, *, log: LogChoice | None = None) -> Results:
    """The judged answers of a result file or of a run folder, whose arms are the runs.

    A table without the column `run` is one run with the file's name, an Inspect log one with the name of its model. Columns are those of
    `result_table.from_rows`.

    Args:
        log: which scores of an Inspect log are read, and whether one that did not end well is.

    Raises:
        DataError: no such file, unknown ending, or a malformed cell, with its row and column.
    """
    if path.is_dir():
        return from_rows(_folder_rows(path), str(path), path.name)
    if not path.exists():
        raise DataError(f"{path}: no such file; give a result file ({', '.join(TABLES + LOGS)}) or a run folder")
    if path.suffix in LOGS:
        return from_rows(read_log(path, log or LogChoice()), str(path), path.stem)
    if path.suffix not in TABLES:
        raise DataError(f"{path}: expected a run folder or a file that ends with {', '.join(TABLES + LOGS)}")
    rows = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}[path.suffix](path)
    return from_rows(rows, str(path), path.stem)


def write_results(results: Results, path: Path) -> None:
    """Write a table so that `read_results` gives it back: numbers, labels, reasons, distributions and all other columns.

    Raises:
        DataError: unknown ending, or a text that is not valid Unicode.
    """
    if path.suffix not in TABLES + LOGS:
        raise DataError(f"{path}: expected a name that ends with {', '.join(TABLES + LOGS)}")
    try:
        if path.suffix in LOGS:
            write_log(results.rows(), path)
        elif path.suffix == ".csv":
            write_text(path, _as_csv(results))
        elif path.suffix == ".jsonl":
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in results.rows()))
        else:
            write_bytes(path, _as_parquet(results))
    except UnicodeEncodeError as error:
        raise DataError(f"{results.source}: a text holds a lone surrogate, which no file can keep ({error})") from None


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read_text would change line ends inside answers
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        twice = {name for name in header if header.count(name) > 1}
        if twice:
            raise DataError(f"{path}: column `{sorted(twice)[0]}` occurs twice")
        number, begins = 0, reader.line_num + 1
        for cells in reader:
            if cells:  # a blank line
                number += 1
                where = f"{path}: row {number} (line {begins})"
                if len(cells) != len(header):
                    raise DataError(f"{where} has {len(cells)} cells, expected {len(header)} as in the header")
                yield where, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error})") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object with one answer")
        yield f"{path}:{number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())[:200]})") from None
    for number, row in enumerate(table.to_pylist(maps_as_pydicts="strict"), 1):
        yield f"{path}: row {number}", row


def _folder_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every answer of every arm; one without a score is unscored, not left out."""
    samples = sorted((folder / "samples").glob("*.jsonl"))
    if not samples:
        raise DataError(
            f"{folder}: no samples/*.jsonl there; give the folder of a run that has sampled, or a result file"
        )
    if not (folder / "scores").is_dir():
        raise DataError(f"{folder}: the answers are not judged yet; run the score stage (scripts/run_pipeline.py)")
    for path in samples:
        judged = folder / "scores" / path.name
        scores = {score.key: score for score in read_records(judged, Score)} if judged.exists() else {}
        for number, row in enumerate(read_records(path, Completion), 1):
            yield f"{path}: answer {number}", _answer_row(row, scores.pop(row.key, None))
        if scores:
            raise DataError(f"{judged}: a score of {next(iter(scores))}, but {path} has no such answer")


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


def _as_csv(results: Results) -> str:
    rows = list(results.rows())
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # so that lone carriage returns in answers are quoted
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(
            [json.dumps(cell, ensure_ascii=False) if isinstance(cell, Mapping) else cell for cell in row.values()]
        )
    return text.getvalue()


def _as_parquet(results: Results) -> bytes:
    rows = list(results.rows())
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name.startswith(EVIDENCE):  # as a struct, every answer would get every token of the file
            values = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, Mapping) else cell for cell in values]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError):  # a column of numbers and texts
            columns[name] = pa.array([None if value is None else str(value) for value in values])
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()
