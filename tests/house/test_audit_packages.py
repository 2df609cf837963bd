"""What is said of pip-audit's answers: a pin that nobody could be asked about is none without vulnerabilities."""

import json
from pathlib import Path

import pytest

import audit_packages
from audit_packages import AuditPackagesSettings, read_audit, say, status
from emis_interp.errors import ConfigError

SOUND = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"], "aliases": []}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("rows", "plain", "strict", "words"),
    [
        ([SOUND], 0, 0, "0 known vulnerabilities in 1 packages that were asked about"),
        ([SOUND, BAD], 1, 1, "b 2: PYSEC-1, mended in 3"),
        ([SOUND, SKIPPED], 0, 1, "NOT ASKED ABOUT: 1 of the pins (Dependency not found on PyPI)"),
    ],
)
def test_a_pin_is_sound_vulnerable_or_not_asked_about(
    rows: list[dict[str, object]], plain: int, strict: int, words: str
) -> None:
    found = read_audit(json.dumps({"dependencies": rows, "fixes": []}), "")
    assert words in say(found)
    assert (status({**found, "strict": False}), status({**found, "strict": True})) == (plain, strict)


@pytest.mark.parametrize("out", ["", "Traceback", "[]", '{"dependencies": [{"version": 1}]}'])
def test_an_audit_without_an_answer_is_said(out: str) -> None:
    found = read_audit(out, "long\nConnectionError: no network")
    assert status({**found, "strict": False}) == 0 and status({**found, "strict": True}) == 1
    assert "NOT ASKED ABOUT: all of the pins" in say(found)


def test_a_missing_auditor_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit_packages, "ASK", ("-c", "import sys; sys.exit('No module named pip_audit')"))
    with pytest.raises(ConfigError, match="pip-audit is not installed"):
        audit_packages.run(AuditPackagesSettings(pins=tmp_path / "c.txt"))
