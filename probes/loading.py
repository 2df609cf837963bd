"""The model that a verb works on, named by flags or by the card of a saved direction, and what `fit` left beside the direction."""

import argparse
import logging
from pathlib import Path
from typing import Any

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.files.store import file_sha256, read_records
from emis_interp.files.tensors import load_tensors
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_model
from emis_interp.models.rendering import both
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import at_most, load_contrast

log = logging.getLogger(__name__)

PAIRS_FILE = "pairs.jsonl"
"""Pairs of the texts that a direction was fitted on, both halves, beside the direction."""


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Adapter, device and batch size; the model itself has a default only where no card names it."""
    parser.add_argument("--adapter", type=Path, help="folder or hub id of a LoRA adapter on top of the model")
    parser.add_argument(
        "--chat-format", choices=FORMATS, help="plain format for a pretrained model without a chat template"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--max-batch-tokens", type=int, default=2048, help="padded tokens per forward pass")


def add_direction_flags(parser: argparse.ArgumentParser) -> None:
    """A saved direction, and the model where it is not the card's."""
    parser.add_argument("--direction", type=Path, required=True, help="what fit saved, e.g. directions/mine/direction")
    parser.add_argument("--model", help="default: the model on the direction's card")
    parser.add_argument("--dtype", help="as of fit; default: the dtype on the direction's card")
    add_model_flags(parser)


def add_pair_flags(parser: argparse.ArgumentParser, n_pairs: int | None) -> None:
    """Which pairs a saved direction is tested on, where they are not its own."""
    parser.add_argument("--pairs", type=Path, help="JSONL of contrast pairs; default: those of the direction's texts")
    parser.add_argument(
        "--n-pairs", type=int, default=n_pairs, help="pairs per question; default: all (few pairs are noisy)"
    )


def model_of(direction: Direction, args: argparse.Namespace) -> ChatModel:
    """The model of `--model` and `--adapter`, otherwise the one on the card; an adapter is merged.

    Another rendering of prompts than that of the card is said: the direction was read behind other words.

    Raises:
        DataError: neither the flags nor the card name a model.
    """
    name = args.model or direction.card.get("model")
    if name is None:
        raise DataError(f"{args.direction}: its card names no model; give --model")
    adapter = args.adapter or (Path(direction.card["adapter"]) if direction.card.get("adapter") else None)
    dtype = args.dtype or direction.card.get("dtype", "float32")
    chat_format = args.chat_format or direction.card.get("chat_format")
    chat_model = load_model(
        name, adapter, dtype, device=args.device, merge=adapter is not None, chat_format=chat_format
    )
    fitted, now = direction.card.get("rendering"), template_of(chat_model.tokenizer).card
    if fitted is not None and fitted["sha256"] != now["sha256"]:
        one, other = both(fitted["prompt"], now["prompt"])
        log.warning("%s: was fitted on prompts rendered as %s, here they are %s", args.direction, one, other)
    return chat_model


def pairs_of(direction: Direction, args: argparse.Namespace, *halves: str) -> list[ContrastPair]:
    """At most `--n-pairs` pairs per question of some halves: those of `--pairs`, otherwise those of the direction's own texts.

    `direction` is the fit to be reported; no question of the report half may have had a part in it.

    Raises:
        DataError: the direction has no pairs of its own or others lie there, it was fitted on a report question, or a half is empty.
    """
    pairs = load_contrast(args.pairs) if args.pairs is not None else own_pairs(direction, args.direction)
    pairs = at_most([pair for pair in pairs if pair.half in halves], args.n_pairs)
    for half in halves:
        if not any(pair.half == half for pair in pairs):
            source = args.pairs or args.direction
            raise DataError(f"{source}: no pairs of {half} questions; give --pairs with such questions")
    direction.check_unseen(pair.question for pair in pairs if pair.half == "report")
    return pairs


def own_pairs(direction: Direction, path: Path) -> list[ContrastPair]:
    """What `fit` kept of the texts that the direction at `path` was fitted on.

    Raises:
        DataError: it kept none, or the file is no longer the one that it wrote.
    """
    file, described = path.parent / PAIRS_FILE, direction.card.get("pairs")
    if described is None:
        raise DataError(
            f"{path}: its texts hold no misaligned and aligned answer to the same wording, or it was not saved by fit; give --pairs FILE"
        )
    if not file.exists() or file_sha256(file) != described["sha256"]:
        raise DataError(f"{file}: not the pairs that fit wrote beside {path}; fit again, or give --pairs FILE")
    return read_records(file, ContrastPair)


def tensors_beside(path: Path, name: str) -> dict[str, Any]:
    """`name`.safetensors of the folder that `fit` wrote for the direction at `path`.

    Raises:
        DataError: there is none, with what to do.
    """
    file = path.parent / f"{name}.safetensors"
    if not file.exists():
        raise DataError(f"{file}: no such file; this needs the whole folder that find_direction.py fit writes")
    return load_tensors(file)[0]
