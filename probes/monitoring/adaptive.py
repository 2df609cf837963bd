"""Turns a scorer and a model into what steering against the scorer does: does its score fall while the model stays as it is?

At the scorer's own layer a linear score falls by exactly what is subtracted; the question there is whether the likelihood margin (what the
model prefers to say) moves with it. A score that falls while the margin stays is a monitor that can be silenced. In earlier layers the
fall is no matter of construction. Random vectors of the same length stand beside.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError, ModelError
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_with_norms
from emis_interp.passes.interventions import Steer, apply
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.probe_results import AdaptiveCell
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.jackknife import answers_mean
from probes.monitoring.conformal import maxima_of
from probes.monitoring.scorers import TokenScorer, direction_of
from probes.monitoring.watching import score_chats


def adaptive_check(
    scorer: TokenScorer,
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    *,
    questions: Sequence[str],
    pairs: Sequence[ContrastPair],
    coefficients: Sequence[float],
    layers: Sequence[int] | None = None,
    window: int = 1,
    threshold: float | None = None,
    n_random: int = 3,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    bars: Bars = no_bars,
) -> list[AdaptiveCell]:
    """One cell for each layer, coefficient and vector (the scorer's own, then random ones).

    Args:
        chats: misaligned texts, read again under each intervention; questions: their ids.
        pairs: for the margin; none of their questions may have had a part in the scorer.
        coefficients: positive; so many mean residual norms of the steered layer are taken off along the vector.
        layers: to steer at, none behind the scorer's; None: the scorer's own, and the one at half its depth.

    Raises:
        DataError: no texts, or a coefficient that is not positive.
        ModelError: a layer behind the scorer's, where its score cannot change.
    """
    if not len(chats) or not len(chats) == len(questions):
        raise DataError(
            f"{len(chats)} texts, {len(questions)} questions; the adaptive check reads some misaligned texts again"
        )
    if any(coefficient <= 0 for coefficient in coefficients):
        raise DataError(
            "coefficients of the adaptive check are positive: so much is taken off along the scorer's direction"
        )
    steered = list(dict.fromkeys([scorer.layer, scorer.layer // 2])) if layers is None else list(layers)
    chat_model.check_layers(steered)
    if late := [layer for layer in steered if layer > scorer.layer]:
        raise ModelError(
            f"layer {late[0]} lies behind the scorer's layer {scorer.layer}; steer at that one or before it"
        )
    means, norms = capture_with_norms(chat_model, chats, [*steered, scorer.layer], max_batch_tokens=max_batch_tokens)
    own = direction_of(scorer, means[:, -1])
    drawn = random_directions(n_random, 1, chat_model.d_model)[:, 0]
    vectors: list[tuple[str, int | None, Tensor]] = [("against the scorer", None, own)]
    vectors += [("random", seed, vector) for seed, vector in enumerate(drawn)]
    before = _measured(
        scorer, chat_model, chats, pairs=pairs, window=window, system=system, max_batch_tokens=max_batch_tokens
    )
    cells = []
    with bars("adaptive", len(steered) * len(coefficients) * len(vectors)) as advance:
        for index, layer in enumerate(steered):
            norm = float(norms[:, index].mean())
            for coefficient in coefficients:
                for name, seed, vector in vectors:
                    with apply(chat_model, Steer({layer: -coefficient * norm * vector})):
                        after = _measured(
                            scorer,
                            chat_model,
                            chats,
                            pairs=pairs,
                            window=window,
                            system=system,
                            max_batch_tokens=max_batch_tokens,
                        )
                    place = {"along": name, "seed": seed, "layer": layer, "coefficient": coefficient}
                    cells.append(_cell(before, after, questions, threshold=threshold, **place))
                    advance(1)
    return cells


Measured = tuple[Float[np.ndarray, " text"], dict[str, float]]


def _measured(
    scorer: TokenScorer,
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    *,
    pairs: Sequence[ContrastPair],
    window: int,
    system: str | None,
    max_batch_tokens: int,
) -> Measured:
    """Largest score of each text, and margins by question, of the model as it stands."""
    scores = score_chats(scorer, chat_model, chats, max_batch_tokens=max_batch_tokens)
    margins = pair_margins(chat_model, pairs, system, max_batch_tokens=max_batch_tokens)
    return maxima_of([one.answer for one in scores], window), by_question(pairs, margins)


def _cell(
    before: Measured, after: Measured, questions: Sequence[str], *, threshold: float | None, **place: object
) -> AdaptiveCell:
    score = answers_mean(after[0] - before[0], questions)
    margin = mean_interval(list(paired_difference(after[1], before[1]).values()))
    shares = [None if threshold is None else float((maxima > threshold).mean()) for maxima in (before[0], after[0])]
    return AdaptiveCell.model_validate(
        {
            **place,
            "n": len(questions),
            "score_shift": score.value,
            "score_low": score.low,
            "score_high": score.high,
            "flagged_before": shares[0],
            "flagged": shares[1],
            "margin_shift": margin.value,
            "margin_low": margin.low,
            "margin_high": margin.high,
            "n_questions": margin.n_questions,
        }
    )
