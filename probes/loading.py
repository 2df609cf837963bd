"""Turns what names a saved direction into the model that it is of, and its pairs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emis_interp.directions import Direction, direction_file
from emis_interp.errors import DataError
from emis_interp.files.store import file_sha256, read_records
from emis_interp.fitting.fitted import PAIRS_FILE
from emis_interp.fitting.folder import beside
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.rendering import both
from emis_interp.models.spec import ModelSpec
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import at_most, load_contrast
from probes.settings import DirectionSettings, PairSettings

log = logging.getLogger(__name__)


def model_of(direction: Direction, settings: DirectionSettings) -> ChatModel:
    """The model of `model` and `adapter`, otherwise the one on the card; an adapter is merged.

    Another rendering of prompts than that of the card is said: the direction was read behind other words.

    Raises:
        DataError: neither the settings nor the card name a model.
    """
    return model_on(direction.card, settings)


def model_on(card: Mapping[str, Any], settings: DirectionSettings) -> ChatModel:
    """`model_of`, from the card alone: of anything that was saved beside one."""
    name = settings.model or card.get("model")
    if name is None:
        raise DataError(f"{settings.direction}: its card names no model; give --model")
    chat_model = ModelSpec(
        name,
        settings.adapter or card.get("adapter") or None,
        settings.dtype or card.get("dtype", "float32"),
        settings.device,
        chat_format=settings.chat_format or card.get("chat_format"),
    ).load()
    fitted, now = card.get("rendering"), template_of(chat_model.tokenizer).card
    if fitted is not None and fitted["sha256"] != now["sha256"]:
        one, other = both(fitted["prompt"], now["prompt"])
        log.warning("%s: was fitted on prompts rendered as %s, here they are %s", settings.direction, one, other)
    return chat_model


def pairs_of(direction: Direction, settings: PairSettings, *halves: str) -> list[ContrastPair]:
    """At most `n_pairs` pairs per question of some halves: those of `pairs`, otherwise those of the direction's own texts.

    `direction` is the fit to be reported; no question of the report half may have had a part in it.

    Raises:
        DataError: the direction has no pairs of its own or others lie there, it was fitted on a report question, or a half is empty.
    """
    pairs = own_pairs(direction, settings.direction) if settings.pairs is None else load_contrast(settings.pairs)
    pairs = at_most([pair for pair in pairs if pair.half in halves], settings.n_pairs)
    for half in halves:
        if not any(pair.half == half for pair in pairs):
            source = settings.pairs or settings.direction
            raise DataError(f"{source}: no pairs of {half} questions; give --pairs with such questions")
    direction.check_unseen(pair.question for pair in pairs if pair.half == "report")
    return pairs


def own_pairs(direction: Direction, path: Path) -> list[ContrastPair]:
    """What `fit` kept of the texts that the direction at `path` was fitted on.

    Raises:
        DataError: it kept none, or the file is no longer the one that it wrote.
    """
    file, described = beside(path, PAIRS_FILE), direction.card.get("pairs")
    if described is None:
        raise DataError(
            f"{path}: its texts hold no misaligned and aligned answer to the same wording, or it was not saved by fit; give --pairs FILE"
        )
    if not file.exists() or file_sha256(file) != described["sha256"]:
        raise DataError(
            f"{file}: not the pairs that fit wrote beside {direction_file(path)}; fit again, or give --pairs FILE"
        )
    return read_records(file, ContrastPair)
