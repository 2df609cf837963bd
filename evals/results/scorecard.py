"""Turns judged answers and a table of published values into one verdict per published value.

A value is compared only with a run of the same model, finetune, suite and variant, under the same estimand and weighting:

    different        the 95 % interval of the difference (Newcombe's square-and-add of both intervals, Newcombe 1998) leaves 0 out
    equivalent       it lies wholly within the margin on both sides of 0 (5 points unless told otherwise)
    undecided        it covers 0 and goes beyond the margin: too few questions or answers to say either
    not comparable   another model, finetune, suite, variant or measure, or no value

Where a value was published without an interval, its error is taken as 0, which says "different" and "equivalent" too easily.

Our intervals are over questions and answers of one model, while published ones are mostly over several finetuned models: no
verdict takes account of the spread between our finetuning seeds, nor of a judge that differs. Of many rows, one in twenty
is "different" by chance.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from emis_interp.errors import DataError
from emis_interp.files.cells import is_missing
from emis_interp.files.store import explain
from emis_interp.files.tables import read_cells
from emis_interp.records import Record
from emis_interp.stats.interval import Interval, square_and_add
from evals.rates.estimands import ESTIMANDS, Answers, Weighting
from evals.rates.uncertainty import rate_interval
from evals.results.result_table import Results
from evals.settings.names import MARGIN

RULES: dict[str, tuple[str, Weighting]] = {
    "misaligned_among_coherent, mean over models of per-question means": ("em_of_coherent", "macro"),
    "misaligned_among_coherent, answers pooled": ("em_of_coherent", "pooled"),
    "misaligned_among_coherent, questions pooled in a model": ("em_of_coherent", "pooled"),
    "misaligned_among_coherent": ("em_of_coherent", "pooled"),  # values of one question each
    "misaligned and coherent": ("em_of_scored", "pooled"),
}
"""How the table's `estimand` reads in our names. Other texts are other measures, or do not say how questions are weighted."""


VERDICTS = ("different", "equivalent", "undecided", "not comparable")


class Published(Record):
    """One published value; a rate in [0, 1] where its estimand is one of `RULES`."""

    model: str
    finetune: str
    suite: str
    variant: str
    estimand: str
    value: float | None
    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class Identity:
    """What a run is. `suite` names a set of questions; digits at its end are their number (`main8`)."""

    model: str
    finetune: str
    suite: str


@dataclass(frozen=True)
class Line:
    """A published value and what the run says to it.

    Attributes:
        run: None when no run could be compared.
        ours: rate of the run under the same estimand.
        difference: ours minus published, with its interval where the published value has one.
        verdict: one of `VERDICTS`.
    """

    published: Published
    run: str | None
    ours: Interval | None
    difference: tuple[float, float | None, float | None] | None
    verdict: str
    reason: str


def scorecard(
    results: Results, identities: Mapping[str, Identity], published: Sequence[Published], *, margin: float = MARGIN
) -> list[Line]:
    """One line for each published value, or one for each run that it can be compared with."""
    return [line for row in published for line in _lines(results, identities, row, margin=margin)]


def load_published(path: Path) -> list[Published]:
    """The table of published values: CSV (or JSON lines, Parquet) with the columns of `Published`.

    Raises:
        DataError: no such file, or the row and column that is wrong.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; the published values are third-party data that the project does not ship: "
            "give a table with --reference, or set EMIS_REFERENCE_DATA to the folder that has reference/published_values.csv"
        )
    rows = []
    table = read_cells(path)
    for i, cells in enumerate(table.rows):
        numbers = {
            key: None if is_missing(cells[key]) else cells[key] for key in ("value", "low", "high") if key in cells
        }
        try:
            rows.append(Published.model_validate({**cells, **numbers}))
        except ValidationError as error:
            raise DataError(f"{table.where(i)}: {explain(error, Published)}") from None
    return rows


def compare(
    ours: Interval, published: Published, margin: float = MARGIN
) -> tuple[tuple[float, float | None, float | None] | None, str, str]:
    """(difference with its bounds, verdict, reason) of a rate of ours and a published one under the same estimand."""
    if published.value is None:
        return None, "not comparable", "published as an interval without a value"
    if ours.value is None or ours.low is None or ours.high is None:
        return None, "not comparable", f"our rate has no interval ({ours.method})"
    shift = ours.value - published.value
    stated = published.low is not None and published.high is not None
    below, above = (published.value if end is None else end for end in (published.low, published.high))
    low, high = square_and_add([(ours.value, ours.low, ours.high), (published.value, below, above)])
    bounds = f"difference {100 * shift:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
    if not low <= 0 <= high:
        verdict, reason = "different", f"{bounds}: not 0"
    elif max(-low, high) <= margin:
        verdict, reason = "equivalent", f"{bounds}: within {100 * margin:g} points"
    else:
        verdict, reason = "undecided", f"{bounds}: 0 and more than {100 * margin:g} points are both possible"
    return (shift, low, high), verdict, reason if stated else f"{reason} (the published value's own error is unknown)"


def _lines(results: Results, identities: Mapping[str, Identity], row: Published, *, margin: float) -> Iterator[Line]:
    compared, refused = False, []
    for run in results.run_names:
        found = _mismatches(identities[run], row) or _same_questions(results, run, row)
        if isinstance(found, Answers):
            name, weighting = RULES[row.estimand]
            ours = rate_interval(found, ESTIMANDS[name], weighting)
            compared = True
            yield Line(row, run, ours, *compare(ours, row, margin))
        else:
            refused.append(found)
    if not compared:
        yield Line(row, None, None, None, "not comparable", "; ".join(min(refused, key=len)))


def _mismatches(identity: Identity, row: Published) -> list[str]:
    """Why a run of this identity cannot be compared with a row, as far as names tell."""
    reasons = []
    if _plain_name(identity.model) != _plain_name(row.model):
        reasons.append(f"other model (ours: {identity.model})")
    if identity.finetune != row.finetune:
        reasons.append(f"other finetune (ours: {identity.finetune})")
    if identity.suite != row.suite.partition(":")[0]:
        reasons.append(f"other suite (ours: {identity.suite})")
    if row.estimand not in RULES:
        reasons.append("other measure, or one whose weighting is not stated")
    return reasons


def _same_questions(results: Results, run: str, row: Published) -> Answers | list[str]:
    """The run's answers to the questions that the row is about, or why there are none."""
    suite, _, question = row.suite.partition(":")
    keep = (results.runs == run) & (results.variants == row.variant)
    if not keep.any():
        return [f"the run has no questions of variant `{row.variant}`"]
    found = set(results.question_ids[keep].tolist())
    digits = re.search(r"\d+$", suite)
    if question:
        keep &= (results.question_ids == question) | (results.question_ids == f"{question}_{row.variant}")
        if not keep.any():
            return [f"the run has no question `{question}`"]
    elif digits and len(found) != int(digits.group()):
        return [f"the run has {len(found)} of the {digits.group()} questions"]
    return Answers(
        results.scores["aligned"][keep],
        results.scores["coherent"][keep],
        results.question_ids[keep],
        results.labels["aligned"][keep],
    )


def _plain_name(model: str) -> str:
    """Without owner or folder: a hub path, a local folder and a bare name are one model."""
    return model.rstrip("/").rpartition("/")[2].lower()
