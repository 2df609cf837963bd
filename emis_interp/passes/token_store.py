"""Turns a folder of token-level activations (written by `token_writer`) into tensors, one text or one layer at a time.

    card.json                 what was captured from what: model, layers, hook point, dtype, hashes, and the shard plan
    shard-00000.safetensors   `layer_<l>` [n_tokens, d_model] of consecutive texts, with `token_ids` and `positions` [n_tokens]
    shard-00000.json          its texts with their rows, its SHA-256, and the hash of card.json

A shard is written whole and its JSON last, so what a killed writer leaves is done again. The plan depends on the texts alone: any number
of writers, any number of times, make the same store.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.files.store import as_record, card_path, file_sha256, read_json, text_sha256


class _Card(BaseModel):
    """What a reader needs of card.json."""

    shards: list[Any]
    layers: list[int]
    n_texts: int


class _Index(BaseModel):
    """The JSON of a shard; `texts` are [text, first row, number of rows]."""

    store: str
    texts: list[tuple[int, int, int]]
    sha256: str


class TokenStore:
    """Reads a finished store lazily: a shard is hashed when it is first touched, and only the rows asked for are loaded.

    Raises:
        DataError: on opening, no card, missing shards, or shards of other inputs; on reading, a shard whose content is not what was
            written. Both name the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card: dict[str, Any] = read_json(folder / "card.json")
        as_record(self.card, _Card, str(folder / "card.json"))
        paths = [shard_path(folder, number) for number in range(len(self.card["shards"]))]
        missing = [path.name for path in paths if not card_path(path).exists()]
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} of {len(paths)} shards are not written yet ({missing[0]} is the first); "
                "run the command that writes the store again, with every worker"
            )
        self._index = {path: read_index(path, self.card) for path in paths}
        self._checked: set[Path] = set()

    @property
    def layers(self) -> list[int]:
        return self.card["layers"]

    def __len__(self) -> int:
        return self.card["n_texts"]

    @cached_property
    def _where(self) -> dict[int, tuple[Path, int, int]]:
        return {
            text: (path, start, n_tokens)
            for path, index in self._index.items()
            for text, start, n_tokens in index["texts"]
        }

    def text(self, i: int, layers: Sequence[int] | None = None) -> Float[Tensor, "n_layers n_tokens d_model"]:
        """The tokens of text i at the given layers (all that are stored when left out), read from one shard."""
        path, rows = self._rows(i)
        names = [self._name(layer) for layer in (self.layers if layers is None else layers)]
        with self._open(path) as file:
            return torch.stack([file.get_slice(name)[rows] for name in names])

    def tokens(self, i: int) -> tuple[list[int], list[int]]:
        """Token ids of text i that are stored, and their indices in the unpadded sequence."""
        path, rows = self._rows(i)
        with self._open(path) as file:
            return file.get_slice("token_ids")[rows].tolist(), file.get_slice("positions")[rows].tolist()

    def layer(self, layer: int) -> Iterator[tuple[int, Float[Tensor, "n_tokens d_model"]]]:
        """(text, its tokens) at one layer, text after text; memory is one shard's tensor of that layer."""
        name = self._name(layer)
        for path, index in self._index.items():
            with self._open(path) as file:
                values = file.get_tensor(name)
            for text, start, n_tokens in index["texts"]:
                yield text, values[start : start + n_tokens]

    def verify(self) -> int:
        """Hash every shard that was not hashed yet; returns their number in all."""
        for path in self._index:
            self._verify(path)
        return len(self._index)

    def _rows(self, i: int) -> tuple[Path, slice]:
        if i not in self._where:
            raise DataError(f"{self.folder}: text {i} asked for, the store has {len(self)} (0-{len(self) - 1})")
        path, start, n_tokens = self._where[i]
        return path, slice(start, start + n_tokens)

    def _name(self, layer: int) -> str:
        if layer not in self.layers:
            raise DataError(f"{self.folder}: layer {layer} is not stored; it holds {', '.join(map(str, self.layers))}")
        return f"layer_{layer}"

    def _verify(self, path: Path) -> None:
        if path not in self._checked:
            check_shard(path, self.card)
            self._checked.add(path)

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        self._verify(path)
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def card_hash(card: dict[str, Any]) -> str:
    return text_sha256(json.dumps(card, sort_keys=True, ensure_ascii=False, allow_nan=False))


def read_index(path: Path, card: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a shard, after the checks that need no reading of the shard itself."""
    index = read_json(card_path(path))
    as_record(index, _Index, str(card_path(path)))
    if index.get("store") != card_hash(card):
        raise DataError(
            f"{card_path(path)}: belongs to a store of other inputs than card.json; delete it and write it again"
        )
    if not path.exists():
        raise DataError(
            f"{path}: no such file, though {card_path(path).name} exists; delete that and write the store again"
        )
    return index


def check_shard(path: Path, card: dict[str, Any]) -> None:
    """Raise a DataError that names the shard unless it is exactly what was written for this card."""
    if read_index(path, card)["sha256"] != file_sha256(path):
        raise DataError(
            f"{path}: content does not match the checksum in {card_path(path).name} (damaged or cut off); "
            f"delete both and run the command that writes the store again"
        )
