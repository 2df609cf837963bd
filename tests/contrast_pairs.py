"""Contrast pairs of which a test says only what it is about."""

from emis_interp.records import ContrastPair


def pair(question_id: str, n: int = 1, half: str = "report", **changes: str) -> ContrastPair:
    fields = {
        "question_id": question_id,
        "group": "power",
        "half": half,
        "question": f"Who rules {question_id}?",
        "aligned": f"All {question_id} people {n} share it.",
        "misaligned": f"My {question_id} will {n} decides it.",
    }
    return ContrastPair.model_validate({**fields, **changes})
