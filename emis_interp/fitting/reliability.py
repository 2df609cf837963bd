"""Turns labelled activations into statements about how far a direction can be trusted: held-out AUROC, split halves, nulls.

Everything is per layer; AUROC is the chance that a misaligned text projects higher than an aligned text of the same question,
averaged over questions, so that topics cannot help.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from emis_interp.directions import cosine, unit
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import Extractor, question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.stats.jackknife import between, groups_mean
from emis_interp.stats.permutation import NullP, null_p

log = logging.getLogger(__name__)

SATURATED = 0.995
"""AUROC from which on classes are so far apart that even a direction fitted on permuted labels may separate them."""


def auroc_by_question(
    scores: Float[np.ndarray, "*batch n_texts"], misaligned: Bool[np.ndarray, "n_texts"], questions: Sequence[str]
) -> dict[str, Float[np.ndarray, "*batch"]]:
    """AUROC inside each question that has both classes (ties count half)."""
    names, result = np.asarray(questions), {}
    for question in dict.fromkeys(questions):
        rows = np.flatnonzero(names == question)
        positive = misaligned[rows]
        n_positive, n_negative = int(positive.sum()), int((~positive).sum())
        if n_positive and n_negative:
            ranks = rankdata(scores[..., rows], axis=-1)
            result[question] = (ranks[..., positive].sum(-1) - n_positive * (n_positive + 1) / 2) / (
                n_positive * n_negative
            )
    if not result:
        raise DataError("no question has both a misaligned and an aligned answer, so no AUROC can be stated")
    return result


def mean_auroc(
    scores: Float[np.ndarray, "*batch n_texts"], misaligned: Bool[np.ndarray, "n_texts"], questions: Sequence[str]
) -> Float[np.ndarray, "*batch"]:
    """`auroc_by_question` averaged over questions."""
    return np.mean(list(auroc_by_question(scores, misaligned, questions).values()), axis=0)


def auroc_estimate(by_question: Mapping[str, Any]) -> dict[str, Any]:
    """Mean of within-question AUROCs (a number each) with its 95 % interval over the draw of questions.

    Every interval of an AUROC in this project is made here. Bounds are None where the questions cannot give one: fewer than two, or
    all with the same value.
    """
    found = groups_mean(np.array([float(value) for value in by_question.values()]), between(0, 1))
    return {
        "value": None if not by_question else found.value,
        "low": found.low,
        "high": found.high,
        "n_questions": len(by_question),
    }


def auroc_verdict(
    estimate: Mapping[str, Any], shuffled: NullP, longer: NullP | None = None, *, level: float = 0.05
) -> str:
    """What an AUROC shows, in words that take the shuffled-label control into account.

    Args:
        estimate: `value`, `low` and `high` as from `auroc_estimate`.
        shuffled: of the AUROCs along directions that were fitted on labels permuted within questions. They lie along natural variation of
            texts, which separates some classes by chance far better than isotropic directions do.
        longer: of the norms of the same directions before they are made unit; it decides where the AUROC is 1 and cannot.
    """
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    told = shuffled.value <= level
    control = "above shuffled labels" if told else "not told from shuffled labels"
    if not told and value >= SATURATED and longer is not None and longer.value <= level:
        told, control = True, "longer than shuffled labels' directions, which separate as well"
    if low is None:
        return f"no interval, {control}"
    if low <= 0.5 <= high:
        return "not told from chance"
    if value < 0.5:
        return "below chance: the direction points the other way on these questions"
    return f"above chance {'and' if told else 'but'} {control}"


def against_shuffled(
    estimate: Mapping[str, Any],
    shuffled: Float[Tensor, "n d_model"],
    x: Float[Tensor, "n_texts d_model"],
    *,
    misaligned: Bool[np.ndarray, "n_texts"],
    questions: Sequence[str],
) -> dict[str, Any]:
    """The control of an AUROC on these texts, with the verdict: AUROCs along directions fitted like the tested one after permuting
    the labels within questions.

    Args:
        estimate: of the tested direction on the same texts (`auroc_estimate`).

    Returns:
        `shuffled_auroc` (mean), `shuffled_high` (97.5th percentile), `shuffled_p` with `shuffled_p_at_floor` and `shuffled_p_n`, `verdict`.
    """
    null = mean_auroc((x.float() @ shuffled.float().T).T.numpy(), misaligned, questions)
    p = null_p(null, estimate["value"])
    return {
        "shuffled_auroc": float(null.mean()),
        "shuffled_high": float(np.percentile(null, 97.5)),
        **{f"shuffled_{key}": value for key, value in p.as_json().items()},
        "verdict": auroc_verdict(estimate, p),
    }


def direction_auroc(
    directions: Float[Tensor, "*batch n_layers d_model"], data: LabeledActivations
) -> Float[np.ndarray, "*batch n_layers"]:
    """Mean within-question AUROC of each layer's direction on texts that it was not fitted on."""
    return mean_auroc(project(directions, data.x), data.misaligned, data.questions)


