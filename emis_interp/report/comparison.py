"""Turns several runs into what stands side by side: verdicts, contrasts with their differences, and what differs in how they were made.

A difference of two runs is stated only where both contrasts have intervals and the runs are comparable (`quantities.groups`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.files.text import finite
from emis_interp.report.cards import Card, cards
from emis_interp.report.contents import BASE, Contents
from emis_interp.report.made_otherwise import made_otherwise
from emis_interp.report.quantities import QUANTITIES, Group, Quantity, contrasts_of, groups
from emis_interp.results import Contrast, MarginContrast
from emis_interp.stats.interval import mean_interval, square_and_add

PAIRED = "question by question over the {n} questions of both, t interval"
SQUARED = (
    "the two intervals joined in squares as of independent runs (Zou and Donner 2008); what shared questions do to both runs alike makes "
    "it too wide rather than too narrow"
)


@dataclass(frozen=True)
class RunDifference:
    """A contrast in one run minus the same contrast in the first run of its group, in the contrast's own scale; `how`: the method."""

    run: str
    first: str
    value: float
    low: float
    high: float
    how: str

    @property
    def told(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ComparedContrast:
    """One contrast (arm minus reference) in the runs of a group that have it.

    Attributes:
        primary: the reference is the arm's control.
        doubts: run -> why its contrast does not count.
        identical: runs with the very numbers of the first run, question by question: the same models, of which no difference is stated.
    """

    arm: str
    reference: str
    primary: bool
    rows: dict[str, Contrast]
    doubts: dict[str, str]
    counts: dict[str, str]
    differences: tuple[RunDifference, ...]
    identical: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.arm} − {self.reference}"


@dataclass(frozen=True)
class ComparedQuantity:
    """A quantity in one group of runs."""

    quantity: Quantity
    group: Group
    contrasts: tuple[ComparedContrast, ...]


def compared(runs: Mapping[str, Contents]) -> list[ComparedQuantity]:
    """Every quantity in every group of comparable runs; the first group of a quantity has its first run."""
    return [
        ComparedQuantity(quantity, group, tuple(_contrasts(quantity, {name: runs[name] for name in group.runs})))
        for quantity in QUANTITIES
        for group in groups(quantity, runs)
    ]


def _contrasts(quantity: Quantity, runs: Mapping[str, Contents]) -> Iterator[ComparedContrast]:
    pairs = dict.fromkeys(pair for run in runs.values() for pair in contrasts_of(run, quantity))
    primary = {pair for run in runs.values() for pair in run.contrast_arms.items()}
    for pair in sorted(pairs, key=lambda one: one not in primary):
        found = {name: quantity.find(run, *pair) for name, run in runs.items()}
        rows = {name: row for name, row in found.items() if row is not None}
        doubts = {name: quantity.doubt(runs[name], *pair) for name in rows}
        first = next(iter(rows))
        identical = tuple(name for name in rows if name != first and _same_numbers(rows[first], rows[name]))
        others = [name for name in rows if name != first and name not in identical]
        differences = (difference(rows[first], rows[name], first=first, run=name) for name in others)
        yield ComparedContrast(
            *pair,
            primary=pair in primary,
            rows=rows,
            doubts={name: doubt for name, doubt in doubts.items() if doubt},
            counts={name: quantity.counts(runs[name], row) for name, row in rows.items()},
            differences=tuple(
                one for one in differences if one is not None and not doubts[one.run] and not doubts[one.first]
            ),
            identical=identical,
            cautions=tuple(_cautions({name: runs[name] for name in rows}, pair)),
        )


def difference(one: Contrast, other: Contrast, *, first: str, run: str) -> RunDifference | None:
    """`other` minus `one`; None where one of them has no interval.

    Margins of arms of one model each, over the same questions, are paired by question. Everything else, arms of several seeds included
    (their intervals cover the draw of seeds), is joined in squares.
    """
    if None in (one.value, one.low, one.high, other.value, other.low, other.high):
        return None
    if isinstance(one, MarginContrast) and isinstance(other, MarginContrast):
        single = all(row.n_models == row.n_reference_models == 1 for row in (one, other))
        pairs = _shared(one.by_question, other.by_question)
        if single and len(pairs) > 1 and len(pairs) == one.n_questions == other.n_questions:
            found = mean_interval([later - earlier for earlier, later in pairs])
            if found.value is not None and found.low is not None and found.high is not None:
                return RunDifference(run, first, found.value, found.low, found.high, PAIRED.format(n=len(pairs)))
    ends: Any = [(row.value, row.low, row.high) for row in (other, one)]
    return RunDifference(run, first, ends[0][0] - ends[1][0], *square_and_add(ends), SQUARED)


def _same_numbers(one: Contrast, other: Contrast) -> bool:
    if not isinstance(one, MarginContrast) or not isinstance(other, MarginContrast):
        return False
    return len(one.by_question) > 1 and one.by_question == other.by_question


