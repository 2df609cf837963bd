"""Turns projections of the same texts on several directions (of any models, widths, layers) into how alike the directions are in use.

Directions of two models cannot be multiplied. What both say about the same texts can be compared: by ranks within a question, since a
question's mean is topic; and within a question and class, since two directions that both tell misaligned from aligned answers agree by
that alone.
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.names import METRICS, question_key
from emis_interp.files.tables import read_cells
from emis_interp.fitting.length_baseline import without_length
from emis_interp.process import Bars, no_bars
from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import FISHER, jackknife_interval
from emis_interp.stats.words import estimate
from emis_interp.texts.judged import MISALIGNED_BELOW, clearly_judged, read_table
from probes.settings import AlikeSettings

Values = Float[np.ndarray, " text"]


def run(settings: AlikeSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Every pair of projections, as `alike`; no model is loaded.

    Raises:
        DataError: a file of projections with another number of rows than the texts, or a cell that is no number.
    """
    if len(settings.projections) < 2 or len(set(settings.projections)) < len(settings.projections):
        raise ConfigError("--projections: give two or more different files that find_direction.py score wrote")
    judged = not settings.unlabelled
    frame = read_table(
        settings.texts, ("question", "answer", *(METRICS if judged else ())), reading=settings.reading(), use="compared"
    )
    questions = frame[question_key(list(frame.columns)) or "question"].astype(str).to_numpy()
    read = {path: projections_of(path, len(frame)) for path in settings.projections}
    classes = classes_of(frame["aligned"].to_numpy(), frame["coherent"].to_numpy()) if judged else None
    pairs = [
        {"one": str(one), "other": str(other), **alike(read[one], read[other], questions=questions, classes=classes)}
        for one, other in combinations(read, 2)
    ]
    return {"texts": str(settings.texts), "n_texts": len(frame), "n_questions": len(set(questions)), "pairs": pairs}


def alike(
    one: tuple[Values, Values],
    other: tuple[Values, Values],
    *,
    questions: np.ndarray,
    classes: np.ndarray | None = None,
) -> dict[str, Any]:
    """How alike two directions rank the same texts: correlations of ranks within groups (Spearman), jackknife intervals over questions.

    Args:
        one, other: projections and answer lengths (tokens of each model) of the texts.
        classes: class of each text, "" where it is neither clearly aligned nor clearly misaligned.

    Returns:
        `within_questions`: of ranks within each question. `without_length`: the same after what is linear in log length within questions is
        taken off both. `within_classes`: of ranks within each question and class, of texts that have one; None without classes.
    """
    flat = [without_length(values, lengths, questions.tolist()) for values, lengths in (one, other)]
    found = {
        "within_questions": rank_correlation(one[0], other[0], questions, questions=questions),
        "without_length": rank_correlation(flat[0], flat[1], questions, questions=questions),
    }
    rows: dict[str, Any] = {name: value.as_json("n", "n_questions") for name, value in found.items()}
    if classes is None:
        return {**rows, "within_classes": None}
    clear = classes != ""
    groups = np.array([f"{label}/{name}" for label, name in zip(classes[clear], questions[clear], strict=True)])
    inside = rank_correlation(one[0][clear], other[0][clear], groups, questions=questions[clear])
    return {**rows, "within_classes": inside.as_json("n", "n_questions")}


def rank_correlation(one: Values, other: Values, groups: np.ndarray, *, questions: np.ndarray) -> Interval:
    """Pearson correlation, over all texts, of ranks within groups, each group's centred at 0 and scaled to its size."""
    left, right = (ranks_within(values, groups) for values in (one, other))

    def statistic(keep: Bool[np.ndarray, " answer"]) -> float | None:
        x, y = left[keep], right[keep]
        size = float(np.sqrt((x @ x) * (y @ y)))
        return float(x @ y) / size if size > 0 else None

    return jackknife_interval(statistic, questions, FISHER)


def ranks_within(values: Values, groups: np.ndarray) -> Values:
    """Rank of each value in its group, from -0.5 to 0.5 (ties share theirs); 0 for a value that is alone."""
    ranks = np.zeros(len(values))
    for name in np.unique(groups):
        mine = groups == name
        ranks[mine] = (rankdata(values[mine]) - 0.5) / mine.sum() - 0.5
    return ranks


def classes_of(aligned: Values, coherent: Values) -> np.ndarray:
    """`misaligned`, `aligned`, or "" for what is neither clearly (`texts.judged`)."""
    names = np.where(aligned < MISALIGNED_BELOW, "misaligned", "aligned")
    return np.where(clearly_judged(aligned, coherent), names, "")


def projections_of(path: Path, n: int) -> tuple[Values, Values]:
    """Projections and lengths that `score` wrote for `n` texts."""
    table = read_cells(path, ("projection", "n_tokens"))
    if len(table) != n:
        raise DataError(
            f"{path}: {len(table)} projections of {n} texts; give what find_direction.py score wrote for these texts"
        )
    columns = []
    for column in ("projection", "n_tokens"):
        values = []
        for index, text in enumerate(table.text(column)):
            try:
                values.append(float(text))
            except ValueError:
                raise DataError(f"{table.where(index, column)}: `{text}` is no number") from None
        columns.append(np.array(values))
    return columns[0], columns[1]


def say(result: dict[str, Any]) -> str:
    lines = [
        f"{result['n_texts']} texts of {result['n_questions']} questions; correlations of ranks, 95 % over questions"
    ]
    for pair in result["pairs"]:
        lines.append(f"{pair['one']}  and  {pair['other']}")
        lines.append(f"  within questions          {estimate(pair['within_questions'], '.2f')}")
        lines.append(f"  without answer length     {estimate(pair['without_length'], '.2f')}")
        if (inside := pair["within_classes"]) is not None:
            lines.append(f"  within question and class {estimate(inside, '.2f')}, {inside['n']} clear texts")
    return "\n".join(lines)