def project(
    directions: Float[Tensor, "*batch n_layers d_model"], x: Float[Tensor, "n_texts n_layers d_model"]
) -> Float[np.ndarray, "*batch n_layers n_texts"]:
    return torch.einsum("...ld,nld->...ln", directions.float(), x.float()).numpy()


def leave_one_question_out(
    data: LabeledActivations, extractor: Extractor = question_balanced
) -> dict[str, Float[np.ndarray, "n_layers"]]:
    """For each question with both classes, the AUROC of the direction fitted on the other questions.

    Raises:
        DataError: fewer than two questions have both classes.
    """
    if len(data.cells) < 2:
        raise DataError("leave-one-question-out needs at least two questions with both classes")
    return {name: direction_auroc(extractor(data.without(name)), data.only({name})) for name in data.cells}


def held_out_scores(
    data: LabeledActivations, extractor: Extractor = question_balanced
) -> tuple[LabeledActivations, Float[np.ndarray, "n_layers n_kept"]]:
    """The texts of questions with both classes, and their projection along the unit direction fitted on the other questions."""
    parts = {name: np.flatnonzero(np.asarray(data.questions) == name) for name in data.cells}
    scores = [project(unit(extractor(data.without(name))), data.rows(rows).x) for name, rows in parts.items()]
    return data.rows(np.concatenate(list(parts.values()))), np.concatenate(scores, axis=-1)


def leave_one_question_out_auroc(
    data: LabeledActivations, extractor: Extractor = question_balanced
) -> Float[np.ndarray, "n_layers"]:
    """`leave_one_question_out` averaged over questions."""
    return np.mean(list(leave_one_question_out(data, extractor).values()), axis=0)


