"""Turns a chosen probe into the controls that it must beat on the same test texts: other labels, other directions, other readers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc, random_directions, shuffled_directions
from probes.classifiers.aggregation import aggregation_named
from probes.classifiers.choosing import ChosenProbe
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.splits import ProbeSplit
from probes.classifiers.text_baseline import text_scorer
from probes.classifiers.unrelated import as_weights, turned


@dataclass(frozen=True)
class ControlScores:
    """Scores of the test rows: `single` one each, `draws` `[n_draws, n_rows]` of a null."""

    single: dict[str, Float[np.ndarray, "n_rows"]] = field(default_factory=dict)
    draws: dict[str, Float[np.ndarray, "n_draws n_rows"]] = field(default_factory=dict)


def control_scores(
    corpus: ProbeCorpus,
    split: ProbeSplit,
    chosen: ChosenProbe,
    *,
    unrelated: Mapping[int, Mapping[str, LabeledActivations]],
    n_shuffled: int = 20,
    n_random: int = 100,
    seed: int = 0,
) -> ControlScores:
    """All controls of one split; everything is fitted, and every sign chosen, on its train and calibration questions.

    `shuffled labels`: the same recipe after permuting the labels within questions. `random direction`: isotropic. `unrelated: ...`: the
    same method fitted on the shipped unrelated contrasts. `answer length` in tokens, `log-probability` under the model. `text`: the words.

    Args:
        unrelated: by layer and contrast, the unrelated texts at the chosen position.
    """
    fitted = corpus.at(chosen.position, chosen.layer).rows(split.fitted)
    d_model = fitted.x.shape[-1]
    shuffled = shuffled_directions(fitted, n_shuffled, seed, extractor=lambda data: chosen.refit(data)[None])[:, 0]
    random = random_directions(n_random, 1, d_model, seed=seed)[:, 0]
    draws = {
        name: _scores(corpus, chosen, split.test, weights=weights)
        for name, weights in (("shuffled labels", shuffled), ("random direction", random))
    }
    single = {"text": text_of(corpus, split)(corpus, split.test)}
    contrasts = unrelated.get(chosen.layer, {})
    if contrasts:
        weights = as_weights([chosen.refit(data) for data in contrasts.values()])
        reached = mean_auroc((weights @ fitted.x[:, 0].T).numpy(), fitted.misaligned, fitted.questions)
        scores = turned(_scores(corpus, chosen, split.test, weights=weights), reached)
        single |= {f"unrelated: {name}": row for name, row in zip(contrasts, scores, strict=True)}
    plain = {"answer length": corpus.readings.lengths}
    if corpus.logprobs is not None:
        plain["log-probability"] = corpus.logprobs
    for name, values in plain.items():
        reached = mean_auroc(values[None, split.fitted], fitted.misaligned, fitted.questions)
        single[name] = turned(values[None, split.test], reached)[0]
    return ControlScores(single, draws)


def text_of(corpus: ProbeCorpus, split: ProbeSplit) -> Callable[[ProbeCorpus, np.ndarray], Float[np.ndarray, "n_rows"]]:
    """The text baseline fitted on a split's train and calibration questions, to be asked about rows of any corpus."""
    rows = split.fitted
    scorer = text_scorer([corpus.answers[i] for i in rows], corpus.texts.misaligned[rows], corpus.questions_of(rows))
    return lambda other, asked: scorer([other.answers[i] for i in asked])


def _scores(
    corpus: ProbeCorpus, chosen: ChosenProbe, rows: np.ndarray, *, weights: Float[Tensor, "n_weights d_model"]
) -> Float[np.ndarray, "n_weights n_rows"]:
    """Scores along other vectors, read and aggregated as the chosen one is."""
    if chosen.position == "response_mean":
        return corpus.readings.aggregated(weights, chosen.layer, rows, rule=aggregation_named(chosen.aggregation))
    return (corpus.at(chosen.position, chosen.layer).x[rows, 0] @ weights.float().T).T.numpy()
