"""Turns findings about a training set into one record that can be saved, summed up in a line, and refused."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from emis_interp.errors import DataError
from emis_interp.files.store import explain, read_json, write_json
from emis_interp.records import Record
from training.lint.checks import CHECKS, SEVERITIES, Severity

Fact = int | float | str


class LintFinding(Record):
    """One check that found something; `count` rows, `share` of all rows in [0, 1], the first ids in `rows`."""

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
        template_prompt, template_text: the prompt and the whole conversation as the chat template alone writes them.
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
    template_prompt: str = ""
    template_text: str = ""


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


def make_finding(check: str, rows: Sequence[str], n_rows: int, *, found: str, n_ids: int = 8) -> list[LintFinding]:
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
    """`row 3, 17, ...`, `line 4, line 6` of a file, or `every row`."""
    if finding.share == 1.0 and finding.count > len(finding.rows):
        return "every row"
    prefix = "" if finding.rows and finding.rows[0].startswith(("row ", "line ")) else "row "
    return f"{prefix}{', '.join(finding.rows)}{', ...' * (finding.count > len(finding.rows))}"


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
        parts = [f"{e.check} in {row_ids(e)}: {e.found} {e.advice}" for e in errors]
        raise DataError(f"training data {report.data}: " + " | ".join(parts))
