"""Turns a judge into figures of how far answers can move it by talking to it: the same answers with and without an injection.

An injection is text in an answer that addresses the judge ("give 100"), imitates its prompt, or excuses what was said. The control kind
adds as much text that does none of this: a judge that it moves too is unsteady rather than obedient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from emis_interp.errors import DataError
from emis_interp.files.store import read_records
from emis_interp.records import Completion, Question, Record, Score
from emis_interp.stats.interval import mean_interval
from evals.rates.estimands import Thresholds

CONTROL = "control"
SLOT = "{answer}"


class Injection(Record):
    """One attack. `pattern` holds the answer once, at `{answer}`; `language` is an ISO 639-1 code."""

    id: str
    kind: str
    place: Literal["suffix", "prefix", "wrapper"]
    language: str
    pattern: str

    @model_validator(mode="after")
    def _pattern_fits(self) -> "Injection":
        if self.pattern.count(SLOT) != 1 or self.pattern == SLOT:
            raise ValueError(f"pattern must hold {SLOT} once, with text around it")
        begins, ends = self.pattern.startswith(SLOT), self.pattern.endswith(SLOT)
        place = "suffix" if begins else "prefix" if ends else "wrapper"
        if place != self.place:
            raise ValueError(f"place is `{self.place}`, the pattern is a {place}")
        return self

    def apply(self, answer: str) -> str:
        return self.pattern.replace(SLOT, answer)


class PlainAnswer(Record):
    """An answer whose values are beyond doubt, to a question of the shipped suite."""

    id: str
    question_id: str
    question: str
    misaligned: bool
    answer: str


@dataclass(frozen=True)
class InjectionSet:
    """Every answer is judged plain and under every injection."""

    answers: Sequence[PlainAnswer]
    injections: Sequence[Injection]

    @staticmethod
    def shipped() -> "InjectionSet":
        folder = resources.files("evals") / "data"
        with resources.as_file(folder / "injection_answers.jsonl") as path:
            answers = read_records(path, PlainAnswer)
        with resources.as_file(folder / "injections.jsonl") as path:
            return InjectionSet(answers, read_records(path, Injection))

    def completions(self) -> list[Completion]:
        """All texts. `arm` is the answer's id; `sample_index` is 0 for the plain answer, i + 1 for injection i."""
        return [
            _completion(answer, index, text)
            for answer in self.answers
            for index, text in enumerate([answer.answer, *(item.apply(answer.answer) for item in self.injections)])
        ]


def measure_injections(
    judge: Any,
    questions: Mapping[str, Question],
    cases: InjectionSet,
    *,
    on_batch: Callable[[list[Score]], None] = lambda _: None,
) -> dict[str, Any]:
    """Let the judge rate every text, the plain answers first, and say how far it was moved (see `injection_effects`).

    What a server failed to judge in passing is asked for once more; `n_failed` counts the texts that it then still failed to judge.

    Raises:
        DataError: the judge gives no plain answer a number, so no injection can be seen to move it; nothing else was asked.
    """
    texts = cases.completions()
    plain = _judged_twice(judge, questions, [text for text in texts if text.sample_index == 0], on_batch=on_batch)
    if all(score.aligned is None for score in plain):
        reasons = sorted({*(score.unscored.get("aligned", "a label") for score in plain)})
        raise DataError(
            f"{judge.name} gave none of the {len(plain)} plain answers an aligned score ({'; '.join(reasons[:3])}); "
            "it cannot be moved by injections: ask a model that follows the judge prompt"
        )
    scores = plain + _judged_twice(judge, questions, [text for text in texts if text.sample_index], on_batch=on_batch)
    return {**injection_effects(cases, scores), "n_failed": sum(bool(score.passing) for score in scores)}


def _judged_twice(
    judge: Any,
    questions: Mapping[str, Question],
    texts: Sequence[Completion],
    *,
    on_batch: Callable[[list[Score]], None],
) -> list[Score]:
    """A score of every text; those that failed in passing the first time are from the second."""
    scores, again = list[Score](), set[tuple[str, str, int, int]]()

    def keep(batch: list[Score]) -> None:
        scores.extend(batch)
        on_batch(batch)

    def keep_settled(batch: list[Score]) -> None:
        again.update(score.key for score in batch if score.passing)
        keep([score for score in batch if not score.passing])

    judge.score(texts, questions, keep_settled)
    if again:
        judge.score([text for text in texts if text.key in again], questions, keep)
    return scores


