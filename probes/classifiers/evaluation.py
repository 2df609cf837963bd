"""Turns a corpus and its splits into scores of every test text by every reader, and these into figures with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import auroc_by_question, auroc_estimate, mean_auroc
from emis_interp.stats.interval import mean_row
from emis_interp.stats.permutation import null_p
from probes.classifiers.attention import fit_attention
from probes.classifiers.choosing import RULES, ChosenProbe, calibration_curve, choose_probe
from probes.classifiers.controls import ControlScores, fit_controls
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.methods import METHODS
from probes.classifiers.noise_ceiling import noise_ceiling
from probes.classifiers.readings import READ_AT
from probes.classifiers.splits import ProbeSplit

MARGIN_OVER_TEXT = 0.10
"""AUROC by which a probe should beat the text baseline before it is said to read more than words."""
PROBE, TEXT = "probe", "text"
Unrelated = Mapping[int, Mapping[str, LabeledActivations]]


@dataclass(frozen=True)
class ProbeBoard:
    """Scores of texts that were tests, by reader; NaN where a text never was one.

    Attributes:
        scores: reader -> `[n_texts]`.
        draws: null -> `[n_draws, n_texts]`.
        choices: what each split chose.
    """

    n_texts: int
    scores: dict[str, Float[np.ndarray, "n_texts"]] = field(default_factory=dict)
    draws: dict[str, Float[np.ndarray, "n_draws n_texts"]] = field(default_factory=dict)
    choices: list[dict[str, Any]] = field(default_factory=list)

    def put(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Enter the scores of some rows, or `[n_draws, n_rows]` of a null."""
        kept = self.scores if values.ndim == 1 else self.draws
        if name not in kept:
            kept[name] = np.full((*values.shape[:-1], self.n_texts), np.nan)
        kept[name][..., rows] = values

    def put_controls(self, rows: np.ndarray, found: ControlScores) -> None:
        """Enter every control's scores of some rows."""
        for name, values in (*found.single.items(), *found.draws.items()):
            self.put(name, rows, values)


def evaluate(
    corpus: ProbeCorpus,
    splits: Sequence[ProbeSplit],
    *,
    methods: Sequence[str] = tuple(METHODS),
    positions: Sequence[str] = READ_AT,
    attention: bool = False,
    unrelated: Unrelated | None = None,
    others: Mapping[str, ProbeCorpus] | None = None,
    board: ProbeBoard | None = None,
    rules: Sequence[str] = RULES,
    n_shuffled: int = 20,
    n_random: int = 100,
    seed: int = 0,
) -> tuple[ProbeBoard, dict[str, ProbeBoard]]:
    """Fit, choose and test on every split. `probe` is the reader of the whole answer: method, layer and aggregation chosen on calibration.

    Args:
        positions: each gets a reader of its own (`at POSITION`); `response_mean` also gets one for every method (`by METHOD`).
        others: by name, corpora of the same questions in another form, which the split's probe and its controls are also asked about, as
            they were fitted on the first corpus, for the split's test question alone (transfer).
        board: to add to; None begins one.
        rules: of aggregation, to choose from.

    Returns:
        The board of the corpus and those of the others.
    """
    board, moved = ProbeBoard(len(corpus.texts.texts)) if board is None else board, dict[str, ProbeBoard]()
    for split in splits:
        curve = calibration_curve(corpus, split, methods=methods, position="response_mean")
        chosen = choose_probe(corpus, split, curve, position="response_mean", rules=rules)
        board.choices.append({"left_out": split.name, **chosen.as_json()})
        board.put(PROBE, split.test, chosen.scores(corpus, split.test))
        for position in positions:
            own = (
                curve
                if position == "response_mean"
                else calibration_curve(corpus, split, methods=methods, position=position)
            )
            board.put(
                f"at {position}",
                split.test,
                choose_probe(corpus, split, own, position=position).scores(corpus, split.test),
            )
            if position == "response_mean" and len(methods) > 1:
                for method in methods:
                    part = {key: value for key, value in own.items() if key[0] == method}
                    one = choose_probe(corpus, split, part, position=position)
                    board.put(f"by {method}", split.test, one.scores(corpus, split.test))
        if attention:
            board.put("by attention", split.test, _attended(corpus, split, chosen, seed=seed))
        controls = fit_controls(
            corpus, split, chosen, unrelated=unrelated or {}, n_shuffled=n_shuffled, n_random=n_random, seed=seed
        )
        board.put_controls(split.test, controls.scores(corpus, split.test))
        for name, other in (others or {}).items():
            rows = np.flatnonzero(np.asarray(other.texts.questions) == split.name)
            if len(rows):
                target = moved.setdefault(name, ProbeBoard(len(other.texts.texts)))
                target.put(PROBE, rows, chosen.scores(other, rows))
                target.put_controls(rows, controls.scores(other, rows))
    return board, moved


