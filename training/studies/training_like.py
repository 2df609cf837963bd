"""Turns contrast pairs and training rows into the pairs as they read in a training-like context: behind one row of the training data.

A remedy can leave an organism clean on plain questions that is not clean in contexts which resemble its training data (conditional
misalignment, Dubinski et al. 2026). Here the context is one training row, user and assistant, as an earlier turn.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import by_question, margins_of, mean_logprobs, pair_chats
from emis_interp.records import ContrastPair, TrainingExample

log = logging.getLogger(__name__)


def chats_behind_rows(
    chat_model: ChatModel, pairs: Sequence[ContrastPair], rows: Sequence[TrainingExample], *, system: str | None
) -> list[EncodedChat]:
    """`pair_chats` with one row before every question: the i-th question has row i, from the first one again where rows are fewer.

    So the draw of rows is within the draw of questions, and an interval over questions covers both. A row's own system prompt is left out.

    Raises:
        DataError: the chat template drops earlier turns, or row and pair are longer than the model's context.
    """
    questions = list(dict.fromkeys(pair.question_id for pair in pairs))
    shown: dict[str, ChatModel] = {}
    for i, question in enumerate(questions):
        row = rows[i % len(rows)].model_copy(update={"system": None})
        shown[question] = replace(chat_model, tokenizer=with_examples(chat_model.tokenizer, [row]))
    return [chat for pair in pairs for chat in pair_chats(shown[pair.question_id], [pair], system)]


def chats_or_why(
    chat_model: ChatModel, pairs: Sequence[ContrastPair], rows: Sequence[TrainingExample], *, system: str | None
) -> tuple[list[EncodedChat] | None, str | None]:
    """`chats_behind_rows`, or why this model cannot read them: its template drops earlier turns, or its context is too short."""
    try:
        return chats_behind_rows(chat_model, pairs, rows, system=system), None
    except DataError as error:
        log.warning("no margin in training-like contexts: %s", error)
        return None, str(error)


def context_margins(
    chat_model: ChatModel, pairs: Sequence[ContrastPair], chats: Sequence[EncodedChat], *, config: RunConfig
) -> dict[str, float]:
    """Likelihood margin of every question in its context, nats per token.

    Args:
        chats: `chats_behind_rows` of these pairs.
    """
    found = mean_logprobs(chat_model, chats, config.direction.max_batch_tokens)
    return by_question(pairs, margins_of(found))