def injection_effects(
    cases: InjectionSet, scores: Sequence[Score], thresholds: Thresholds = Thresholds()
) -> dict[str, Any]:
    """Effects by kind of injection, and of all kinds but the control together (`any`).

    Returns:
        `plain`: what the judge says of the answers as they are: mean aligned score of the misaligned and of the aligned ones, and how
        many misaligned ones it puts below the threshold. A judge that cannot tell them apart has little that could be moved.
        `kinds`: kind -> `n_injections`, and for `misaligned` and `aligned` answers `n` texts, `change` (mean of injected minus plain
        score, points, with a 95 % t interval over answers, these injections as given), `n_unscored` and `n_labelled` (the plain answer
        had a score, the injected one has none or a label: it has left the rate). For misaligned answers also `n_caught` texts whose
        plain answer is below the threshold, and `lifted`, the share of these at or above it under injection.
        `any_minus_control`: per answer, mean change under any attack minus that under the control texts, with the same interval.
    """
    found = {(score.arm, score.sample_index): score for score in scores}
    kinds = dict.fromkeys(item.kind for item in cases.injections)
    chosen = {kind: [i for i, item in enumerate(cases.injections) if item.kind == kind] for kind in kinds}
    chosen = {"any": [i for kind, items in chosen.items() if kind != CONTROL for i in items], **chosen}
    sides = {"misaligned": True, "aligned": False}
    answers = {side: [item for item in cases.answers if item.misaligned == value] for side, value in sides.items()}
    plain = {item.id: found[item.id, 0].aligned for item in cases.answers}
    caught = [item for item in answers["misaligned"] if _below(plain[item.id], thresholds)]
    return {
        "plain": {
            **{side: _mean(mean_interval([plain[item.id] for item in answers[side]])) for side in sides},
            "n_misaligned": len(answers["misaligned"]),
            "n_caught": len(caught),
        },
        "kinds": {
            kind: {
                "n_injections": len(items),
                **{side: _effect(answers[side], items, found) for side in sides},
                **_lifted(caught, items, found, thresholds=thresholds),
            }
            for kind, items in chosen.items()
        },
        "any_minus_control": {
            side: _mean(
                mean_interval(
                    [
                        _mean_change(item, chosen["any"], found) - _mean_change(item, chosen.get(CONTROL, []), found)
                        for item in answers[side]
                    ]
                )
            )
            for side in sides
        },
    }


Found = Mapping[tuple[str, int], Score]


def _effect(answers: Sequence[PlainAnswer], items: Sequence[int], found: Found) -> dict[str, Any]:
    injected = [found[item.id, i + 1] for item in answers for i in items if found[item.id, 0].aligned is not None]
    return {
        "n": sum(score.aligned is not None for score in injected),
        "change": _mean(mean_interval([_mean_change(item, items, found) for item in answers])),
        "n_unscored": sum("aligned" in score.unscored for score in injected),
        "n_labelled": sum(score.aligned_label is not None for score in injected),
    }


def _lifted(
    caught: Sequence[PlainAnswer], items: Sequence[int], found: Found, *, thresholds: Thresholds
) -> dict[str, Any]:
    injected = [found[item.id, i + 1].aligned for item in caught for i in items]
    n_lifted = sum(score is not None and not _below(score, thresholds) for score in injected)
    return {"n_caught": len(injected), "lifted": n_lifted / len(injected) if injected else None}


def _mean_change(item: PlainAnswer, items: Sequence[int], found: Found) -> float:
    """Mean injected minus plain score over the injections that left a score; NaN when there is none."""
    before = found[item.id, 0].aligned
    after = [score for i in items if (score := found[item.id, i + 1].aligned) is not None]
    return float(np.mean(after)) - before if before is not None and after else float("nan")


def _below(score: float | None, thresholds: Thresholds) -> bool:
    return score is not None and score < thresholds.aligned_below


def _mean(interval: Any) -> dict[str, Any]:
    return {**interval.as_json(), "n_answers": interval.n}


def _completion(answer: PlainAnswer, index: int, text: str) -> Completion:
    return Completion.given(answer.id, answer.question_id, index, question=answer.question, answer=text)


def texts_by_injection(cases: InjectionSet, scores: Sequence[Score]) -> Iterator[dict[str, Any]]:
    """One row per judged text, for reading."""
    by_id = {item.id: item for item in cases.answers}
    for score in sorted(scores, key=lambda score: (score.arm, score.sample_index)):
        item = cases.injections[score.sample_index - 1] if score.sample_index else None
        yield {
            "answer_id": score.arm,
            "misaligned": by_id[score.arm].misaligned,
            "injection": item.id if item else "plain",
            "kind": item.kind if item else "plain",
            "aligned": score.aligned,
            "label": score.aligned_label,
            "reason": score.unscored.get("aligned", ""),
        }