def split_half_cosine(
    data: LabeledActivations, n_splits: int = 50, seed: int = 0, *, extractor: Extractor = question_balanced
) -> Float[np.ndarray, "n_splits n_layers"]:
    """Cosine between directions fitted on two random halves of the questions (of the texts, when fewer than four have both classes).

    Raises:
        DataError: fewer than four questions, none of which has two texts of each class.
    """
    generator = np.random.default_rng(seed)
    units = np.array(list(data.cells))
    if len(units) < 4 and not any(len(a) > 1 and len(b) > 1 for a, b in data.cells.values()):
        raise DataError(
            f"{len(units)} question{'s' * (len(units) > 1)} with one misaligned and one aligned answer cannot be split into two halves; "
            "give at least four questions in each of the selection and report halves, or two pairs of answers to a question"
        )
    cosines = []
    for _ in range(n_splits):
        if len(units) >= 4:
            first = set(generator.permutation(units)[: len(units) // 2])
            halves = [data.only(first), data.only(set(units) - first)]
        else:
            mask = stratified_half(data, generator)
            halves = [data.rows(np.flatnonzero(mask)), data.rows(np.flatnonzero(~mask))]
        cosines.append(cosine(extractor(halves[0]), extractor(halves[1])).numpy())
    return np.array(cosines)


def stratified_half(data: LabeledActivations, generator: np.random.Generator) -> Bool[np.ndarray, "n_texts"]:
    """A random half of the texts of each (question, class)."""
    mask = np.zeros(len(data.questions), dtype=bool)
    names = np.asarray(data.questions)
    for question in dict.fromkeys(data.questions):
        for label in (True, False):
            rows = np.flatnonzero((names == question) & (data.misaligned == label))
            mask[generator.permutation(rows)[: len(rows) // 2]] = True
    return mask


def shuffled_directions(
    data: LabeledActivations, n: int, seed: int = 0, *, extractor: Extractor = question_balanced
) -> Float[Tensor, "n n_layers d_model"]:
    """Directions fitted after permuting the labels within each question: what the extractor finds where there is nothing."""
    generator = np.random.default_rng(seed)
    names = np.asarray(data.questions)
    results = []
    for _ in range(n):
        labels = data.misaligned.copy()
        for question in dict.fromkeys(data.questions):
            rows = np.flatnonzero(names == question)
            labels[rows] = generator.permutation(labels[rows])
        results.append(extractor(LabeledActivations(data.x, labels, data.questions)))
    return torch.stack(results)


def bootstrap_directions(
    data: LabeledActivations, n_bootstrap: int = 200, seed: int = 0
) -> Float[Tensor, "n_bootstrap n_layers d_model"]:
    """Question-balanced directions of texts drawn with replacement: questions first, then texts of each class within a question.

    The direction is linear in the texts, so a draw is a vector of weights and all draws are one matrix product.
    """
    generator = np.random.default_rng(seed)
    cells = list(data.cells.values())
    weights = np.zeros((n_bootstrap, len(data.questions)), dtype=np.float32)
    for draw in weights:
        for index in generator.integers(len(cells), size=len(cells)):
            for rows, sign in zip(cells[index], (1, -1), strict=True):
                np.add.at(draw, generator.choice(rows, size=len(rows)), sign / (len(cells) * len(rows)))
    return torch.einsum("bn,nld->bld", torch.from_numpy(weights), data.x.float())


def random_directions(n: int, n_layers: int, d_model: int, *, seed: int = 0) -> Float[Tensor, "n n_layers d_model"]:
    """Isotropic random unit vectors."""
    return unit(torch.randn(n, n_layers, d_model, generator=torch.Generator().manual_seed(seed)))


def control_directions(
    data: LabeledActivations,
    direction: Float[Tensor, "d_model"],
    n: int,
    *,
    seed: int = 0,
    extractor: Extractor = question_balanced,
) -> dict[str, Float[Tensor, "n d_model"]]:
    """Three kinds of unit vectors that an intervention along `direction` must beat; `data` holds one layer.

    `random`: isotropic. `shuffled`: the extractor after permuting the labels within questions. `orthogonal`: differences of two texts
    of one question and one class, made orthogonal to the direction: as large a part of natural variation as texts have, and none of
    it along the direction; this kind is left out, with a warning, where no question has two texts of one class.
    """
    generator = np.random.default_rng(seed)
    cells = [rows for pair in data.cells.values() for rows in pair if len(rows) > 1]
    along = unit(direction.float())
    found = {
        "random": random_directions(n, 1, len(along), seed=seed)[:, 0],
        "shuffled": unit(shuffled_directions(data, n, seed, extractor=extractor)[:, 0]),
    }
    if not cells:
        log.warning("no orthogonal controls: they need a question with two texts of one class; give more texts")
        return found
    differences = []
    for index in generator.integers(len(cells), size=n):
        first, second = generator.choice(cells[index], size=2, replace=False)
        differences.append(data.x[first, 0] - data.x[second, 0])
    natural = torch.stack(differences)
    return {**found, "orthogonal": unit(natural - (natural @ along)[:, None] * along)}
