"""Turns pairs of answers, or a judged table, and a model into a direction with its reliability: what a notebook calls first.

`probes.fit` does more (a layer chosen by what steering does, pages, transfer) on the same parts.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emis_interp.directions import Direction, FittedOn, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.files.tables import is_table
from emis_interp.fitting.extractors import extractor_named
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability_card import reliability_card
from emis_interp.fitting.selection import find_direction
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.passes.capture import Progress, capture_with_norms
from emis_interp.passes.model import Model
from emis_interp.passes.positions import POSITIONS
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged, split_questions

if TYPE_CHECKING:
    import pandas as pd

CALL = 'ei.fit_direction("pairs.jsonl" or "judged.csv", model), or a list of ("question", "aligned", "misaligned")'
N_DRAWS = 100
"""Of split halves, bootstrap and label permutations."""


@dataclass(frozen=True, repr=False)
class FittedDirection(Direction):
    """A direction fitted on all questions, to be used on other texts; printing it gives its card in five lines.

    Attributes:
        selection_fit: the same direction fitted on the selection questions alone, which the report figures are of.
        numbers: AUROC, controls and norms of every layer, as in `analysis/direction.json`.
    """

    selection_fit: Direction | None = None
    numbers: dict[str, Any] | None = None

    def save(self, path: Path | str, selection: Direction | None = None) -> None:
        """Write both fits; `Direction.load(path)` gives back this one, `load(path, fit="selection")` the other."""
        plain = Direction(
            self.vector, self.layer, self.raw_norm, self.residual_norm, self.position, self.card, self.fitted_on
        )
        plain.save(Path(path), selection or self.selection_fit)


def fit_direction(
    texts: "str | Path | pd.DataFrame | Sequence[Any]",
    model: Model | ChatModel,
    *,
    extractor: str = "question_balanced",
    position: str = "response_mean",
    layer_range: tuple[float, float] = (0.2, 0.8),
    max_per_class: int = 150,
    max_tokens: int = 512,
    max_batch_tokens: int = 2048,
    seed: int = 0,
    progress: Progress | None = None,
) -> FittedDirection:
    """Fit the direction from aligned to misaligned answers. The layer is chosen on one half of the questions, and reported on the other.

    Args:
        texts: JSONL of contrast pairs, a table of judged answers (question, answer, aligned, coherent), a DataFrame of such a table, a
            list of `ContrastPair` or `LabeledText`, or of (question, aligned answer, misaligned answer).
        model: from `ei.load`, or a `ChatModel`.
        extractor: a key of `fitting.extractors.EXTRACTORS`.
        position: which tokens of a text are averaged (a key of `passes.positions.POSITIONS`).
        layer_range: fractions of depth within which the layer is chosen.
        max_per_class: of a judged table, texts of each question and class.
        max_tokens: longer conversations are cut.
        progress: called with the number of texts just read.

    Raises:
        DataError: texts of another shape, or fewer than two questions with both classes in either half.
    """
    chat_model, system = (model.chat_model, model.system) if isinstance(model, Model) else (model, None)
    if not isinstance(chat_model, ChatModel):
        raise ModelError(f"fit_direction takes a model from ei.load, found {type(model).__name__}: {CALL}")
    if position not in POSITIONS:
        raise DataError(f"unknown position `{position}`; known: {', '.join(POSITIONS)}")
    labeled, selection, source = labeled_from(texts, max_per_class, seed)
    chats = encode_chats(
        chat_model.tokenizer, [(text.question, text.answer) for text in labeled], system, max_tokens=max_tokens
    )
    x, norms = capture_with_norms(
        chat_model, chats, position=position, max_batch_tokens=max_batch_tokens, progress=progress
    )
    data = LabeledActivations(
        x,
        np.array([text.misaligned for text in labeled]),
        tuple(text.question_id for text in labeled),
        np.array([chat.n_response for chat in chats], dtype=float),
    )
    own = extractor_named(extractor)
    found = find_direction(
        data.only(selection),
        data.only(set(data.questions) - selection),
        norms.mean(0),
        layer_range=layer_range,
        n_permutations=N_DRAWS,
        seed=seed,
        position=position,
        extractor=own,
    )
    layer = found.direction.layer
    raw = own(data.at([layer]))[0]
    half = [text for text in labeled if text.question_id in selection]
    card = {
        "model": chat_model.name,
        "adapter": None if chat_model.adapter is None else str(chat_model.adapter),
        "dtype": chat_model.dtype,
        "rendering": template_of(chat_model.tokenizer).card,
        "system_prompt": system,
        "n_layers": chat_model.n_layers,
        "texts": source,
        "n_misaligned": int(data.misaligned.sum()),
        "n_aligned": int((~data.misaligned).sum()),
        "n_questions": len(set(data.questions)),
        "extractor": extractor,
        "reliability": reliability_card(data, layer, extractor=own, n_draws=N_DRAWS, seed=seed),
        **found.direction.card,
    }
    return FittedDirection(
        unit(raw),
        layer,
        float(raw.norm()),
        found.direction.residual_norm,
        position,
        card,
        FittedOn.of(labeled),
        selection_fit=replace(found.direction, fitted_on=FittedOn.of(half)),
        numbers=found.numbers,
    )


def labeled_from(texts: Any, max_per_class: int, seed: int) -> tuple[list[LabeledText], set[str], dict[str, Any]]:
    """Labelled texts, the questions of the selection half, and where they come from."""
    if isinstance(texts, str | Path):
        path = Path(texts)
        if path.suffix == ".jsonl" and not _is_judged(path):
            return _of_pairs(load_contrast(path), {"pairs": str(path)})
        if not is_table(path):
            raise DataError(f"{path}: neither a file of contrast pairs (.jsonl) nor a table of judged answers: {CALL}")
        return _of_labeled(balanced_texts(read_judged(path, use="taken"), max_per_class, seed), {"judged": str(path)})
    if hasattr(texts, "to_parquet"):
        return _of_labeled(balanced_texts(_judged(texts), max_per_class, seed), {"judged": "a DataFrame"})
    items = list(texts)
    if items and all(isinstance(item, LabeledText) for item in items):
        return _of_labeled(items, {"texts": "given"})
    if items and all(isinstance(item, ContrastPair) for item in items):
        return _of_pairs(items, {"pairs": "given"})
    pairs = [_pair(item, i) for i, item in enumerate(items)]
    chosen = split_questions({pair.question_id: 1 for pair in pairs})[0]
    halved = [pair.model_copy(update={"half": "selection"}) if pair.question_id in chosen else pair for pair in pairs]
    return _of_pairs(halved, {"pairs": "given"})


def _judged(frame: Any) -> Any:
    """A DataFrame of judged answers, read by the rules of a file of them (scales, arms, empty cells)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        frame.to_parquet(path)
        try:
            return read_judged(path, use="taken")
        except DataError as error:
            raise DataError(str(error).replace(str(path), "the DataFrame")) from None


def _is_judged(path: Path) -> bool:
    """Whether the first line of a JSONL has an answer rather than two."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return '"misaligned"' not in file.readline()


def _pair(item: Any, i: int) -> ContrastPair:
    """A (question, aligned, misaligned) as a pair of the report half; the question is its own id."""
    if not isinstance(item, tuple | list) or len(item) != 3 or not all(isinstance(part, str) for part in item):
        raise DataError(f"item {i} is no pair of answers to a question ({str(item)[:60]!r}): {CALL}")
    question, aligned, misaligned = item
    return ContrastPair(
        question_id=question, group="given", half="report", question=question, aligned=aligned, misaligned=misaligned
    )


def _of_pairs(pairs: list[ContrastPair], source: dict[str, Any]) -> tuple[list[LabeledText], set[str], dict[str, Any]]:
    return labeled_texts(pairs), {pair.question_id for pair in pairs if pair.half == "selection"}, source


def _of_labeled(texts: list[LabeledText], source: dict[str, Any]) -> tuple[list[LabeledText], set[str], dict[str, Any]]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text.question_id] = counts.get(text.question_id, 0) + 1
    return texts, split_questions(counts)[0], source
