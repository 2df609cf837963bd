"""Turns tensors into a safetensors file with a JSON card beside it, and back; what does not match its card is refused."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes

from emis_interp.errors import DataError
from emis_interp.files import strict_json
from emis_interp.files.sealed import unsealed
from emis_interp.files.store import card_path, file_sha256, write_bytes, write_sealed


def tensors_file(stem: Path) -> Path:
    """`stem`.safetensors; a dot elsewhere in the name (`qwen2.5`) is kept."""
    return stem if stem.suffix == ".safetensors" else stem.with_name(f"{stem.name}.safetensors")


def saved_file(path: Path | str, stem: str) -> Path:
    """The tensors of what was saved as `stem` in a folder of its own, named by that folder, by its stem or by one of its two files.

    Where there is none: the place where they would most likely be.
    """
    places = saved_places(path, stem)
    return next((place for place in places if place.exists()), places[-1] if Path(path).is_dir() else places[0])


def saved_places(path: Path | str, stem: str) -> list[Path]:
    """Where `saved_file` looks, in this order."""
    given = Path(path)
    if given.suffix == ".safetensors":
        return [given]
    if given.suffix == ".json":
        return [given.with_suffix(".safetensors"), tensors_file(given)]
    return [tensors_file(given), given / f"{stem}.safetensors"]


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, and `card` as JSON beside them with the file's SHA-256 and a checksum of the card itself.

    The card is written last, so a tensor file with a matching card is complete.

    Raises:
        DataError: a number that is not finite, with its place; nothing is written.
    """
    if found := not_finite(tensors):
        raise DataError(f"{path}: not written, {found}; the model or its data broke down")
    content = tensors_to_bytes({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
    write_bytes(path, content)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    write_sealed(card_path(path), {**card, "tensors": shapes, "sha256": hashlib.sha256(content).hexdigest()})


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and their card.

    Raises:
        DataError: a file is missing, truncated, does not match the checksum on its card, or holds a number that is not finite; or the
            card does not match its own.
    """
    card = unsealed(strict_json.read_json_object(card_path(path)), str(card_path(path)))
    if not path.exists():
        raise DataError(f"{path}: no such file, though its card {card_path(path).name} exists; run the stage again")
    if card.get("sha256") != file_sha256(path):
        raise DataError(
            f"{path}: content does not match the checksum on {card_path(path).name}; delete both and run the stage again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None
    if found := not_finite(tensors):
        raise DataError(f"{path}: {found}; delete it and its card, and run what made them again")
    return tensors, card


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The first number that is none, as `NAME holds NaN at row 3, 1, 17`, or None."""
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(tensor.isfinite().all()):
            bad = (~tensor.isfinite()).nonzero()
            place = ", ".join(map(str, bad[0].tolist()))
            kind = "NaN" if bool(tensor.isnan().any()) else "infinity"
            return f"{name} holds {kind}, first at row {place} ({len(bad)} of {tensor.numel()} numbers)"
    return None
