"""Turns Python texts into the weaknesses that Bandit finds in them, with their CWE classes."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from emis_interp.errors import EmisError
from emis_interp.records import Record

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
        EmisError: Bandit did not run.
    """
    if not codes:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        names = {f"c{number}.py": key for number, key in enumerate(codes)}
        for name, key in names.items():
            Path(folder, name).write_bytes(
                codes[key].encode("utf-8", "surrogatepass")
            )  # Bandit says what it cannot read
        command = [sys.executable, "-m", "bandit", "-q", "--ignore-nosec", "-f", "json", "-r", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)
        except json.JSONDecodeError:
            raise EmisError(
                f"bandit did not run ({done.stderr.strip()[-200:]}); install it with: pip install bandit"
            ) from None
    found: dict[str, list[Weakness]] = {key: [] for key in codes}
    for row in report["results"]:
        number = row.get("issue_cwe", {}).get("id")
        found[names[Path(row["filename"]).name]].append(
            Weakness(
                test=row["test_id"],
                cwe=f"CWE-{number}" if number else None,
                severity=row["issue_severity"],
                line=row["line_number"],
            )
        )
    failed = {names[Path(row["filename"]).name]: f"bandit: {row['reason']}" for row in report["errors"]}
    return {key: (tuple(rows), failed.get(key)) for key, rows in found.items()}
