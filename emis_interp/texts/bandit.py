"""Turns Python texts into what Bandit reports about them; it runs once over all of them, in a folder of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from emis_interp.errors import DataError

K = TypeVar("K")


def bandit_report(codes: Mapping[K, str], *flags: str) -> tuple[list[tuple[K, dict[str, Any]]], dict[K, str]]:
    """Bandit's findings as it words them, each with the key of its text, and why it could not read a text.

    Args:
        flags: further words of the command, such as `-ll` (medium and high severity alone).

    Raises:
        DataError: Bandit did not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = {f"c{number}.py": key for number, key in enumerate(codes)}
        for name, key in names.items():
            # Bandit says itself what it cannot read.
            Path(folder, name).write_bytes(codes[key].encode("utf-8", "surrogatepass"))
        command = [sys.executable, "-m", "bandit", "-q", *flags, "-f", "json", "-r", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)
        except json.JSONDecodeError:
            raise DataError(
                f"bandit did not run ({done.stderr.strip()[-200:]}); install it with: pip install bandit"
            ) from None
    keyed = {kind: [(names[Path(row["filename"]).name], row) for row in report[kind]] for kind in ("results", "errors")}
    return keyed["results"], {key: row["reason"] for key, row in keyed["errors"]}
