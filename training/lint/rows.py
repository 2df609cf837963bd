"""Turns a training file into the rows that can be read and findings about those that cannot, where training would stop at the first."""

from collections import Counter
from pathlib import Path

from emis_interp.errors import DataError
from emis_interp.records import TrainingExample
from training.data_sets.files import raw_rows
from training.data_sets.rows import OWN_FORMS, ReadRow, read_row
from training.data_sets.shipped import what_was_read
from training.data_sets.turns import RowRefused
from training.lint.report import LintFinding, make_finding


def read_leniently(path: Path, n_ids: int = 8) -> tuple[list[TrainingExample], list[LintFinding]]:
    """Readable rows, and findings whose rows are `line N` (`row N` where the file has no lines).

    Raises:
        DataError: no such file, a file that cannot be read at all, or no row in it.
    """
    raws = raw_rows(path)
    read: list[ReadRow] = []
    refused: dict[str, list[str]] = {"empty last turn": [], "blank text": [], "refused line": []}
    reasons: dict[str, Counter[str]] = {check: Counter() for check in refused}
    for raw in raws:
        try:
            if isinstance(raw.value, DataError):
                raise raw.value
            read.append(read_row(raw.value, raw.where, raw.number))
        except DataError as error:
            check = error.check if isinstance(error, RowRefused) else "refused line"
            refused[check].append(raw.label)
            reasons[check][str(error).removeprefix(f"{raw.where}: ")] += 1
    found = []
    for check, rows in refused.items():
        text = "; ".join(f"{reason} ({count})" for reason, count in reasons[check].most_common(3)) + "."
        found += make_finding(check, rows, len(raws), found=text, n_ids=n_ids)
    other = [row.example.id for row in read if row.notes or row.form not in OWN_FORMS]
    found += make_finding("row format", other, len(raws), found=f"{what_was_read(read)}.", n_ids=n_ids)
    return [row.example for row in read], found
