"""Turns what names texts into the labelled texts that a direction is fitted on or tested with, and says where they come from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError
from emis_interp.files.store import file_sha256
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged, split_questions
from probes.settings import TextSettings


def judged_texts(settings: TextSettings, path: Path) -> list[LabeledText]:
    """Coherent aligned and misaligned answers of a judged file, balanced within questions."""
    variant = None if settings.variant == "all" else settings.variant
    partial = settings.judged is not None and path != settings.judged
    frame = read_judged(path, variant, reading=replace(settings.reading(), partial=partial), use="taken")
    return balanced_texts(frame, settings.max_per_class, settings.seed)


def read_texts(settings: TextSettings) -> tuple[list[LabeledText], set[str], dict[str, Any]]:
    """Labelled texts, the questions of the selection half, and where they come from."""
    if settings.judged is not None:
        texts = judged_texts(settings, settings.judged)
        source = {
            "judged": str(settings.judged),
            "sha256": file_sha256(settings.judged),
            "variant": settings.variant,
            "max_per_class": settings.max_per_class,
            **settings.reading().as_card(),
        }
        return texts, split_questions(Counter(text.question_id for text in texts))[0], source
    path = settings.pairs
    pairs = load_contrast(path)
    selection = {pair.question_id for pair in pairs if pair.half == "selection"}
    source = {"pairs": "shipped"} if path is None else {"pairs": str(path), "sha256": file_sha256(path)}
    return labeled_texts(pairs), selection, source


def in_half(pairs: Sequence[ContrastPair], half: str) -> list[ContrastPair]:
    """The pairs of one half, to steer on.

    Raises:
        DataError: there are none.
    """
    found = [pair for pair in pairs if pair.half == half]
    if not found:
        raise DataError(
            f"no {half} question has a misaligned and an aligned answer to the same wording, so steering cannot be measured; give such "
            "texts, or --select auroc without --coefficients"
        )
    return found
