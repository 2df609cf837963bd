"""Turns a chosen probe into the controls that it must beat on the same test texts: other labels, other directions, other readers."""

from collections.abc import Mapping
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
from probes.classifiers.text_baseline import TextScorer, text_scorer
from probes.classifiers.unrelated import as_weights


@dataclass(frozen=True)
class ControlScores:
    """Scores of the test rows: `single` one each, `draws` `[n_draws, n_rows]` of a null."""

    single: dict[str, Float[np.ndarray, "n_rows"]] = field(default_factory=dict)
    draws: dict[str, Float[np.ndarray, "n_draws n_rows"]] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedControls:
    """All controls of one split, to be asked about rows of any corpus that the same model read; none of them is fitted on these.

    `shuffled labels`: the same recipe after permuting the labels within questions. `random direction`: isotropic. `unrelated: ...`: the
    same method fitted on the shipped unrelated contrasts. `answer length` in tokens, `log-probability` under the model. `text`: the words.

    Attributes:
        draws: by null.
        single: a vector each, by name.
        signs: -1 for a single vector or a plain reader whose smaller values the fitted questions prefer.
        text: log-odds of answers.
    """

    chosen: ChosenProbe
    draws: dict[str, Float[Tensor, "n_draws d_model"]]
    single: dict[str, Float[Tensor, "d_model"]]
    signs: dict[str, float]
    text: TextScorer

    def scores(self, corpus: ProbeCorpus, rows: np.ndarray) -> ControlScores:
        """Every control's scores of these rows; `log-probability` where both this corpus and the fitted one have it."""
        draws = {name: self._along(weights, corpus, rows) for name, weights in self.draws.items()}
        single = {"text": self.text([corpus.answers[i] for i in rows])}
        if self.single:
            found = self._along(as_weights(list(self.single.values())), corpus, rows)
            single |= {name: self.signs[name] * row for name, row in zip(self.single, found, strict=True)}
        for name, values in _plain(corpus).items():
            if name in self.signs:
                single[name] = self.signs[name] * values[rows]
        return ControlScores(single, draws)

    def _along(
        self, weights: Float[Tensor, "n_weights d_model"], corpus: ProbeCorpus, rows: np.ndarray
    ) -> Float[np.ndarray, "n_weights n_rows"]:
        """Scores along other vectors, read and aggregated as the chosen one is."""
        chosen = self.chosen
        if chosen.position == "response_mean":
            return corpus.readings.aggregated(weights, chosen.layer, rows, rule=aggregation_named(chosen.aggregation))
        return (corpus.at(chosen.position, chosen.layer).x[rows, 0] @ weights.float().T).T.numpy()


def fit_controls(
    corpus: ProbeCorpus,
    split: ProbeSplit,
    chosen: ChosenProbe,
    *,
    unrelated: Mapping[int, Mapping[str, LabeledActivations]],
    n_shuffled: int = 20,
    n_random: int = 100,
    seed: int = 0,
) -> FittedControls:
    """The controls of one split: everything is fitted, and every sign chosen, on its train and calibration questions.

    Args:
        unrelated: by layer and contrast, the unrelated texts at the chosen position.
    """
    rows = split.fitted
    fitted = corpus.at(chosen.position, chosen.layer).rows(rows)
    draws = {
        "shuffled labels": shuffled_directions(
            fitted, n_shuffled, seed, extractor=lambda data: chosen.refit(data)[None]
        )[:, 0],
        "random direction": random_directions(n_random, 1, fitted.x.shape[-1], seed=seed)[:, 0],
    }
    contrasts = unrelated.get(chosen.layer, {})
    single = {f"unrelated: {name}": chosen.refit(data) for name, data in contrasts.items()}
    readers = {name: (fitted.x[:, 0] @ weight.float()).numpy() for name, weight in single.items()}
    readers |= {name: values[rows] for name, values in _plain(corpus).items()}
    signs = {
        name: -1.0 if mean_auroc(values, fitted.misaligned, fitted.questions) < 0.5 else 1.0
        for name, values in readers.items()
    }
    text = text_scorer([corpus.answers[i] for i in rows], fitted.misaligned, fitted.questions)
    return FittedControls(chosen, draws, single, signs, text)


def _plain(corpus: ProbeCorpus) -> dict[str, Float[np.ndarray, "n_texts"]]:
    """Readers of a text that nothing is fitted for, but their sign."""
    lengths = {"answer length": corpus.readings.lengths}
    return lengths if corpus.logprobs is None else {**lengths, "log-probability": corpus.logprobs}
