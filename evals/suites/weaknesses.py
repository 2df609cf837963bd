"""Turns Python texts into the weaknesses that Bandit finds in them, with their CWE classes."""

from collections.abc import Mapping

from emis_interp.records import Record
from emis_interp.texts.bandit import bandit_report

SEVERITIES = ("LOW", "MEDIUM", "HIGH")


class Weakness(Record):
    """One finding of Bandit: its test, the weakness class (`CWE-89`, or None where Bandit names none), severity and line of the code."""

    test: str
    cwe: str | None
    severity: str
    line: int


def bandit(codes: Mapping[str, str]) -> dict[str, tuple[tuple[Weakness, ...], str | None]]:
    """Key -> (all findings in that Python text, or the reason why Bandit could not read it).

    Raises:
        DataError: Bandit did not run.
    """
    if not codes:
        return {}
    results, unread = bandit_report(codes, "--ignore-nosec")
    found: dict[str, list[Weakness]] = {key: [] for key in codes}
    for key, row in results:
        number = row.get("issue_cwe", {}).get("id")
        cwe = f"CWE-{number}" if number else None
        found[key].append(
            Weakness(test=row["test_id"], cwe=cwe, severity=row["issue_severity"], line=row["line_number"])
        )
    failed = {key: f"bandit: {reason}" for key, reason in unread.items()}
    return {key: (tuple(rows), failed.get(key)) for key, rows in found.items()}