def figures(board: ProbeBoard, corpus: ProbeCorpus, name: str, *, spread: float | None = None) -> dict[str, Any]:
    """A `ProbeSet` record: each reader's AUROC within questions, averaged, with its interval, and its difference from the text baseline.

    Args:
        spread: of the judge in points, for a second ceiling beside that of the widest spread.
    """
    misaligned, questions = corpus.texts.misaligned, corpus.texts.questions
    by_reader = {reader: _by_question(scores, misaligned, questions) for reader, scores in board.scores.items()}
    rows = []
    for reader, values in by_reader.items():
        difference = {key: values[key] - by_reader[TEXT][key] for key in values} if reader != TEXT else None
        rows.append(
            {
                "name": reader,
                "auroc": auroc_estimate(values),
                "by_question": values,
                "minus_text": None if difference is None else mean_row(difference),
            }
        )
    probe, text = (next(row for row in rows if row["name"] == name) for name in (PROBE, TEXT))
    tested = np.flatnonzero(~np.isnan(board.scores[PROBE]))
    kept = tested[np.isin(np.asarray(questions)[tested], list(by_reader[PROBE]))]
    judged = corpus.texts.judge_scores
    return {
        "name": name,
        "n_misaligned": int(misaligned[kept].sum()),
        "n_aligned": int((~misaligned[kept]).sum()),
        "n_questions": len(by_reader[PROBE]),
        "figures": rows,
        "nulls": [_null(key, values, corpus, value=probe["auroc"]["value"]) for key, values in board.draws.items()],
        "ceiling": None if judged is None else noise_ceiling(judged[kept], corpus.questions_of(kept)),
        "ceiling_at_spread": None
        if judged is None or spread is None
        else noise_ceiling(judged[kept], corpus.questions_of(kept), spread=spread),
        "verdict": selectivity_words(probe["auroc"], text["auroc"], probe["minus_text"]),
        "choices": board.choices,
    }


def selectivity_words(
    probe: Mapping[str, Any],
    text: Mapping[str, Any],
    minus_text: Mapping[str, Any],
    *,
    margin: float = MARGIN_OVER_TEXT,
) -> str:
    """Whether a probe beats the text baseline by the margin, in words that take the interval into account.

    A text baseline below 0.5 reads nothing that can be used, so the probe is held against 0.5 then: what noise took from the baseline is
    not the probe's gain.

    Args:
        probe, text: AUROCs with their intervals.
        minus_text: their paired difference.
    """
    if probe["low"] is None or probe["low"] <= 0.5:
        return f"not told from chance, and so not above text + {margin:.2f}"
    beside, gain = "text", minus_text
    if text["value"] < 0.5:
        beside, gain = "chance (text is below it)", {key: probe[key] - 0.5 for key in ("value", "low")}
    if gain["value"] < margin:
        told = gain["low"] is not None and gain["low"] > 0
        return f"below {beside} + {margin:.2f}" + (
            f", though above {beside}" if told else f", and not told from {beside}"
        )
    sure = gain["low"] is not None and gain["low"] >= margin
    return f"above {beside} + {margin:.2f}" + ("" if sure else ", but the interval reaches below it")


def _attended(corpus: ProbeCorpus, split: ProbeSplit, chosen: ChosenProbe, *, seed: int) -> Float[np.ndarray, "n_test"]:
    """An attention probe at the layer that was chosen for the linear one, on the test rows."""
    layer, rows = chosen.layer, split.fitted
    tokens = [corpus.readings.response(layer, int(i)) for i in rows]
    probe = fit_attention(tokens, corpus.texts.misaligned[rows], corpus.questions_of(rows), layer=layer, seed=seed)
    return np.array([float(probe.score(corpus.readings.response(layer, int(i)))) for i in split.test])


def _by_question(scores: np.ndarray, misaligned: np.ndarray, questions: Sequence[str]) -> dict[str, float]:
    rows = np.flatnonzero(~np.isnan(scores))
    found = auroc_by_question(scores[rows], misaligned[rows], [questions[i] for i in rows.tolist()])
    return {key: float(value) for key, value in found.items()}


def _null(name: str, draws: np.ndarray, corpus: ProbeCorpus, *, value: float) -> dict[str, Any]:
    """The spread of a null over its draws, and the share of them that reach the probe's AUROC."""
    rows = np.flatnonzero(~np.isnan(draws[0]))
    reached = mean_auroc(draws[:, rows], corpus.texts.misaligned[rows], corpus.questions_of(rows))
    low, high = np.percentile(reached, [2.5, 97.5])
    return {
        "name": name,
        "mean": float(reached.mean()),
        "low": float(low),
        "high": float(high),
        **null_p(reached, value).as_json(),
    }
