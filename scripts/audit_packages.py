"""Asks the package index about known vulnerabilities of every pinned package. Exit status 1 where there is one.

Examples:
  python scripts/audit_packages.py             says how many pins nobody could be asked about (no network, an index without such data)
  python scripts/audit_packages.py --strict    ends with 1 for these too: before a release
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.errors import ConfigError, printable
from emis_interp.process import Bars, no_bars

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
ASK = ("-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--no-deps", "--disable-pip")


@settings
class AuditPackagesSettings:
    """Which pins, and what counts as passed."""

    pins: Path = flag("requirements file with a version for each package", default=PINS)
    strict: bool = flag("fail where a package could not be asked about", default=False)


def run(settings: AuditPackagesSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """What pip-audit says of each pin.

    Raises:
        ConfigError: pip-audit is not installed.
    """
    done = subprocess.run([sys.executable, *ASK, "-r", str(settings.pins)], capture_output=True, text=True)
    if "No module named pip_audit" in done.stderr:
        raise ConfigError(
            "pip-audit is not installed: make audit, or python -m pip install -c constraints.txt pip-audit"
        )
    return {"strict": settings.strict, **read_audit(done.stdout, done.stderr)}


def read_audit(out: str, err: str) -> dict[str, Any]:
    """How many packages were asked about; which have a vulnerability; why others could not be asked about."""
    try:
        rows = [{"name": row["name"], **row} for row in json.loads(out)["dependencies"]]
        skipped = {row["name"]: row["skip_reason"] for row in rows if "skip_reason" in row}
        vulnerable = [
            {"name": row["name"], "version": row["version"], "id": one["id"], "mended_in": one["fix_versions"]}
            for row in rows
            for one in row.get("vulns", ())
        ]
    except (ValueError, LookupError, TypeError):
        last = (err.strip() or "it wrote nothing").splitlines()[-1]
        return {
            "n_asked": 0,
            "vulnerable": [],
            "not_asked": {"all": f"pip-audit ended without an answer: {printable(last, 200)}"},
        }
    return {"n_asked": len(rows) - len(skipped), "vulnerable": vulnerable, "not_asked": skipped}


def say(result: dict[str, Any]) -> str:
    found, left = result["vulnerable"], result["not_asked"]
    lines = [
        f"{one['name']} {one['version']}: {one['id']}, mended in {', '.join(one['mended_in']) or 'no version yet'}"
        for one in found
    ]
    if left:
        n_left = "all" if "all" in left else len(left)
        lines.append(f"NOT ASKED ABOUT: {n_left} of the pins ({next(iter(left.values()))})")
    return "\n".join(
        [*lines, f"{len(found)} known vulnerabilities in {result['n_asked']} packages that were asked about"]
    )


def status(result: dict[str, Any]) -> int:
    return 1 if result["vulnerable"] or (result["strict"] and result["not_asked"]) else 0


VERB = cli.Verb(AuditPackagesSettings, "audit_packages", run, status=status)

if __name__ == "__main__":
    cli.run(VERB.do, cli.parser_of(VERB, __doc__), say, status=VERB.status)
