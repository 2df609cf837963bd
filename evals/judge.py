"""What every judge is: completions and their questions in, Scores out in batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from emis_interp.errors import JudgeError
from emis_interp.files.cells import is_unicode
from emis_interp.files.names import METRICS
from emis_interp.records import Completion, Question, Score

OnBatch = Callable[[list[Score]], None]


class Judge(Protocol):
    """Anything that scores completions.

    Attributes:
        name: goes into every Score; two judges that could disagree have two names.
        card: what a reader needs to judge the judge (kind, model, settings, quality), never a key.
    """

    name: str
    card: dict[str, Any]

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        """Hand a Score for every completion to `on_batch`, once each, in any order; what cannot be judged is a Score with its reason.

        `questions` maps `question_id` to the question.

        Raises:
            JudgeError: the judge cannot be used, or had to stop; what was handed over before stands.
        """
        ...


def why_unjudgeable(question: str, answer: str) -> str | None:
    """Why no judge can say anything about an answer, or None: it or its question is empty, or holds half of a surrogate pair."""
    for name, text in (("answer", answer), ("question", question)):
        if not text.strip():
            return f"empty {name}"
        if not is_unicode(text):
            return f"the {name} is not Unicode (a lone surrogate)"
    return None


def check_questions(completions: Sequence[Completion], questions: Mapping[str, Question]) -> None:
    """For judges that send the questions' own judge prompts: every answer has a question, and that a prompt for some metric.

    Raises:
        JudgeError: naming the question.
    """
    for name in dict.fromkeys(row.question_id for row in completions):
        if name not in questions:
            raise JudgeError(f"there are answers to question `{name}`, but the question file has no such question")
        prompts = questions[name].judge_prompts
        if not any(metric in prompts for metric in METRICS):
            found = ", ".join(prompts) or "none"
            raise JudgeError(f"question `{name}` has judge prompts for {found}; this judge scores aligned and coherent")
