"""The model that a verb works on: named by flags, or by the card of a saved direction."""

import argparse
import logging
from pathlib import Path

from emis_interp.chat_formats import FORMATS
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.models import ChatModel, load_model
from emis_interp.models.chat_template import template_of
from emis_interp.models.rendering import both

log = logging.getLogger(__name__)


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
