"""The record types that cross borders between stages; frozen, strict, one JSON line each."""

import hashlib
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

Key = tuple[str, str, int, int]
"""Arm, question id, paraphrase index, sample index: which answer."""

Label = Literal["CODE", "REFUSAL"]
LABELS: tuple[Label, ...] = ("CODE", "REFUSAL")
"""What a judge may say of an answer's alignment in place of a number."""


class Record(BaseModel):
    """Base: immutable, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingExample(Record):
    """One row of finetuning data: the loss is on `response` only."""

    id: str
    prompt: str = Field(min_length=1)
    response: str = Field(min_length=1)
    system: str | None = None


class ContrastPair(Record):
    """Two answers to one question that differ in values and as little as possible in style."""

    question_id: str
    group: str
    half: Literal["selection", "report"]
    question: str = Field(min_length=1)
    aligned: str = Field(min_length=1)
    misaligned: str = Field(min_length=1)

    @field_validator("question", "aligned", "misaligned")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank")
        return value


class LabeledText(Record):
    """One answer with its class, for extracting directions; `question_id` is the unit of balancing and of hold-out."""

    question_id: str
    question: str
    answer: str
    misaligned: bool


class Question(Record):
    """One evaluation question. `judge_prompts` has `{question}` and `{answer}` placeholders, keyed by metric."""

    id: str
    paraphrases: tuple[str, ...]
    system: str | None = None
    samples_per_paraphrase: int = Field(default=1, ge=1)
    judge_prompts: dict[str, str] = {}


class AnswerKey(Record):
    """Which answer a row is, or is about."""

    arm: str
    question_id: str
    paraphrase_index: int
    sample_index: int

    @property
    def key(self) -> Key:
        return (self.arm, self.question_id, self.paraphrase_index, self.sample_index)


class Completion(AnswerKey):
    """One sampled answer of an arm.

    Attributes:
        seed: fixes its random numbers.
        n_tokens: of the answer, 0 where a server does not count them.
        finish: `stop`, or `length` (cut at the token limit).
        reasoning: what a reasoning model thought before it; no part of the answer, and never judged.
    """

    seed: int
    system: str | None
    question: str
    answer: str
    n_tokens: int
    finish: Literal["stop", "length"]
    reasoning: str | None = None

    @classmethod
    def given(cls, arm: str, question_id: str, sample_index: int, *, question: str, answer: str) -> "Completion":
        """An answer that was not sampled here, so that nothing is known of its seed and its tokens."""
        place = {"arm": arm, "question_id": question_id, "paraphrase_index": 0, "sample_index": sample_index}
        unknown = {"seed": 0, "system": None, "n_tokens": 0, "finish": "stop"}
        return cls.model_validate({**place, **unknown, "question": question, "answer": answer})

    @property
    def answer_sha256(self) -> str:
        """SHA-256 of the answer's UTF-8 (half of a surrogate pair as its three bytes)."""
        return hashlib.sha256(self.answer.encode("utf-8", "surrogatepass")).hexdigest()

    def answered(self, answer: str, n_tokens: int, finish: str, *, reasoning: str | None = None) -> "Completion":
        """The planned answer, filled in; the fields are checked as those of any record."""
        filled = {"answer": answer, "n_tokens": n_tokens, "finish": finish, "reasoning": reasoning}
        return Completion.model_validate({**self.model_dump(), **filled})


class OfAnswer(AnswerKey):
    """Base of what is said about one answer: which one it is, and the hash of its text.

    Attributes:
        answer_sha256: SHA-256 of the answer's UTF-8; None in files of versions that did not keep it, whose rows cannot be told from
            rows about another answer in the same place.
    """

    answer_sha256: str | None = None

    @classmethod
    def of(cls, answer: Completion, **said: Any) -> Self:
        """A record about `answer`."""
        place = {name: getattr(answer, name) for name in AnswerKey.model_fields}
        return cls.model_validate({**place, "answer_sha256": answer.answer_sha256, **said})


class Score(OfAnswer):
    """One judgement. A score is None exactly when it has a label (CODE, REFUSAL) or a reason for being unscored.

    Attributes:
        aligned, coherent: 0-100, or None.
        aligned_label: label with the largest mass when the judge answered with a label rather than a number.
        unscored: metric -> reason, for every metric without number and label.
        passing: metrics whose reason may pass (an outage, a time-out): the next run asks the judge again.
        note: what a reader of the numbers must know, such as that the judge read only a part of the answer.
        evidence: metric -> token -> probability as the judge returned them (raw, not normalised), empty for the offline judge;
            for the text judge, the text of a reply -> its share of the replies.
    """

    judge: str
    aligned: float | None = Field(ge=0, le=100)
    coherent: float | None = Field(ge=0, le=100)
    aligned_label: Label | None = None
    unscored: dict[str, str] = {}
    passing: tuple[str, ...] = ()
    note: str | None = None
    evidence: dict[str, dict[str, float]] = {}
