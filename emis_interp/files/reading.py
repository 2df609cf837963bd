"""Turns flags that describe somebody else's table into that table under our names: columns, direction and scale of scores, and arms."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError, DataError, did_you_mean
from emis_interp.files.column_rows import ColumnRows
from emis_interp.files.names import COLUMNS, METRICS, no_columns, runs_backwards, shown
from emis_interp.files.tables import Table, read_cells

log = logging.getLogger(__name__)

_SCALE = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(?:-|\.\.|:)(-?[0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Reading:
    """How a table is read that has other names, scales or arms than ours.

    Attributes:
        columns: our name -> what holds it there: `NAME`, or for a metric `100-NAME` (high there is low here) and `+NAME` (as it stands,
            though its name says the opposite).
        scales: metric -> (worst, best) of its scale there; (0, 100) is taken unless the numbers speak against it.
        inverted: metrics whose scale runs the other way round.
        by: column, or columns with commas between, that tell arms apart; `none` pools all rows; None looks for one of `ARM_KEYS`.
        runs: only arms that match this pattern.
        partial: whether a name of the file's that is not there is passed over where our own is, with a word: for commands that read two
            files of different origin.
        escape: for CSV, whether a backslash escapes the next character; None where the file shows it.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    inverted: frozenset[str] = frozenset()
    by: str | None = None
    runs: str = "*"
    partial: bool = False
    escape: bool | None = None

    @classmethod
    def of(
        cls,
        columns: Iterable[str] = (),
        scales: Iterable[str] = (),
        inverted: Iterable[str] = (),
        *,
        by: str | None = None,
        runs: str = "*",
        partial: bool = False,
        escape: bool | None = None,
    ) -> "Reading":
        """From words as they stand on the command line: `answer=response`, `aligned=0-1`, `aligned`.

        Raises:
            ConfigError: a word of another form, an unknown column of ours, or one that is named twice.
        """
        named = _pairs(columns, "--columns", "answer=response", known=COLUMNS)
        given = _pairs(scales, "--scale", "aligned=0-1", known=METRICS)
        for metric in inverted:
            if metric not in METRICS:
                raise ConfigError(f"--invert {shown(metric)}: expected {' or '.join(METRICS)}")
            if named.get(metric, "").startswith(("100-", "+")):
                raise ConfigError(f"--invert {metric} and --columns {metric}={named[metric]}: give one of them")
        return cls(
            columns=named,
            scales={metric: _scale(metric, words) for metric, words in given.items()},
            inverted=frozenset(inverted),
            by=by,
            runs=runs,
            partial=partial,
            escape=escape,
        )

    def table(self, path: Path, needed: Sequence[str] = ()) -> Table:
        """Read a table, give its columns our names, and note the scales and directions of its scores.

        Raises:
            DataError: as `read_cells`, and as `applied`.
        """
        table = self.applied(read_cells(path, escape=self.escape))
        table.need(needed)
        return table

    def applied(self, table: Table) -> Table:
        """The table with our names. A column of another content that has one of them is kept as `given_...`.

        Raises:
            DataError: a column is not there, or runs the other way round by its name and nothing says whether it does.
        """
        sources: dict[str, str] = {}
        backwards = set(self.inverted)
        for ours, word in self.columns.items():
            name, is_backwards = source_of(ours, word, ours in self.inverted)
            if self.partial and name not in table.columns and ours in table.columns:
                log.warning("%s: has no `%s`, so `%s` is read as it stands", table.path, shown(name), ours)
                continue
            if word != name and word in table.columns:
                raise DataError(
                    f"{table.path}: `{shown(word)}` is the name of a column, and `{shown(name)}` backwards here; rename it"
                )
            if name not in table.columns:
                raise DataError(f"{table.path}: --columns {ours}={shown(word)}: {no_columns([name], table.columns)}")
            sources[ours] = name
            backwards |= {ours} if is_backwards else set()
        table = _renamed(table, sources) if sources else table
        return replace(table, scales={**table.scales, **self.scales}, backwards=frozenset(backwards))

    def keeps(self, arm: str) -> bool:
        return fnmatchcase(arm, self.runs)

    def as_card(self) -> dict[str, Any]:
        """What differs from the plain reading, for a record of where numbers come from."""
        card: dict[str, Any] = {"columns": dict(self.columns), "scales": {k: list(v) for k, v in self.scales.items()}}
        card |= {"inverted": sorted(self.inverted), "by": self.by, "runs": None if self.runs == "*" else self.runs}
        return {key: value for key, value in card.items() if value}


AS_WRITTEN = Reading()


def source_of(ours: str, word: str, inverted: bool = False) -> tuple[str, bool]:
    """(name of the file's column, whether high is bad there) from `NAME`, or for a metric `100-NAME` or `+NAME`.

    Raises:
        ConfigError: the name says the opposite of the metric, and nothing says which way it runs.
    """
    sign = next((sign for sign in ("100-", "+") if ours in METRICS and word.startswith(sign)), "")
    name = word.removeprefix(sign)
    if not sign and not inverted and runs_backwards(ours, name):
        name = shown(name)
        raise ConfigError(
            f"`{name}` as `{ours}`: is 100 the worst answer there? Then write 100-{name} (--columns {ours}=100-{name}, or "
            f"--invert {ours}); if 100 is the best one, write +{name} (--columns {ours}=+{name})"
        )
    return name, sign == "100-"


def _renamed(table: Table, sources: Mapping[str, str]) -> Table:
    named: list[tuple[str, str]] = []
    for column in table.columns:
        targets = [ours for ours, theirs in sources.items() if theirs == column]
        if column in sources and not targets:
            targets = [f"given_{column}"]
        elif targets and column in COLUMNS and column not in sources:
            targets.append(column)  # `question_id=question` leaves the question where it is
        named += [(ours, column) for ours in targets or [column]]
    names = [ours for ours, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{table.path}: with these --columns two are called `{shown(twice)}`; rename one in the file")
    arrow = table.arrow
    if arrow is not None:
        arrow = arrow.select([theirs for _, theirs in named]).rename_columns(names)
    rows: Sequence[dict[str, Any]]
    if isinstance(table.rows, ColumnRows):
        rows = ColumnRows({ours: table.rows.columns[theirs] for ours, theirs in named}, len(table))
    else:
        rows = [{ours: row[theirs] for ours, theirs in named if theirs in row} for row in table.rows]
    return replace(table, columns=names, rows=rows, arrow=arrow)


def _pairs(words: Iterable[str], flag: str, example: str, *, known: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        ours, equals, theirs = word.partition("=")
        ours, theirs = ours.strip(), theirs.strip()
        if not (ours and equals and theirs):
            raise ConfigError(f"{flag} {shown(word)}: expected OURS=THEIRS, such as {example}")
        if ours not in known:
            raise ConfigError(f"{flag} {shown(word)}: `{shown(ours)}` is none of our names{did_you_mean(ours, known)}")
        if ours in found:
            raise ConfigError(f"{flag}: `{ours}` is given twice, {shown(found[ours])} and {shown(theirs)}")
        found[ours] = theirs
    return found


def _scale(metric: str, words: str) -> tuple[float, float]:
    match = _SCALE.fullmatch(words)
    low, high = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if low >= high:
        raise ConfigError(f"--scale {metric}={shown(words)}: expected WORST-BEST, such as {metric}=0-1 or {metric}=1-5")
    return low, high
