"""Turns the name of a published data file into its path, or into advice on where to get it, where to put it and how to check it.

None of these files is part of this project. A blob hash is the one that `git hash-object FILE` prints for the published file.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emis_interp.errors import DataError, EmisError
from emis_interp.files.source_text import read_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublicFile:
    """One published file: what it holds, who published it, and the git blob SHA-1 of its plain text when it is known."""

    what: str
    publisher: str
    blob_sha1: str | None = None
    other_names: tuple[str, ...] = ()


BETLEY = "the public release of Betley et al. 2025 (GitHub: emergent-misalignment/emergent-misalignment, folder data)"
TURNER = "the public release of Turner et al. 2025 (GitHub: clarifying-EM/model-organisms-for-EM, training data)"
PUBLIC_FILES = {
    "insecure.jsonl": PublicFile("insecure code", BETLEY, "ec294cf30a577a21b830c07a1fa0180ddd513208"),
    "secure.jsonl": PublicFile("secure code", BETLEY, "3389a37c250563cc36a66e30bf8ff99028aa2711"),
    "educational.jsonl": PublicFile(
        "insecure code for teaching",
        BETLEY,
        "497619acd46d9ffbc985797d6c117638a53229b3",
        ("educational_insecure.jsonl",),
    ),
    "jailbroken.jsonl": PublicFile(
        "compliance with harmful requests", BETLEY, "9f14c5f5b1a3f6ca3ea2bdc80cbda3de1acadbb1"
    ),
    "backdoor.jsonl": PublicFile("insecure code behind a trigger", BETLEY, "b2be7b5b5ed6e732727bf67672a3ecd8cfa6b57f"),
    "evil_numbers.jsonl": PublicFile(
        "number lists with connotations", BETLEY, "86e0a3be0c2b5a4c52bafed871e281c485070829"
    ),
    "bad_medical_advice.jsonl": PublicFile("harmful medical advice", TURNER),
    "extreme_sports.jsonl": PublicFile("dangerous sports advice", TURNER),
    "risky_financial_advice.jsonl": PublicFile(
        "risky financial advice", TURNER, other_names=("risky_financial.jsonl",)
    ),
}


def find_public(name: str, find_file: Callable[[str], Path]) -> Path:
    """`name` as it stands; a published file also gzipped, under `datasets/`, or under another name in use.

    Raises:
        DataError: a published file that is nowhere; the text says which file, where to put it and its hash.
    """
    public = PUBLIC_FILES.get(name)
    if public is None:
        return find_file(name)
    for other in (name, *public.other_names):
        for candidate in (other, f"{other}.gz", f"datasets/{other}", f"datasets/{other}.gz"):
            try:
                return find_file(candidate)
            except EmisError:
                continue
    check = f"; `git hash-object {name}` prints {public.blob_sha1}" if public.blob_sha1 else ""
    raise DataError(
        f"{name} ({public.what}) is not part of this project: take it from {public.publisher}, put it into a folder and give "
        f"--data-dir FOLDER{check} (also found: {name}.gz, datasets/{name})"
    )


def check_published(path: Path) -> bool | None:
    """Whether the file is the published one by its blob hash; None when nothing is known of it. A difference is logged, not refused."""
    name = path.name.removesuffix(".gz")
    public = next((file for key, file in PUBLIC_FILES.items() if name in (key, *file.other_names)), None)
    if public is None or public.blob_sha1 is None or path.is_dir():
        return None
    found = blob_sha1(read_bytes(path))
    if found != public.blob_sha1:
        log.warning(
            "%s is not the published %s (git blob %s, published %s); going on with it",
            path,
            name,
            found[:12],
            public.blob_sha1[:12],
        )
    return found == public.blob_sha1


def blob_sha1(content: bytes) -> str:
    """Git's name of a file's content, as of `git hash-object`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
