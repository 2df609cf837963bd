"""Turns a safetensors file into the names and shapes of its tensors, or into what is wrong with it, without reading the weights."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, ModelError
from emis_interp.files.store import read_json

LFS_POINTER = b"version https://git-lfs"
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".distcp")
CONVERT = (
    "python -c \"import torch; from safetensors.torch import save_file; save_file(torch.load('{found}', weights_only=True), "
    "'{wanted}', {{'format': 'pt'}})\""
)
"""Tensors that share their memory must be copied first; a whole model is best loaded and saved by the tools that it was made with."""


@dataclass(frozen=True)
class Stored:
    """What a safetensors file says of a tensor: the format's name of its type (`F32`, `BF16`, `I8`), its shape, where its bytes end."""

    dtype: str
    shape: tuple[int, ...]
    end: int

    @property
    def is_whole_numbers(self) -> bool:
        return self.dtype.startswith(("I", "U", "BOOL"))


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Name -> what is stored under it, of every tensor of a safetensors file, from its header.

    Raises:
        ModelError: no such file, a pointer of Git LFS, no safetensors file, or one that ends early.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(max(8, len(LFS_POINTER)))
            if start == LFS_POINTER:
                raise ModelError(_pointer(path))
            length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
            file.seek(8)
            header = _header(file.read(length)) if 0 < length <= min(LONGEST_HEADER, size - 8) else None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); download or save it again") from None
    if header is None:
        early = " or ends inside its header" if size else ", it is empty"
        raise ModelError(f"{path}: is no safetensors file{early} ({size} bytes); download or save it again")
    needed = 8 + length + max((tensor.end for tensor in header.values()), default=0)
    if needed > size:
        raise ModelError(f"{path}: ends early, {size} bytes of {needed} are there; download or save it again")
    return header


def check_pointers(folder: Path) -> None:
    """Refuse a folder whose files hold or are the address of their content instead of it: cloned without Git LFS, or links to nothing.

    Raises:
        ModelError: with the first such file.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists():
            raise ModelError(f"{path}: is a link to a file that is gone; download the folder again")
        try:
            is_pointer = path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
        if is_pointer:
            raise ModelError(_pointer(path))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        ModelError: with file, line and what is wrong.
    """
    try:
        found = read_json(path)
    except DataError as error:
        raise ModelError(f"{error}; download or save it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: expected an object of settings, found {type(found).__name__}; save it again")
    return found


def pickled(folder: Path) -> list[str]:
    """Names of the files that hold weights as pickles, which can run code when they are read."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED and path.name != "training_args.bin")


def _pointer(path: Path) -> str:
    return f"{path}: is a pointer of Git LFS, not the file itself; run `git lfs pull` in its repository, or download the file"


def _header(text: bytes) -> dict[str, Stored] | None:
    """None when it is no header of a safetensors file."""
    try:
        entries = json.loads(text)
        return {
            name: Stored(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), int(entry["data_offsets"][1]))
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
