"""Turns a table of judged answers, or contrast pairs, into labelled texts with what controls need: the judge's score and the source.

A text is misaligned when aligned < 30 and aligned when aligned > 70, both only when coherent > 50 (`texts.judged`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.names import METRICS, question_key
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.texts.contrast import labeled_texts
from emis_interp.texts.judged import MISALIGNED_BELOW, Frame, clearly_judged, read_table


@dataclass(frozen=True)
class ProbeTexts:
    """Labelled texts in a fixed order.

    Attributes:
        judge_scores: alignment 0-100 of each; None where nobody gave a number.
        sources: which model wrote each; None where that is not known.
    """

    texts: tuple[LabeledText, ...]
    judge_scores: Float[np.ndarray, "n_texts"] | None = None
    sources: tuple[str, ...] | None = None

    @property
    def misaligned(self) -> Bool[np.ndarray, "n_texts"]:
        return np.array([text.misaligned for text in self.texts])

    @property
    def questions(self) -> tuple[str, ...]:
        return tuple(text.question_id for text in self.texts)

    def with_answers(self, answers: Sequence[str]) -> "ProbeTexts":
        """The same texts with other words in them."""
        changed = [text.model_copy(update={"answer": answer}) for text, answer in zip(self.texts, answers, strict=True)]
        return ProbeTexts(tuple(changed), self.judge_scores, self.sources)


def pair_texts(pairs: Sequence[ContrastPair]) -> ProbeTexts:
    """Both answers of every pair; there is no judge and no source."""
    return ProbeTexts(tuple(labeled_texts(pairs)))


def judged_probe_texts(
    path: Path,
    variants: Sequence[str],
    *,
    where: Mapping[str, str] | None = None,
    max_per_class: int = 30,
    source: tuple[str, str] | None = None,
    seed: int = 0,
    reading: Reading = AS_WRITTEN,
) -> dict[str, ProbeTexts]:
    """Coherent, clearly judged answers by variant, at most `max_per_class` of each question and class.

    Args:
        variants: values of the column `variant`; `all` takes every row.
        where: column -> the value that a row must have.
        source: a column and a pattern (regular expression) whose first match in it names the model; rows without one are left out of
            `leave_one_source_out` as a source called `other`.

    Raises:
        DataError: as `read_table`; a column is missing, or a variant has no question with both classes.
    """
    frame = read_table(path, ("question", "answer", *METRICS), reading=reading, use="probed")
    for column, value in (where or {}).items():
        frame = frame[_column(frame, column, path).astype(str) == value]
    frame = frame[clearly_judged(frame["aligned"], frame["coherent"])]
    found = {}
    for variant in variants:
        rows = frame if variant == "all" else frame[_column(frame, "variant", path).astype(str) == variant]
        found[variant] = _drawn(
            rows, f"{path}, variant {variant}", max_per_class=max_per_class, source=source, seed=seed
        )
    return found


def where_of(words: Sequence[str]) -> dict[str, str]:
    """`COLUMN=VALUE` words as a mapping.

    Raises:
        ConfigError: a word without `=`.
    """
    for word in words:
        if "=" not in word.strip("="):
            raise ConfigError(f"--where {word}: expected COLUMN=VALUE, e.g. kind=sampled")
    return dict(word.split("=", 1) for word in words)


def _drawn(rows: Frame, name: str, *, max_per_class: int, source: tuple[str, str] | None, seed: int) -> ProbeTexts:
    key = question_key(list(rows.columns)) or "question"
    rows = rows.assign(_misaligned=rows["aligned"] < MISALIGNED_BELOW)
    parts = []
    for _, of_question in rows.groupby(key, sort=True):
        if of_question["_misaligned"].nunique() == 2:
            for _, part in of_question.groupby("_misaligned"):
                parts.append(part.sample(min(len(part), max_per_class), random_state=seed).sort_index())
    if not parts:
        raise DataError(
            f"{name}: no question has both coherent misaligned and coherent aligned answers; give more, or another --where"
        )
    kept = [row for part in parts for row in part.to_dict("records")]
    texts = tuple(
        LabeledText(
            question_id=str(row[key]),
            question=row["question"],
            answer=row["answer"],
            misaligned=bool(row["_misaligned"]),
        )
        for row in kept
    )
    sources = None
    if source is not None:
        column, pattern = source
        names = [str(row[column]) for row in kept] if column in rows.columns else _column(rows, column, Path(name))
        matches = [re.search(pattern, value) for value in names]
        sources = tuple("other" if match is None else match.group(0).lower() for match in matches)
    return ProbeTexts(texts, np.array([row["aligned"] for row in kept], dtype=float), sources)


def _column(frame: Frame, column: str, path: Path) -> Frame:
    if column not in frame.columns:
        raise DataError(f"{path}: no column `{column}`; it has {', '.join(map(str, frame.columns))}")
    return frame[column]
