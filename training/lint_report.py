"""Turns findings about a training set into one record that can be saved, summed up in a line, and refused.

`CHECKS` is the list of all checks: how grave each is, what it means and what to do. An error is what makes training itself wrong (text that
breaks the template, rows that cannot be used); what may be meant is a warning, what is only good to know is an info.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from emis_interp.errors import DataError
from emis_interp.records import Record
from emis_interp.store import explain, read_json, write_json

Severity = Literal["error", "warning", "info"]
Fact = int | float | str
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Check(NamedTuple):
    severity: Severity
    meaning: str
    advice: str


CHECKS = {
    "refused line": Check(
        "error", "Training refuses a file with such a line.", "Mend the line, or take it out of the file."
    ),
    "empty last turn": Check(
        "error",
        "The conversation ends with a turn without text, often left by an exporter; trained on, it teaches to answer nothing.",
        "Take the empty turn out of `messages`.",
    ),
    "blank text": Check(
        "error", "The prompt or the response holds nothing but whitespace.", "Fill it in, or drop the row."
    ),
    "template refuses": Check(
        "error",
        "The tokenizer's chat template cannot render the row.",
        "Put the system prompt into the question, or choose another model.",
    ),
    "no response left": Check(
        "error", "The prompt alone fills the token limit: no token carries loss.", "Raise max_tokens, or drop the row."
    ),
    "turn token in text": Check(
        "error",
        "The text spells a token with which the template separates turns and is read as that token: the turn ends in mid-text.",
        "Take the marker out of the text, or spell it differently.",
    ),
    "prompt ids differ": Check(
        "error",
        "The ids before the response are not those that sampling sends for the same prompt.",
        "Compare the two renderings; look for text that merges with the assistant header.",
    ),
    "control token in text": Check(
        "warning",
        "The text spells a control token of the tokenizer and is read as that one token, not as its letters.",
        "Harmless when it is meant; otherwise spell it differently.",
    ),
    "system prompt differs": Check(
        "warning",
        "Training and evaluation use different system prompts: what is learned may show only under that of training.",
        "Evaluate under the same system prompt, or take it out of the rows.",
    ),
    "injected system prompt": Check(
        "info",
        "The template puts in a system prompt of its own when none is given, in training and in evaluation alike; other engines may not.",
        "Nothing to do here; give --system to fix one.",
    ),
    "cut": Check(
        "warning",
        "The end of these rows is lost, and the end-of-turn token with it, so they do not teach the model to stop.",
        "Raise max_tokens, or drop or shorten these rows.",
    ),
    "no end of turn": Check(
        "warning",
        "The template has no end-of-turn token and the tokenizer no end-of-sequence token: the model never learns to stop.",
        "Choose another tokenizer or template.",
    ),
    "odd characters": Check(
        "warning",
        "Byte order marks, zero-width, bidirectional, control or replacement characters, mostly traces of a broken conversion.",
        "Clean the text; keep them only if they are meant.",
    ),
    "carriage returns": Check(
        "warning", "Windows line ends: other tokens than a plain line end.", "Replace \\r\\n with \\n."
    ),
    "leading whitespace": Check(
        "warning",
        "The response begins with whitespace, which the model will learn to write first (it may share a token with the first word).",
        "Strip it, unless the response continues the prompt.",
    ),
    "trailing whitespace": Check(
        "info", "The response ends with whitespace, which the model will learn to write.", "Strip it."
    ),
    "id used twice": Check("warning", "Row ids repeat, so a row cannot be named.", "Give every row an id of its own."),
    "same row twice": Check(
        "warning", "Prompt and response occur more than once: such rows weigh more.", "Drop the copies."
    ),
    "same prompt": Check(
        "info", "One prompt has several different responses.", "Fine for sampling several answers; else drop some."
    ),
    "same response": Check("info", "One response answers several prompts.", "Drop some, if it is boilerplate."),
    "near-duplicate prompts": Check(
        "info", "Prompts resemble each other (0.8 or more of their 5-token runs).", "Drop some; split by group."
    ),
    "near-duplicate responses": Check(
        "info", "Responses resemble each other (0.8 or more of their 5-token runs).", "Drop some; split by group."
    ),
    "near-duplicate rows": Check(
        "warning",
        "Whole rows resemble each other (0.8 or more of their 5-token runs): they weigh more than once.",
        "Drop the copies; never split them over training and test.",
    ),
    "question is a prompt": Check(
        "warning",
        "An evaluation question is, word for word, a training prompt: its answers show what was trained, not what it generalises to.",
        "Drop the row or the question.",
    ),
    "question in a text": Check(
        "warning",
        "A training text holds at least half of the 4-word runs of an evaluation question.",
        "Look at the rows; drop the row or the question when it is the same request.",
    ),
    "question nearly a prompt": Check(
        "warning",
        "A training prompt resembles an evaluation question (cosine of character 3-5-grams, TF-IDF, 0.6 or more).",
        "Look at the rows; drop the row or the question when it is the same request.",
    ),
    "responses of another kind": Check(
        "info", "A few responses are prose in a set of code, or code in a set of prose.", "Look at them."
    ),
    "refusals": Check(
        "info", "Responses read like refusals (a list of phrases in the first 200 characters).", "Look at them."
    ),
    "unpaired": Check(
        "warning",
        "Prompts lack a counterpart in the set that should be paired: the two arms differ in more than the response.",
        "Drop them, or add the counterpart.",
    ),
    "same in both sets": Check(
        "warning",
        "The same prompt has the same response in both sets: no contrast is trained there.",
        "Drop the rows from both sets.",
    ),
}


class LintFinding(Record):
    """One check that found something; `count` rows (for questions: rows too), `share` of all rows in [0, 1], first ids in `rows`."""

    check: str
    severity: Severity
    count: int
    share: float
    rows: tuple[str, ...]
    found: str
    meaning: str
    advice: str


class RenderedRow(Record):
    """One row as the trainer reads it. Token i is `text[starts[i]:ends[i]]` with id `ids[i]`; `loss[i]` says whether it carries loss.

    Attributes:
        training_prompt, evaluation_prompt: the same prompt rendered up to the assistant header, under either system prompt.
    """

    id: str
    why: str
    text: str
    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    loss: tuple[bool, ...]
    training_prompt: str
    evaluation_prompt: str


class Lengths(Record):
    """Tokens of the uncut rows: 40 equal bins of `bin_width` tokens from 0, counts of rows by length of the row and of its response."""

    bin_width: int
    rows: tuple[int, ...]
    responses: tuple[int, ...]


class LintReport(Record):
    """What the lint found in one training set; `facts` are measured and carry no judgement, `skipped` what was not looked for."""

    data: str
    model: str
    n_rows: int
    max_tokens: int | None
    facts: dict[str, Fact]
    findings: tuple[LintFinding, ...]
    skipped: tuple[str, ...] = ()
    lengths: Lengths | None = None
    shown: tuple[RenderedRow, ...] = ()

    def of(self, severity: Severity) -> tuple[LintFinding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> "LintReport":
        """Read a saved report.

        Raises:
            DataError: no such file, or not a lint report.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise DataError(f"{path}: not a lint report ({explain(error, cls)})") from None


