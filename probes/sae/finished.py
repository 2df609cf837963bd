"""Turns a finished training of an SAE into a record with the hashes of its files, and says where these files are other ones by now."""

from pathlib import Path

from pydantic import Field

from emis_interp.errors import DataError
from emis_interp.files.hashes import first_difference
from emis_interp.files.store import read_record
from emis_interp.records import Record

FINISHED, WEIGHTS = "training.json", "sae"
"""In the folder of an SAE: the record, and the folder that `load_dictionary` reads."""


class FinishedSae(Record):
    """What `training.json` says.

    Attributes:
        files: of the folder of the SAE -> SHA-256; `sha256`, of the weights alone, in files of older versions.
        scale: factor on the activations that is folded into the weights.
        curve: [tokens, share of the variance that is missed], some 20 of them.
    """

    files: dict[str, str] = Field(default_factory=dict)
    sha256: str | None = None
    scale: float
    n_samples: int
    n_epochs: float
    curve: list[tuple[float, float]]
    seconds: float


def read_finished(folder: Path, weights: str) -> FinishedSae:
    """The record of an SAE whose files are those that its training wrote.

    Args:
        weights: name of its file of weights.

    Raises:
        DataError: the record is missing or damaged, or a file of the SAE is another one.
    """
    found = read_record(folder / FINISHED, FinishedSae)
    expected = found.files or ({} if found.sha256 is None else {weights: found.sha256})
    if weights not in expected:
        raise DataError(f"{folder / FINISHED}: names no hash of {weights}; train the SAE again")
    if changed := first_difference(folder / WEIGHTS, expected):
        raise DataError(
            f"{folder / WEIGHTS}: {changed} since the training wrote it; put it back, or train the SAE again"
        )
    return found
