"""Turns a hub id `owner/name` into a local folder with the files asked for: from the cache, else from the model hub."""

from collections.abc import Sequence
from pathlib import Path

from emis_interp.errors import ModelError

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""Configurations, tokenizers and templates; `*.json` includes the index that lists the shards of a large model."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/name`."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def hub_folder(name: str, patterns: Sequence[str], instead: str) -> Path:
    """The folder of a hub repository's current snapshot, with the files that match the patterns.

    Args:
        instead: ends the advice when nothing is delivered.

    Raises:
        ModelError: no such repository, no access, or no connection.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub client raises many unrelated types; all mean that the name cannot be used
        if isinstance(error, GatedRepoError):
            advice = "accept its licence on the hub's page and log in (hf auth login)"
        elif isinstance(error, RepositoryNotFoundError):
            advice = "there is no such repository, or it is private: check the name, or log in (hf auth login)"
        elif isinstance(error, HFValidationError):
            advice = "this is no name of a repository: check it"
        elif isinstance(error, LocalEntryNotFoundError):
            advice = "it is not in the cache and the hub is not reached: check the name and the connection"
        else:
            advice = "check the name and the connection"
        raise ModelError(
            f"`{name}`: no such folder, and the model hub did not deliver it ({type(error).__name__}); {advice}, or {instead}"
        ) from error


def hub_files(name: str) -> list[str]:
    """Names of the files of a hub repository; empty when the hub cannot say."""
    from huggingface_hub import list_repo_files

    try:
        return sorted(list_repo_files(name))
    except Exception:  # only adds to an advice that is given without it
        return []
