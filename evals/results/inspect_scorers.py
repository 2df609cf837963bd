"""Turns the scores in an Inspect log into the ones that say how aligned and coherent the answers are, or into the choices there are.

A log may hold scores of several scorers. Which one is read is never guessed: where one fits it is that one, where more do the user says.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emis_interp.errors import DataError, did_you_mean
from evals.names import BOTH_SCORERS

METRICS = ("aligned", "coherent")
LETTERS = {"C": "correct", "I": "incorrect", "P": "partly correct", "N": "no answer"}
"""Inspect's own values of a score in words (`inspect_ai.scorer`)."""
OURS = tuple(f"{metric}_{part}" for metric in METRICS for part in ("label", "reason"))


def choose_scorer(samples: Sequence[Any], path: str, wanted: str | None = None) -> str:
    """The name of the scorer to read, `aligned,coherent` where two scorers give one metric each.

    Raises:
        DataError: none fits, several do and none is wanted, or the wanted one does not; with what each of them holds.
    """
    values = _values(samples)
    fitting = [name for name in values if _fits(values[name], samples, name)]
    if set(METRICS) <= set(values):
        fitting.append(BOTH_SCORERS)
    found = ", ".join(f"`{name}` ({describe(given)})" for name, given in values.items()) or "none"
    if wanted is not None:
        if wanted not in fitting:
            unknown = did_you_mean(wanted, [*values, BOTH_SCORERS]) if wanted not in (*values, BOTH_SCORERS) else ""
            raise DataError(
                f"{path}: --scorer {wanted}: expected a scorer that gives `aligned` and `coherent`{unknown}; scorers there: {found}"
            )
        return wanted
    if not fitting:
        raise DataError(
            f"{path}: no sample has scores `aligned` and `coherent`; scores there: {found}; expected one scorer that gives both as "
            "numbers 0-100, or two scorers of these names"
        )
    if len(fitting) > 1:
        raise DataError(
            f"{path}: {len(fitting)} scorers give `aligned` and `coherent`: {', '.join(fitting)}; choose one with --scorer NAME"
        )
    return fitting[0]


def check_values(samples: Sequence[Any], scorer: str, path: str) -> None:
    """Refuse scores that are no numbers by their nature.

    Raises:
        DataError: letters, truth values or lists, with how many of each.
    """
    for metric in METRICS:
        given = [cell for sample in samples if (cell := metric_cell(sample, scorer, metric)) is not None]
        letters = Counter(cell for cell in given if isinstance(cell, str) and cell in LETTERS)
        if set(letters) - {"N"}:
            counts = ", ".join(f"{cell} ({LETTERS[cell]}) {n}" for cell, n in sorted(letters.items()))
            raise DataError(f"{path}: `{metric}` of scorer {scorer} is a letter of Inspect's: {counts}; {_EXPECTED}")
        strange = Counter(_kind(cell) for cell in given if isinstance(cell, bool | list | Mapping))
        if strange:
            counts = ", ".join(f"{kind} {n}" for kind, n in sorted(strange.items()))
            raise DataError(f"{path}: `{metric}` of scorer {scorer} is no number: {counts}; {_EXPECTED}")


def metric_cell(sample: Any, scorer: str, metric: str) -> Any:
    """What a sample's score says of one metric; None where it has no number."""
    score = score_of(sample, scorer, metric)
    if score is None:
        return None
    value = score.value
    if scorer != BOTH_SCORERS:
        value = value.get(metric) if isinstance(value, Mapping) else None
    return None if is_nan(value) else value


def score_of(sample: Any, scorer: str, metric: str) -> Any:
    """The Inspect score that holds a metric, or None."""
    return (sample.scores or {}).get(metric if scorer == BOTH_SCORERS else scorer)


def describe(values: Sequence[Any]) -> str:
    """The shapes of a scorer's values, in a few words."""
    kinds = Counter(_kind(value) for value in values)
    return "; ".join(kind for kind, _ in kinds.most_common(3))


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


_EXPECTED = (
    "expected numbers 0-100: score the log with a judge that gives them, or choose another scorer with --scorer NAME"
)


def _values(samples: Iterable[Any]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for sample in samples:
        for name, score in (sample.scores or {}).items():
            values.setdefault(name, []).append(score.value)
    return values


def _fits(values: Sequence[Any], samples: Sequence[Any], name: str) -> bool:
    """Whether a scorer gives both metrics in one score; one of ours that never had a number is known by its metadata."""
    if any(isinstance(value, Mapping) and set(METRICS) <= set(value) for value in values):
        return True
    scores = [score for sample in samples if (score := (sample.scores or {}).get(name)) is not None]
    return all(is_nan(score.value) for score in scores) and any(
        not set(OURS).isdisjoint(score.metadata or {}) for score in scores
    )


def _kind(value: Any) -> str:
    if is_nan(value) or value is None:
        return "unscored"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return f"keys {', '.join(map(str, list(value)[:6]))}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"letter {value}" if value in LETTERS else "text"
