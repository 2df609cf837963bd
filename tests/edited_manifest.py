"""Changes a run's manifest as its own code would: what is read is checked, what is written has the checksum of the new content."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emis_interp.files.manifest import MANIFEST, read_manifest
from emis_interp.files.store import write_sealed


@contextmanager
def edited_manifest(folder: Path) -> Iterator[dict[str, Any]]:
    """The values of the manifest, to be changed in place."""
    values = read_manifest(folder)
    yield values
    write_sealed(folder / MANIFEST, values)
