"""Turns pairs of answers, or a judged table, and a model into a direction with its reliability: what a notebook calls first.

The command `find_direction.py fit` (`probes.fits.fit`) does the same, and more: a layer chosen by what steering does, pages, transfer.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emis_interp.directions import Direction
from emis_interp.errors import DataError, ModelError
from emis_interp.files.tables import is_table
from emis_interp.fitting.fitted import Fit, fit_texts
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.model import Model
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged, split_questions

if TYPE_CHECKING:
    import pandas as pd

CALL = 'ei.fit_direction("pairs.jsonl" or "judged.csv", model), or a list of ("question", "aligned", "misaligned")'


@dataclass(frozen=True, repr=False)
class FittedDirection(Direction):
    """A direction fitted on all questions, to be used on other texts; printing it gives its card in five lines.

    Attributes:
        found: all that fitting found: both fits, the curves over layers (`found.numbers`), controls, the activations.
    """

    found: Fit | None = None

    @property
    def selection_fit(self) -> Direction:
        """The same direction fitted on the selection questions alone, which every figure on the report questions is of."""
        assert self.found is not None
        return self.found.reported

    def save(self, path: Path | str, selection: Direction | None = None) -> None:
        """Write a folder as `find_direction.py fit` does: both fits, controls, pairs, all layers. Every verb takes it by name."""
        if self.found is None or selection is not None:
            super().save(Path(path), selection)
        else:
            self.found.save(Path(path))


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
    bars: Bars = no_bars,
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

    Raises:
        DataError: texts of another shape, or fewer than two questions with both classes in either half.
    """
    chat_model, system = (model.chat_model, model.system) if isinstance(model, Model) else (model, None)
    if not isinstance(chat_model, ChatModel):
        raise ModelError(f"fit_direction takes a model from ei.load, found {type(model).__name__}: {CALL}")
    labeled, selection, source = labeled_from(texts, max_per_class, seed)
    adapter = None if chat_model.adapter is None else str(chat_model.adapter)
    found = fit_texts(
        chat_model,
        labeled,
        selection,
        extractor=extractor,
        position=position,
        layer_range=layer_range,
        system=system,
        max_tokens=max_tokens,
        max_batch_tokens=max_batch_tokens,
        seed=seed,
        origin={
            "model": chat_model.name,
            "quantisation": chat_model.quantisation,
            "adapter": adapter,
            "texts": source,
        },
        bars=bars,
    )
    return FittedDirection(**{one.name: getattr(found.direction, one.name) for one in fields(Direction)}, found=found)


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
    return texts, split_questions(Counter(text.question_id for text in texts))[0], source
