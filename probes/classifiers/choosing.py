"""Turns a corpus and a split into one probe: every method and layer fitted on `train`, one chosen on `calibrate`, fitted again on both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc
from probes.classifiers.aggregation import AGGREGATIONS, aggregation_named
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.methods import best_penalty, fit_weight, log_odds, logistic_at, method_named, middle
from probes.classifiers.probe import LinearProbe
from probes.classifiers.splits import ProbeSplit, question_folds, rows_of

OUTER_FOLDS = 5
"""Folds of questions whose projections set the scale of a saved probe."""
Curve = dict[tuple[str, int], float]


@dataclass(frozen=True)
class ChosenProbe:
    """What was chosen on the calibration questions, with the weights of the last fit.

    Attributes:
        weight: of the fit on train and calibration questions; any scale.
        calibrate_auroc: of the fit on the training questions, by which it was chosen.
        penalty: of `logistic`, chosen within the questions of the last fit.
    """

    method: str
    layer: int
    position: str
    weight: Float[Tensor, "d_model"]
    calibrate_auroc: float
    aggregation: str = "mean"
    penalty: float | None = None

    def scores(self, corpus: ProbeCorpus, rows: np.ndarray) -> Float[np.ndarray, "n_rows"]:
        """One score a text: tokens scored and aggregated over an answer, or the residual of any other position."""
        if self.position == "response_mean":
            rule = aggregation_named(self.aggregation)
            return corpus.readings.aggregated(self.weight[None], self.layer, rows, rule=rule)[0]
        return (corpus.at(self.position, self.layer).x[rows, 0] @ self.weight).numpy()

    def refit(self, data: LabeledActivations) -> Float[Tensor, "d_model"]:
        """The same recipe on other labels or texts; the penalty stays."""
        penalty = self.penalty
        method = method_named(self.method) if penalty is None else partial(logistic_at, inverse_penalty=penalty)
        return fit_weight(method, data)

    def as_json(self) -> dict[str, object]:
        return {
            "method": self.method,
            "layer": self.layer,
            "position": self.position,
            "aggregation": self.aggregation,
            "calibrate_auroc": self.calibrate_auroc,
            "penalty": self.penalty,
        }


def calibration_curve(corpus: ProbeCorpus, split: ProbeSplit, *, methods: Sequence[str], position: str) -> Curve:
    """AUROC on the calibration questions of every (method, layer) fitted on the training questions."""
    found: Curve = {}
    for method in methods:
        for layer in corpus.readings.layers:
            data = corpus.at(position, layer)
            weight = fit_weight(method_named(method), data.rows(split.train))
            test = data.rows(split.calibrate)
            found[method, layer] = float(mean_auroc((test.x[:, 0] @ weight).numpy(), test.misaligned, test.questions))
    return found


def choose_probe(
    corpus: ProbeCorpus, split: ProbeSplit, curve: Curve, *, position: str, rules: Sequence[str] = ("mean",)
) -> ChosenProbe:
    """The best of a curve (the first among equals), then the best aggregation, then the fit on train and calibration questions.

    Args:
        rules: keys of `AGGREGATIONS`; others than `mean` only for `response_mean`.
    """
    method, layer = max(curve, key=lambda key: curve[key])
    data = corpus.at(position, layer)
    train, both = data.rows(split.train), data.rows(split.fitted)
    chosen = ChosenProbe(method, layer, position, fit_weight(method_named(method), train), curve[method, layer])
    if len(rules) > 1:
        reached = {rule: _auroc(replace(chosen, aggregation=rule), corpus, split.calibrate) for rule in rules}
        rule = max(reached, key=lambda name: reached[name])
        chosen = replace(chosen, aggregation=rule, calibrate_auroc=reached[rule])
    chosen = replace(chosen, penalty=best_penalty(both) if method == "logistic" else None)
    return replace(chosen, weight=chosen.refit(both))


def in_log_odds(chosen: ChosenProbe, corpus: ProbeCorpus, rows: np.ndarray) -> LinearProbe:
    """The chosen weights with a scale and offset that make them log-odds of equally frequent classes.

    Both come from projections of questions that had no part in the weights (folds of the given rows' questions). The scale is that of the
    mean over an answer's tokens; a maximum over tokens lies higher.
    """
    data = corpus.at(chosen.position, chosen.layer).rows(rows)
    names, projections = list(data.cells), np.full(len(rows), np.nan)
    for held in question_folds(names, min(OUTER_FOLDS, len(names))):
        test = rows_of(data.questions, list(held))
        fitted = data.only(set(names) - held)
        weight = chosen.refit(fitted)
        projections[test] = ((data.x[test, 0] - middle(fitted)) @ weight).numpy()
    kept = np.flatnonzero(~np.isnan(projections))
    scale, offset = log_odds(projections[kept], data.misaligned[kept], [data.questions[i] for i in kept])
    bias = offset - scale * float(middle(data) @ chosen.weight)
    return LinearProbe(chosen.weight * scale, bias, chosen.layer, chosen.position, chosen.as_json())


def _auroc(chosen: ChosenProbe, corpus: ProbeCorpus, rows: np.ndarray) -> float:
    return float(mean_auroc(chosen.scores(corpus, rows), corpus.texts.misaligned[rows], corpus.questions_of(rows)))


RULES = tuple(AGGREGATIONS)
