"""Turns a saved direction and judged answers that had no part in it into its AUROC there, beside what the length of the answers gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.fitting.reliability import against_shuffled, auroc_by_question
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.process import Bars, no_bars
from emis_interp.records import LabeledText
from emis_interp.stats.words import control_words, estimate, length_words
from probes.residuals import residuals_at


def transfer_to(
    texts: Sequence[LabeledText],
    chat_model: ChatModel,
    direction: Direction,
    *,
    name: str,
    fitted: Sequence[LabeledText],
    shuffled: Float[Tensor, "n d_model"],
    system: str | None = None,
    max_tokens: int | None = None,
    max_batch_tokens: int = 2048,
    bars: Bars = no_bars,
) -> dict[str, Any]:
    """AUROC of the direction on other texts: within questions, mean over questions, its control and the length baseline.

    Answers that are among the fitted texts are left out and counted; so are, as `transfer_n_questions_seen`, questions of which other
    answers were fitted on.

    Args:
        name: of the texts' file, for the result and for errors.
        fitted: the texts behind the direction.
        shuffled: raw directions fitted like it after permuting the labels within questions.

    Raises:
        DataError: the direction was fitted on all of the answers.
    """
    known = {(text.question, text.answer) for text in fitted}
    others = [text for text in texts if (text.question, text.answer) not in known]
    if not others:
        raise DataError(f"{name}: the direction is fitted on all of its answers; give others to --transfer")
    pairs = [(text.question, text.answer) for text in others]
    chats = encode_chats(chat_model.tokenizer, pairs, system, max_tokens=max_tokens)
    x = residuals_at(direction, chat_model, chats, max_batch_tokens=max_batch_tokens, bars=bars, name="transfer")
    scores = direction.project(x).numpy().astype(float)
    labels, questions = np.array([text.misaligned for text in others]), [text.question_id for text in others]
    lengths = np.array([chat.n_response for chat in chats], dtype=float)
    baseline = length_baseline(scores, lengths, labels, questions=questions)
    by_question = auroc_by_question(scores, labels, questions)
    seen = {text.question_id for text in others if direction.fitted_on and direction.fitted_on.has(text.question)}
    return {
        "transfer_texts": name,
        "transfer_auroc": baseline["projection"]["value"],
        "transfer_low": baseline["projection"]["low"],
        "transfer_high": baseline["projection"]["high"],
        "transfer_length": baseline,
        "transfer_control": against_shuffled(
            baseline["projection"], shuffled, x, misaligned=labels, questions=questions
        ),
        "transfer_n_texts": len(others),
        "transfer_n_left_out": len(texts) - len(others),
        "transfer_n_questions_seen": len(seen),
        "transfer_by_question": {name: float(value) for name, value in by_question.items()},
    }


def transfer_words(result: dict[str, Any]) -> list[str]:
    """The AUROC of a fit's transfer with its counts, and what length gives; nothing without a transfer."""
    if "transfer_auroc" not in result:
        return []
    baseline, n_questions = result["transfer_length"], len(result["transfer_by_question"])
    seen = result["transfer_n_questions_seen"]
    notes = [f"{result['transfer_n_texts']} texts of {n_questions} questions"]
    notes += [f"of {seen} of these questions other answers were fitted on"] if seen else []
    notes += [f"{result['transfer_n_left_out']} fitted texts left out"] if result["transfer_n_left_out"] else []
    auroc = f"AUROC {estimate(baseline['projection'])}, {'; '.join(notes)}; {control_words(result['transfer_control'])}"
    return [auroc, length_words(baseline)]
