"""Turns training rows and the base model's own answers to their prompts into a forecast, before a step is spent, of what training does.

The projection difference of a row (Chen et al. 2025, *Persona vectors*, on predicting shifts from training data) is the projection of its
answer on the misalignment direction minus that of the answer that the base model would have given; a set's is the mean over its rows.
`forecast_quality` says how well forecasts rank what training reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import Progress, capture_residuals
from emis_interp.records import TrainingExample
from training.finetuning.encoding import encode_example

RELATED_SHARE = 0.05


def projection_differences(
    chat_model: ChatModel,
    rows: Sequence[TrainingExample],
    own_answers: Sequence[str],
    *,
    direction: Direction,
    system: str | None = None,
    max_tokens: int = 512,
    answer_tokens: int | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_rows"]:
    """One number for every row, in multiples of the mean residual norm at the layer; positive: the row pushes towards misaligned.

    Both answers are read by `chat_model`, the untouched base model, at `response_mean` of the direction's layer. NaN where the base model
    said nothing.

    Args:
        own_answers: what the base model answers to each row's prompt.
        max_tokens: of prompt and answer together.
        answer_tokens: limit under which the own answers were sampled; the rows' answers are read up to the same token, since the mean over
            a long answer is another quantity than that over the beginning of it. None: both as long as they are.
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
            chat = encode_example(chat_model.tokenizer, row, system, max_tokens=max_tokens, as_sampled=is_own)
            chats.append(_beginning(chat, answer_tokens))
    values = np.full(len(rows), np.nan)
    if chats:
        read = capture_residuals(chat_model, chats, [direction.layer], max_batch_tokens=2048, progress=progress)
        projected = direction.project(read[:, 0]).numpy() / direction.residual_norm
        values[spoken] = projected[0::2] - projected[1::2]
    return values


def _beginning(chat: EncodedChat, n_tokens: int | None) -> EncodedChat:
    """The conversation up to the answer's token number `n_tokens`."""
    if n_tokens is None or chat.n_response <= n_tokens:
        return chat
    end = chat.response_start + n_tokens
    return replace(chat, input_ids=chat.input_ids[:end], response_end=end)


def rows_to_drop(differences: Float[np.ndarray, "n_rows"], share: float) -> list[int]:
    """Indices of the `share` of the rows with the largest projection differences, largest first; a row without one is never dropped."""
    if not 0 <= share <= 1:
        raise DataError(f"share of rows to drop: between 0 and 1, found {share}")
    order = [int(i) for i in np.argsort(-differences, kind="stable") if not np.isnan(differences[i])]
    return order[: round(share * len(differences))]


def random_drops(
    differences: Float[np.ndarray, "n_rows"], n_dropped: int, n_draws: int, *, seed: int = 0
) -> list[list[int]]:
    """`n_draws` random sets of rows to drop instead, of the rows that could have been marked (those with a projection difference).

    A longer list begins with the shorter one.

    Raises:
        DataError: fewer than 2 draws, from which nothing can be told.
    """
    if n_draws < 2:
        raise DataError(f"{n_draws} random draws asked for; give 2 or more, since one draw says nothing about another")
    known = np.flatnonzero(~np.isnan(differences))
    return [
        sorted(np.random.default_rng([seed, draw]).permutation(known)[:n_dropped].tolist()) for draw in range(n_draws)
    ]


def related_sets(sets: Mapping[str, Sequence[TrainingExample]], share: float = RELATED_SHARE) -> dict[str, str]:
    """Name of a training set -> name of its group, which is that of the group's first set.

    Two sets are related when they have at least `share` of the prompts, or of the answers, of the smaller one in common (a set and its
    matched control, a mixture and what it is made of, the same rows under a system prompt), and so are sets that are related to a third.
    """
    group = {name: name for name in sets}
    texts = {name: [{row.prompt for row in rows}, {row.response for row in rows}] for name, rows in sets.items()}
    names = list(sets)
    for i, second in enumerate(names):
        for first in names[:i]:
            pairs = zip(texts[first], texts[second], strict=True)
            if any(len(a & b) >= share * min(len(a), len(b)) > 0 for a, b in pairs):
                joined, into = sorted((group[first], group[second]), key=names.index, reverse=True)
                group = {name: into if own == joined else own for name, own in group.items()}
    return group
