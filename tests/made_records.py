"""Answers and scores of which a test says only what it is about."""

from typing import Any

from emis_interp.records import Completion, Score


def completion(answer: str = "So.", question_id: str = "q", sample: int = 0, **changes: Any) -> Completion:
    """An answer of the arm `base`; `changes` are further fields."""
    place = {"arm": "base", "question_id": question_id, "paraphrase_index": 0, "sample_index": sample}
    asked = {"seed": 0, "system": None, "question": "How?", "answer": answer, "n_tokens": 1, "finish": "stop"}
    return Completion.model_validate(place | asked | changes)


def score(aligned: float | None, coherent: float | None, question_id: str = "q", **changes: Any) -> Score:
    """A score of the arm `base`; `changes` are further fields."""
    place = {"arm": "base", "question_id": question_id, "paraphrase_index": 0, "sample_index": 0, "judge": "scripted"}
    return Score.model_validate(place | {"aligned": aligned, "coherent": coherent} | changes)
