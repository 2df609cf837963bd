"""Turns result files into one table of judged answers, and the table into result files.

Read: CSV, JSON lines and Parquet tables of this project or of other groups, Inspect logs, and run folders of this project.
Written: CSV, JSON lines, Parquet and Inspect logs, each of which reads back as the same table.
"""

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError
from emis_interp.files.manifest import check_read
from emis_interp.files.names import METRICS
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.files.rows import placed, refuse_repeated
from emis_interp.files.scores import FULL
from emis_interp.files.store import iter_records, located_records, records_at
from emis_interp.files.table_output import write_rows
from emis_interp.files.tables import SUFFIXES, is_table
from emis_interp.records import Completion, Key, Score
from evals.results.inspect_logs import LogChoice, read_log, write_log
from evals.results.result_table import EVIDENCE, Results, from_rows, from_table
from evals.settings.results import ResultSettings

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
        yield from _rows_of_model(path, folder / "scores" / path.name)


def _rows_of_model(path: Path, judged: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Answers in the order of their file, each with its score, wherever that stands in its own file; neither is in memory as a whole."""
    answers = AnswerFile(path)
    offsets = array("q", [-1]) * len(answers)
    if judged.exists():
        at: list[int] = []

        def scores() -> Iterator[Score]:
            for offset, score in located_records(judged, Score):
                at[:] = [offset]
                yield score

        for place, _ in placed(scores(), answers, judged, old_too=True):
            offsets[place] = at[0]
    found = records_at(judged, Score, (offset for offset in offsets if offset >= 0))
    for number, (row, offset) in enumerate(zip(iter_records(path, Completion), offsets, strict=True), 1):
        yield f"{path}: answer {number}", _answer_row(row, next(found) if offset >= 0 else None)


class AnswerFile:
    """The answers of a file in their order there (`emis_interp.files.rows.PlacedAnswers`).

    Raises:
        DataError: an answer stands there more than once.
    """

    def __init__(self, path: Path) -> None:
        self._places, self._digests = dict[Key, int](), bytearray()
        names, repeated = dict[str, str](), dict[Key, list[int]]()
        for number, row in enumerate(iter_records(path, Completion), 1):
            arm, question = (names.setdefault(name, name) for name in (row.arm, row.question_id))
            key = (arm, question, row.paraphrase_index, row.sample_index)
            if key in self._places:
                repeated.setdefault(key, [self._places[key] + 1]).append(number)
            self._places.setdefault(key, number - 1)
            self._digests += bytes.fromhex(row.answer_sha256)
        refuse_repeated(path, repeated)

    def __len__(self) -> int:
        return len(self._places)

    def place_of(self, key: Key) -> int | None:
        return self._places.get(key)

    def sha256_at(self, place: int) -> str:
        return self._digests[32 * place : 32 * place + 32].hex()


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
