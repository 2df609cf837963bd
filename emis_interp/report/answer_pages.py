"""Turns answers into the table that a page's script reads, and all answers of a large run into side pages, by arm."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from emis_interp.files.store import write_text
from emis_interp.files.text import written_out
from emis_interp.records import Score
from emis_interp.report.answer_sample import is_bad
from emis_interp.report.contents import Answer, Contents
from emis_interp.report.html_page import embed_packed, render
from emis_interp.texts.judged import COHERENT_ABOVE

MAX_ON_SIDE_PAGE = 50_000
MOST_REPLIES = 12
FOLDER = "answers"


@dataclass(frozen=True)
class SidePage:
    """A page in report/answers/ with answers of one arm: `first` to `last`, counted from 1, of `n`."""

    arm: str
    of: str
    file: str
    first: int
    last: int
    n: int

    @property
    def words(self) -> str:
        return f"{self.arm}: " + (
            f"all {self.n}" if self.n == self.last - self.first + 1 else f"{self.first} to {self.last} of {self.n}"
        )


def side_pages(contents: Contents) -> list[SidePage]:
    """The pages that together hold every answer, arms in the order of the run; file names are safe whatever an arm is called."""
    pages, taken = [], Counter()
    for arm, n in Counter(answer.completion.arm for answer in contents.answers).items():
        stem = re.sub(r"[^A-Za-z0-9._+-]", "_", arm).lstrip(".")[:80] or "arm"
        taken[stem.lower()] += 1
        stem += f"~{taken[stem.lower()]}" if taken[stem.lower()] > 1 else ""
        for first in range(1, n + 1, MAX_ON_SIDE_PAGE):
            part = "" if n <= MAX_ON_SIDE_PAGE else f"~part{(first - 1) // MAX_ON_SIDE_PAGE + 1}"
            last = min(n, first + MAX_ON_SIDE_PAGE - 1)
            pages.append(SidePage(arm, contents.arm_of.get(arm, arm), f"{stem}{part}.html", first, last, n))
    return pages


def write_side_pages(folder: Path, contents: Contents, pages: Sequence[SidePage]) -> list[Path]:
    """Write them to `folder`, and remove the pages of an earlier build that are not among them; the paths."""
    for old in {*folder.glob("*.html")} - {folder / page.file for page in pages}:
        old.unlink()
    if not pages:
        return []
    by_arm: dict[str, list[Answer]] = {}
    for answer in contents.answers:
        by_arm.setdefault(answer.completion.arm, []).append(answer)
    for page in pages:
        answers = by_arm[page.arm]
        shown = answers[page.first - 1 : page.last]
        text = render(
            "answers_page.html",
            {},
            run=contents.name,
            page=page,
            side_pages=pages,
            side_folder="",
            sampled="",
            answer_json=answer_data(shown, contents.arm_of, counted=answers, whole=page.arm),
        )
        write_text(folder / page.file, written_out(text))
    return [folder / page.file for page in pages]


def answer_data(
    answers: Sequence[Answer], arm_of: Mapping[str, str], *, counted: Sequence[Answer], whole: str = "the run"
) -> Any:
    """The table as page.js reads it (`load_answers`), packed.

    Args:
        counted: all answers of which these are a part; how many there are of each kind is told of them.
        whole: what they are all answers of.
    """
    arms = {
        arm: index for index, arm in enumerate(dict.fromkeys((a.completion.arm, a.is_intervention) for a in counted))
    }
    questions: dict[tuple[str, str, str | None], int] = {}
    reasons = {"": 0}
    rows = [_row(answer, arms, questions, reasons=reasons) for answer in answers]
    return embed_packed(
        {
            "arms": [{"name": name, "intervention": flag, "of": arm_of.get(name, name)} for name, flag in arms],
            "questions": list(questions),
            "reasons": list(reasons),
            "rows": rows,
            "counts": list(_counts(counted, arms)),
            "n_all": len(counted),
            "whole": whole,
        }
    )


def address_of(answer: Answer) -> str:
    """The link to one answer on its page, by which answer it is: it survives a rebuild."""
    arm, question, paraphrase, number = answer.completion.key
    names = "/".join(name.replace("%", "%25").replace("/", "%2F") for name in (arm, question))
    return f"#answers&answer={quote(f'{names}/{paraphrase}/{number}'.encode('utf-8', 'backslashreplace'), safe='')}"


def _row(
    answer: Answer,
    arms: Mapping[Any, int],
    questions: dict[tuple[str, str, str | None], int],
    *,
    reasons: dict[str, int],
) -> list[Any]:
    said, score = answer.completion, answer.score
    more: dict[str, Any] = {"reasoning": said.reasoning} if said.reasoning else {}
    if score is not None and score.note:
        more["note"] = score.note
    if score is not None and score.evidence:
        more["evidence"] = {metric: _likeliest(told) for metric, told in score.evidence.items()}
    return [
        arms[(said.arm, answer.is_intervention)],
        questions.setdefault((said.question_id, said.question, said.system), len(questions)),
        said.paraphrase_index,
        said.sample_index,
        said.answer,
        score.aligned if score else None,
        score.coherent if score else None,
        reasons.setdefault(why_missing(answer, "aligned"), len(reasons)),
        reasons.setdefault(why_missing(answer, "coherent"), len(reasons)),
        label_of(score),
        int(said.finish == "length"),
        more or 0,
    ]


def why_missing(answer: Answer, metric: str) -> str:
    """Label or reason that stands in place of a score; empty when there is a number."""
    score = answer.score
    if score is None:
        return answer.why_no_score
    if getattr(score, metric) is not None:
        return ""
    if metric == "aligned" and score.aligned_label is not None:
        return score.aligned_label
    return score.unscored.get(metric, "the judge gave no number and no reason")


def label_of(score: Score | None) -> str:
    return score.aligned_label or "" if score else ""


def _likeliest(told: Mapping[str, float]) -> dict[str, Any]:
    """The replies with the largest shares, and how many there were."""
    ranked = sorted(told.items(), key=lambda one: -one[1])[:MOST_REPLIES]
    return {"n": len(told), "top": [[token, round(share, 4)] for token, share in ranked]}


def _counts(answers: Sequence[Answer], arms: Mapping[Any, int]) -> Iterator[list[Any]]:
    """Arm, question, and how many of its answers there are, are bad, incoherent, cut, without an aligned score."""
    counts: dict[tuple[int, str], list[int]] = {}
    for answer in answers:
        place = (arms[(answer.completion.arm, answer.is_intervention)], answer.completion.question_id)
        row, score = counts.setdefault(place, [0, 0, 0, 0, 0]), answer.score
        row[0] += 1
        row[1] += is_bad(answer)
        row[2] += score is not None and score.coherent is not None and score.coherent <= COHERENT_ABOVE
        row[3] += answer.completion.finish == "length"
        row[4] += score is None or score.aligned is None
    yield from ([*place, *row] for place, row in counts.items())