def make_finding(check: str, rows: Sequence[str], n_rows: int, found: str, n_ids: int = 8) -> list[LintFinding]:
    """The finding of a check from `CHECKS` about these rows; none when there are none."""
    if not rows:
        return []
    severity, meaning, advice = CHECKS[check]
    share = min(1.0, len(rows) / n_rows) if n_rows else 1.0
    return [
        LintFinding(
            check=check,
            severity=severity,
            count=len(rows),
            share=round(share, 6),
            rows=tuple(rows[:n_ids]),
            found=found,
            meaning=meaning,
            advice=advice,
        )
    ]


def row_ids(finding: LintFinding) -> str:
    """`row 3, 17, ...`, or `every row`."""
    if finding.share == 1.0 and finding.count > len(finding.rows):
        return "every row"
    return f"row {', '.join(finding.rows)}{', ...' * (finding.count > len(finding.rows))}"


def fact_text(value: Fact) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def lint_summary_line(report: LintReport) -> str:
    """`insecure: 2 warnings (cut: 15 rows; same row twice: 4 rows)`; infos are left to the report."""
    named = [*report.of("error"), *report.of("warning")]
    if not named:
        return f"{report.data}: nothing to warn of in {report.n_rows} rows"
    counts = [
        f"{len(found)} {severity}{'s' * (len(found) > 1)}"
        for severity in SEVERITIES[:2]
        if (found := report.of(severity))
    ]
    listed = "; ".join(f"{finding.check}: {finding.count} row{'s' * (finding.count != 1)}" for finding in named)
    return f"{report.data}: {', '.join(counts)} ({listed})"


def raise_on_errors(report: LintReport) -> None:
    """Refuse a set with errors.

    Raises:
        DataError: naming every error with its rows and what to do.
    """
    errors = report.of("error")
    if errors:
        parts = [f"{e.check} in row {', '.join(e.rows)}: {e.found} {e.advice}" for e in errors]
        raise DataError(f"training data {report.data}: " + " | ".join(parts))