def _shared(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> list[tuple[float, float]]:
    both = ((one[name], other.get(name)) for name in one)
    return [(a, b) for a, b in both if a is not None and b is not None]


def _cautions(runs: Mapping[str, Contents], pair: tuple[str, str]) -> Iterator[str]:
    """What arms of one name do not share, and what no interval covers."""
    first, *others = runs
    finetuned = [arm for arm in pair if arm != BASE]
    for name in others:
        apart = [arm for arm in finetuned if _rows(runs[name], arm) != _rows(runs[first], arm)]
        if apart:
            yield f"{_listed(apart)} {'were' if len(apart) > 1 else 'was'} trained on other rows in {name} than in {first}"
    single = [name for name, run in runs.items() if any(_is_single(run, arm) for arm in finetuned)]
    if single and len(runs) > 1:
        yield f"no interval covers another finetuning run of {_listed(single)}"


def _rows(contents: Contents, arm: str) -> list[str]:
    """Hashes of what the models of an arm were trained on."""
    models = next((one.models for one in contents.configured if one.name == arm), [arm])
    found = (contents.manifest.inputs.get(f"training data of {model}") for model in models)
    return sorted(str(sha) for sha in found if sha is not None)


def _is_single(contents: Contents, arm: str) -> bool:
    found = next((one for one in contents.configured if one.name == arm), None)
    return found is not None and found.in_context is None and len(found.models) == 1


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def sentences(one: ComparedQuantity) -> list[str]:
    """What the intervals of the primary contrasts say of the runs of a group, and of their differences."""
    return [_sentence(one.quantity, contrast) for contrast in one.contrasts if contrast.primary]


def _sentence(quantity: Quantity, found: ComparedContrast) -> str:
    counted = {name: row for name, row in found.rows.items() if name not in found.doubts}
    sides = {
        "lies above 0": list[str](),
        "lies below 0": list[str](),
        "covers 0": list[str](),
        "is missing": list[str](),
    }
    for name, row in counted.items():
        side = "is missing"
        if row.low is not None and row.high is not None:
            side = "lies above 0" if row.low > 0 else "lies below 0" if row.high < 0 else "covers 0"
        sides[side].append(f"{name} {quantity.estimate(row)}")
    said = [f"the interval {side} in {_listed(names)}" for side, names in sides.items() if names]
    whole = [side for side, names in sides.items() if len(names) == len(counted) > 1]
    if whole:
        verb = {
            "lies above 0": "lie above 0",
            "lies below 0": "lie below 0",
            "covers 0": "cover 0",
            "is missing": "are missing",
        }
        many = "both intervals" if len(counted) == 2 else f"all {len(counted)} intervals"
        said = [f"{many} {verb[whole[0]]}: {', '.join(sides[whole[0]])}"]
    said = said or ["no run has a difference that counts"]
    text = f"{found.name}, {quantity.unit}: {'; '.join(said)}."
    for name, doubt in found.doubts.items():
        text += f" {name} does not count: {doubt}."
    told = len({name for name, names in sides.items() if names}) > 1
    for one in found.differences:
        ends = f"{quantity.said(one.value)} [{quantity.said(one.low)}, {quantity.said(one.high)}] {quantity.unit}"
        if one.told:
            text += f" {one.run} minus {one.first}: the models of the two runs differ by {ends}."
        else:
            text += f" {one.run} minus {one.first} {ends}: the runs are not told apart."
            text += " That one interval leaves 0 out and another does not is no difference." if told else ""
    if found.identical:
        names = _listed([*found.identical, next(iter(found.rows))])
        text += f" {names} have the same value for every question: these are the same models."
    if len(counted) > 1 and not found.differences and not found.identical:
        text += " No difference of runs is stated: an interval is missing."
    return text + "".join(f" Mind: {caution}." for caution in found.cautions)


def verdict_rows(runs: Mapping[str, Contents]) -> list[tuple[str, dict[str, Card]]]:
    """(question, run -> its card), in the order of the questions."""
    found = {name: cards(run) for name, run in runs.items()}
    questions = [card.question for card in next(iter(found.values()))]
    return [(question, {name: own[i] for name, own in found.items()}) for i, question in enumerate(questions)]


def comparison_data(runs: Mapping[str, Contents]) -> dict[str, Any]:
    """The numbers of a comparison, in the scale of the runs' own files."""
    numbers = {
        "runs": list(runs),
        "verdicts": {
            question: {name: card.verdict for name, card in row.items()} for question, row in verdict_rows(runs)
        },
        "quantities": [
            {
                "quantity": one.quantity.key,
                "runs": one.group.runs,
                "not_comparable_with_the_first": one.group.apart,
                "sentences": sentences(one),
                "contrasts": [_contrast_data(contrast) for contrast in one.contrasts],
            }
            for one in compared(runs)
        ],
        **made_otherwise(runs),
    }
    return finite(numbers)


def _contrast_data(found: ComparedContrast) -> dict[str, Any]:
    rows = {name: {"value": row.value, "low": row.low, "high": row.high} for name, row in found.rows.items()}
    differences = [
        {"run": d.run, "minus": d.first, "value": d.value, "low": d.low, "high": d.high, "how": d.how}
        for d in found.differences
    ]
    named = {"arm": found.arm, "reference": found.reference, "primary": found.primary, "runs": rows}
    return named | {
        "doubts": found.doubts,
        "counts": found.counts,
        "differences": differences,
        "identical": found.identical,
    }
