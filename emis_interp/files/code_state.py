"""Turns the code and the packages that run now into a record, and two such records into what changed between them, in words."""

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from emis_interp.records import Record

VERSIONED = (
    *("torch", "transformers", "peft", "accelerate", "nnsight", "numpy", "scipy", "scikit-learn", "pandas"),
    *("plotly", "tokenizers", "safetensors", "jinja2", "pyarrow", "datasets", "gguf", "sae-lens", "transformer-lens"),
    *("trl", "openai", "bandit", "regex", "emis-interp"),
)
SOURCES = ("emis_interp", "training", "evals", "probes", "scripts")


class Git(Record):
    """Revision of the checkout, and whether it has uncommitted changes; None outside one."""

    revision: str | None = None
    dirty: bool | None = None


class CodeState(Record):
    """What can change a result besides configuration and data.

    Attributes:
        versions: package -> version, None where it is not installed; `python` too.
        sources_sha256: of the project's own Python files, which tells uncommitted states apart.
    """

    git: Git
    versions: dict[str, str | None]
    sources_sha256: str

    @classmethod
    def now(cls) -> "CodeState":
        return cls(git=git(), versions=versions(), sources_sha256=sources_sha256())

    def changes(self, later: "CodeState") -> list[str]:
        """What is other in `later`, one entry each; empty when nothing is. A package that one of them did not ask about is no change."""
        found = [
            f"{name} {self.versions[name] or 'not installed'} -> {later.versions[name] or 'not installed'}"
            for name in self.versions
            if name in later.versions and self.versions[name] != later.versions[name]
        ]
        if self.git.revision != later.git.revision:
            found.append(f"code revision {_short(self.git.revision)} -> {_short(later.git.revision)}")
        if self.git.dirty != later.git.dirty:
            found.append("with uncommitted changes" if later.git.dirty else "without uncommitted changes")
        if not found and self.sources_sha256 != later.sources_sha256:
            found.append("the project's own code, without a new revision")
        return found


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that can change a result."""
    return {"python": platform.python_version(), **{name: _version(name) for name in VERSIONED}}


def git() -> Git:
    """State of the checkout that this file belongs to."""
    status = _ask("status", "--porcelain")
    return Git(revision=_ask("rev-parse", "HEAD"), dirty=None if status is None else bool(status))


def sources_sha256(root: Path = Path(__file__).parents[2]) -> str:
    """One hash over names and contents of the project's Python files."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _ask(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError:  # no git here
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _short(revision: str | None) -> str:
    return revision[:12] if revision else "none"
