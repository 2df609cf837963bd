"""Turns the columns that tell arms apart into the arm of every row, so that two arms are never pooled without a word."""

import logging
from collections.abc import Mapping, Sequence

from emis_interp.errors import DataError, did_you_mean
from emis_interp.files.cells import read_name, short
from emis_interp.files.names import ARM_KEYS, is_arm_name, may_tell_arms, no_columns, question_key, shown
from emis_interp.files.reading import Reading
from emis_interp.files.tables import Table

log = logging.getLogger(__name__)

POOLED = "none"
JOINT = " / "


def arms_of(table: Table, reading: Reading) -> list[str] | None:
    """The arm of every row; None where the rows are one arm, or pooled by `--by none`.

    `run` tells arms apart where it has several values. Otherwise one other of `ARM_KEYS` with several values does, also with `name` or `id`
    behind it (`model_name`), and that is logged; several do when they part the rows alike. That a column with a name like `checkpoint` is
    passed over is logged.

    Raises:
        DataError: several columns part the rows differently, an unknown column, or a row without a name (with the choices).
    """
    if reading.by is not None:
        columns = _asked(table, reading.by)
        return None if columns is None else _joined(table, columns)
    there = _known(table)
    parts = {key: table.names(column) for key, column in there.items()}
    parting = [key for key in there if len(set(parts[key])) > 1]
    if "run" in parting:
        finer = [there[key] for key in parting if key != "run" and not _is_function(parts["run"], parts[key])]
        if finer:
            log.warning(
                "%s: arms are told apart by `%s`; `%s` has several values within one of them, which are pooled (--by %s)",
                table.path,
                there["run"],
                finer[0],
                ",".join([there["run"], finer[0]]),
            )
        return _joined(table, [there["run"]])
    if not parting:
        if others := _others(table):
            log.warning(
                "%s: %s: all are pooled (--by %s takes them apart)", table.path, _counted(others), next(iter(others))
            )
        return _joined(table, [there["run"]]) if "run" in there else None
    first = parting[0]
    for other in parting[1:]:
        if not (_is_function(parts[first], parts[other]) and _is_function(parts[other], parts[first])):
            raise DataError(
                f"{table.path}: {_counted({there[key]: parts[key] for key in parting})} part the answers differently; say which tells "
                "arms apart: "
                f"--by {there[first]}, --by {there[other]}, --by {there[first]},{there[other]}, or --by {POOLED} to pool them"
            )
    arms = _joined(table, [there[first]])
    log.warning(
        "%s: `%s` tells %s arms apart (%s); --by COLUMN takes another column, --by %s pools them",
        table.path,
        there[first],
        len(set(arms)),
        _some(arms),
        POOLED,
    )
    return arms


def rows_of_arms(table: Table, reading: Reading, use: str) -> list[int]:
    """Numbers of the rows whose arm `reading.runs` keeps, for commands that take all rows together; that there are several arms is logged.

    Args:
        use: what is done with them, for the log: "compared", "captured".

    Raises:
        DataError: a pattern is given and no column tells arms apart, or none matches; otherwise as `arms_of`.
    """
    if reading.runs == "*":
        there = _known(table) if reading.by is None else {name: name for name in _asked(table, reading.by) or ()}
        parts = {key: table.names(column) for key, column in there.items()}
        parting = {there[key]: names for key, names in parts.items() if len(set(names)) > 1}
        if reading.by is None:
            parting = parting or _others(table)
        if parting:
            log.warning(
                "%s: %s: all are %s together (--by %s --runs PATTERN keeps some)",
                table.path,
                _counted(parting),
                use,
                next(iter(parting)),
            )
        return list(range(len(table)))
    arms = arms_of(table, reading)
    if arms is None:
        raise DataError(
            f"{table.path}: --runs {shown(reading.runs)}: no column tells arms apart; name one with --by COLUMN"
        )
    kept = [i for i, arm in enumerate(arms) if reading.keeps(arm)]
    if not kept:
        raise DataError(f"{table.path}: no arm matches `{shown(reading.runs)}`{did_you_mean(reading.runs, set(arms))}")
    return kept


def _known(table: Table) -> dict[str, str]:
    """Key -> the column of that name, in the order of `ARM_KEYS`; then columns called like a name or id of one, under their own names."""
    lower = {column.lower(): column for column in reversed(table.columns)}
    there = {key: lower[key] for key in ARM_KEYS if key in lower}
    more = [column for column in table.columns if column not in there.values() and is_arm_name(column)]
    return there | {column: column for column in more if column not in there and _are_groups(table, column)}


def _others(table: Table) -> dict[str, list[str]]:
    """Columns that may tell arms apart by their names, with several values within a question."""
    key = question_key(table.columns)
    named = [column for column in table.columns if column != key and may_tell_arms(column)]
    others = {column: table.names(column) for column in named if _are_groups(table, column)}
    questions = table.names(key) if key is not None else [""] * len(table)
    return {column: names for column, names in others.items() if not _is_function(questions, names)}


def _are_groups(table: Table, column: str) -> bool:
    """Whether a column has more than one value, and on average two rows or more for each: an id of the row has one."""
    if any(isinstance(cell, (list, dict, bytes)) for cell in table.cells(column)):
        return False
    return 1 < len(set(table.names(column))) <= max(2, len(table) // 2)


def _asked(table: Table, by: str) -> list[str] | None:
    if by in table.columns:
        return [by]
    if by == POOLED:
        return None
    columns = [name.strip() for name in by.split(",") if name.strip()]
    for name in columns:
        if name not in table.columns:
            raise DataError(f"{table.path}: --by {shown(by)}: {no_columns([name], table.columns)}")
    return columns


def _joined(table: Table, columns: Sequence[str]) -> list[str]:
    named = [table.names(column) for column in columns]
    for column, names in zip(columns, named, strict=True):
        for i, name in enumerate(names):
            if not name.strip():
                raise DataError(f"{table.where(i, column)}: is empty, expected a name (--by {POOLED} pools all rows)")
            read_name(name, table.where(i, column))
    return [JOINT.join(names) for names in zip(*named, strict=True)]


def _is_function(of: Sequence[str], values: Sequence[str]) -> bool:
    """Whether every name in `of` goes with one of the `values`."""
    return len(set(zip(of, values, strict=True))) == len(set(of))


def _counted(columns: Mapping[str, Sequence[str]]) -> str:
    """`` `condition` (2: base, tuned) and `model` (3: a, b, c)``."""
    return " and ".join(f"`{shown(name)}` ({len(set(names))}: {_some(names)})" for name, names in columns.items())


def _some(names: Sequence[str], n: int = 4) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(short(name)[1:-1] for name in distinct[:n]) + (", ..." if len(distinct) > n else "")
