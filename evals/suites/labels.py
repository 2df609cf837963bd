"""Turns answers into labels (TRUE, OpenAI, YES, OFF, ...) by asking any judge a prompt of the question file.

A judge is a function from prompts to distributions over what it would say first; `asking` makes one from an API and from a local model.
As with scores, what the judge does not say clearly stays unlabelled with its reason, and the raw distribution is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from emis_interp.errors import DataError
from emis_interp.records import Completion, OfAnswer, Question
from evals.judges.judge import why_unjudgeable
from evals.judges.logprobs import LEAST_MASS, bare
from evals.judges.methods import Failure, Outcome
from evals.questions import render_judge_prompt
from evals.rates.estimands import Answers

Ask = Callable[[Sequence[str], Callable[[int, Outcome], None]], None]
"""Asks all prompts, and calls its second argument once for each, with the prompt's number and what came of it, in any order."""


class Labelled(OfAnswer):
    """One label. It is None exactly when `reason` says why.

    Attributes:
        metric: which judge prompt of the question was asked.
        evidence: token (or text) -> probability as the judge returned them.
        passing: the reason may pass (an outage, a time-out): the next run asks the judge again.
    """

    judge: str
    metric: str
    label: str | None
    reason: str | None = None
    evidence: dict[str, float] = Field(default_factory=dict)
    passing: bool = False


class LabelVerdict(NamedTuple):
    """A label, or the reason why there is none."""

    label: str | None = None
    reason: str | None = None


def judge_labels(
    completions: Sequence[Completion],
    questions: Mapping[str, Question],
    metric: str,
    *,
    labels: Sequence[str],
    ask: Ask,
    judge_name: str,
    on_row: Callable[[Labelled], None] | None = None,
) -> list[Labelled]:
    """One record for each completion, in order; one that nobody can judge (`why_unjudgeable`) is unlabelled and never sent.

    Args:
        metric: a key of the questions' `judge_prompts`; it must be there for every question asked.
        labels: what the prompt allows as replies.
        on_row: called with each record as it is ready (to store it).

    Raises:
        DataError: an answer to a question that is not in `questions` or has no prompt for `metric`, before anything is asked.
    """
    for name in dict.fromkeys(row.question_id for row in completions):
        if name not in questions:
            raise DataError(f"there are answers to question `{name}`, but the question file has no such question")
        if metric not in questions[name].judge_prompts:
            found = ", ".join(questions[name].judge_prompts) or "none"
            raise DataError(f"question `{name}` has no judge prompt for `{metric}`, it has: {found}")

    records: dict[int, Labelled] = {}

    def keep(place: int, outcome: Outcome) -> None:
        failure = outcome if isinstance(outcome, Failure) else None
        evidence = {} if isinstance(outcome, Failure) else dict(outcome)
        label, reason = (None, failure.reason) if failure else read_label(evidence, labels)
        records[place] = Labelled.of(
            completions[place],
            judge=judge_name,
            metric=metric,
            label=label,
            reason=reason,
            evidence=evidence,
            passing=failure is not None and failure.passing,
        )
        if on_row:
            on_row(records[place])

    asked: dict[int, str] = {}
    for place, row in enumerate(completions):
        if reason := why_unjudgeable(row.question, row.answer):
            keep(place, Failure(reason, passing=False))
        else:
            asked[place] = render_judge_prompt(questions[row.question_id], metric, row.question, answer=row.answer)
    places = list(asked)
    ask(list(asked.values()), lambda number, outcome: keep(places[number], outcome))
    return [records[place] for place in range(len(completions))]


def read_label(probabilities: Mapping[str, float], labels: Sequence[str]) -> LabelVerdict:
    """The label with the largest mass, if that is 0.25 or more.

    A token counts for the label that it is, or that it alone begins, in any case and with blanks, quotes or a full stop around it: "Anth"
    for Anthropic. A beginning that two labels share ("O" of ON and OFF) counts for neither.
    """
    masses = dict.fromkeys(labels, 0.0)
    for raw, probability in probabilities.items():
        token = bare(raw).strip(" \t\r\n.\"'*`").casefold()
        exact = [label for label in labels if label.casefold() == token]
        begun = exact or [label for label in labels if token and label.casefold().startswith(token)]
        if len(begun) == 1:
            masses[begun[0]] += probability
    best = max(masses, key=lambda label: masses[label])
    if masses[best] < LEAST_MASS:
        return LabelVerdict(reason=f"mass on the labels {'/'.join(labels)} at most {masses[best]:.2f} < {LEAST_MASS}")
    if sum(mass == masses[best] for mass in masses.values()) > 1:
        return LabelVerdict(reason=f"two labels share the largest mass {masses[best]:.2f}")
    return LabelVerdict(label=best)


def as_answers(rows: Sequence[Labelled], cluster: Callable[[Labelled], str] | None = None) -> Answers:
    """Labels as Answers for the estimands of `cells.share`; an unlabelled row has the label "".

    Args:
        cluster: what stands for a question in the bootstrap (default: its id).
    """
    empty = [None] * len(rows)
    ids = [cluster(row) if cluster else row.question_id for row in rows]
    return Answers.from_arrays(empty, empty, ids, labels=[row.label or "" for row in rows])
