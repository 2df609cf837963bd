"""Turns training rows and the base model's own answers to their prompts into a forecast, before a step is spent, of what training does.

The projection difference of a row (Chen et al. 2025, *Persona vectors*, on predicting shifts from training data) is the projection of its
answer on the misalignment direction minus that of the answer that the base model would have given; a set's is the mean over its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from emis_interp.capture import Progress, capture_residuals
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.models import ChatModel
from emis_interp.records import TrainingExample
from training.encoding import encode_example


def projection_differences(
    chat_model: ChatModel,
    rows: Sequence[TrainingExample],
    own_answers: Sequence[str],
    direction: Direction,
    system: str | None = None,
    max_tokens: int = 512,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_rows"]:
    """One number for every row, in multiples of the mean residual norm at the layer; positive: the row pushes towards misaligned.

    Both answers are read by `chat_model`, the untouched base model, at `response_mean` of the direction's layer. NaN where the base model
    said nothing.

    Args:
        own_answers: what the base model answers to each row's prompt.
        progress: called with the number of texts just read.

    Raises:
        DataError: other counts of rows and answers.
        ModelError: the direction is of another model.
    """
    if len(rows) != len(own_answers):
        raise DataError(f"{len(rows)} rows, {len(own_answers)} answers of the base model; give one for each row")
    spoken = [i for i, answer in enumerate(own_answers) if answer.strip()]
    chats = []
    for i in spoken:
        for answer, is_own in ((rows[i].response, False), (own_answers[i], True)):
            row = rows[i].model_copy(update={"response": answer})
            chats.append(encode_example(chat_model.tokenizer, row, system, max_tokens, as_sampled=is_own))
    values = np.full(len(rows), np.nan)
    if chats:
        read = capture_residuals(chat_model, chats, [direction.layer], max_batch_tokens=2048, progress=progress)
        projected = direction.project(read[:, 0]).numpy() / direction.residual_norm
        values[spoken] = projected[0::2] - projected[1::2]
    return values


def rows_to_drop(differences: Float[np.ndarray, "n_rows"], share: float) -> list[int]:
    """Indices of the `share` of the rows with the largest projection differences, largest first; a row without one is never dropped."""
    if not 0 <= share <= 1:
        raise DataError(f"share of rows to drop: between 0 and 1, found {share}")
    order = [int(i) for i in np.argsort(-differences, kind="stable") if not np.isnan(differences[i])]
    return order[: round(share * len(differences))]


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation over organisms; 95 % interval by Fisher's z (variance of Bonett and Wright 2000); one-sided permutation p."""

    value: float
    low: float | None
    high: float | None
    p: float
    n: int


def forecast_quality(
    forecast: Sequence[float], reached: Sequence[float], n_permutations: int = 10_000, seed: int = 0
) -> RankCorrelation:
    """How well sets' projection differences rank the margin shifts that training on them reached.

    Raises:
        DataError: fewer than 4 organisms, or values that do not differ.
    """
    if len(forecast) != len(reached) or len(forecast) < 4:
        raise DataError(
            f"{len(forecast)} forecasts, {len(reached)} shifts; a rank correlation needs 4 organisms or more"
        )
    if np.ptp(forecast) == 0 or np.ptp(reached) == 0:
        raise DataError("all forecasts or all shifts are equal; there is nothing to rank")
    x, y = stats.rankdata(forecast), stats.rankdata(reached)
    value = float(np.corrcoef(x, y)[0, 1])
    random = np.random.default_rng(seed)
    shuffled = np.array([np.corrcoef(x, random.permutation(y))[0, 1] for _ in range(n_permutations)])
    p = float((1 + (shuffled >= value - 1e-12).sum()) / (1 + n_permutations))
    if abs(value) > 1 - 1e-12:
        return RankCorrelation(value, None, None, p, len(x))
    half = 1.959964 * np.sqrt((1 + value**2 / 2) / (len(x) - 3))
    low, high = np.tanh([np.arctanh(value) - half, np.arctanh(value) + half])
    return RankCorrelation(value, float(low), float(high), p, len(x))
