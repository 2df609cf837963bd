"""What every judge is: completions and their questions in, Scores out in batches."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from emis_interp.errors import JudgeError
from emis_interp.files.names import METRICS
from emis_interp.files.store import RecordLog, parse_record, record_line, write_parts
from emis_interp.files.text import is_unicode
from emis_interp.records import Completion, Question, Record, Score

_PASSING, _NONE_PASSING = b'"passing"', (b'"passing":[]', b'"passing":false')
OnBatch = Callable[[list[Score]], None]
J = TypeVar("J", bound=Record)


class Judge(Protocol):
    """Anything that scores completions.

    Attributes:
        name: goes into every Score; two judges that could disagree have two names.
        card: what a reader needs to judge the judge (kind, model, settings, quality), never a key.
        together: how many completions, in their order, share a batch whose numbers depend on one another (`Journal.fill`); 1 for a
            judge that sees one answer at a time.
    """

    name: str
    card: dict[str, Any]
    together: int

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        """Hand a Score for every completion to `on_batch`, once each, in any order; what cannot be judged is a Score with its reason.

        `questions` maps `question_id` to the question.

        Raises:
            JudgeError: the judge cannot be used, or had to stop; what was handed over before stands.
        """
        ...


def settled(log: RecordLog, record: type[J]) -> list[J]:
    """The judgements in a log that stand; those with a reason that may pass leave the file, so that the judge is asked again."""
    return list(settled_rows(log, record))


def settled_rows(log: RecordLog, record: type[J]) -> Iterator[J]:
    """`settled`, one at a time; the file is as it shall be before the first."""
    if has_passing(log.path, record):
        write_parts(log.path, (record_line(row) for row in log.rows(record) if not getattr(row, "passing", ())))
    return log.rows(record)


def has_passing(path: Path, record: type[Record] = Score) -> bool:
    """Whether a file of judgements has some that the judge is asked for again."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # Nearly every line says in plain bytes that it has none; only the others are parsed.
            if line.count(_PASSING) > sum(map(line.count, _NONE_PASSING)) and line.endswith(b"\n"):
                row = parse_record(line.decode("utf-8", "replace"), record, f"{path}:{number}")
                if getattr(row, "passing", ()):
                    return True
    return False


def passing_note(reasons: Sequence[str | None]) -> str:
    """What to do about answers that a server failed to judge in passing: one line, "" for none."""
    if not reasons:
        return ""
    commonest = Counter(reasons).most_common(1)[0][0]
    return f"{len(reasons)} answers were not judged for reasons that may pass ({commonest}); the same command asks for them again"


def passing_reasons(scores: Iterable[Score]) -> list[str]:
    """One reason for every score that the next run asks for again."""
    return [score.unscored[score.passing[0]] for score in scores if score.passing]


def why_unjudgeable(question: str, answer: str) -> str | None:
    """Why no judge can say anything about an answer, or None: it or its question is empty, or holds half of a surrogate pair."""
    texts = (("answer", answer), ("question", question))
    for name, text in texts:
        if not text.strip():
            return f"empty {name}"
    for name, text in texts:
        if not is_unicode(text):
            return f"the {name} is not Unicode (a lone surrogate)"
    return None


def blank_scores(judge: str, completions: Iterable[Completion]) -> list[Score]:
    """Scores, with their reason, of the answers that no judge can say anything about."""
    reasons = [(row, why_unjudgeable(row.question, row.answer)) for row in completions]
    return [
        Score.of(row, judge=judge, aligned=None, coherent=None, unscored=dict.fromkeys(METRICS, reason))
        for row, reason in reasons
        if reason is not None
    ]


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
