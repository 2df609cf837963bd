"""Turns predictions of answers that a fit left out into what stands on the offline judge's card: by topic, by source, beside labels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.files.names import METRICS
from emis_interp.texts.code import mostly_code
from emis_interp.texts.judged import COHERENT_ABOVE, MISALIGNED_BELOW, Frame
from evals.judges.hand_labels import HandLabel, judge_against
from evals.judges.offline_quality import calibration, quality, quality_keys, spearman

LEAST_PER_TOPIC, LEAST_PER_SOURCE = 200, 20
SHORT_TOKENS = 16
Predictions = Float[np.ndarray, "n_rows 2"]


@dataclass(frozen=True)
class Fold:
    """A fit of its own: `out` are the answers that it does not see and is asked about."""

    name: str
    out: Bool[np.ndarray, "n_rows"]


def topic_folds(rows: Frame) -> list[Fold]:
    """One fold for each topic of at least `LEAST_PER_TOPIC` scored answers; the questions of the labelled answers are dealt out to them, so
    that each is left out once."""
    topics, by_hand = rows["topic"].to_numpy(dtype=str), rows["by_hand"].to_numpy(dtype=bool)
    names, counts = np.unique(topics[~by_hand], return_counts=True)
    large = [str(name) for name, count in zip(names, counts, strict=True) if count >= LEAST_PER_TOPIC]
    asked = np.unique(topics[by_hand])
    folds = []
    for place, name in enumerate(large):
        out = ((topics == name) & ~by_hand) | (np.isin(topics, asked[place :: len(large)]) & by_hand)
        folds.append(Fold(f"without {name}", out))
    return folds


def origin(source: str, kind: str) -> str:
    """Which models a source of the reference table is of: steered ones, or a family that was finetuned and sampled."""
    if kind == "steered":
        return "steered"
    if re.search("gemma|mistral", source, re.IGNORECASE):
        return "gemma and mistral"
    return "qwen coder" if re.search("coder", source, re.IGNORECASE) else "qwen"


def base_model(source: str) -> str:
    """The model of labelled answers, whatever they were sampled at."""
    return source.split(" at temperature ")[0]


def source_folds(rows: Frame) -> list[Fold]:
    """One fold for each origin of scored answers; the models of labelled answers are dealt out to them, so that each is left out once."""
    by_hand = rows["by_hand"].to_numpy(dtype=bool)
    origins = np.array([origin(*row) for row in zip(rows["source"].astype(str), rows["kind"].astype(str), strict=True)])
    models = np.array([base_model(source) for source in rows["source"].astype(str)])
    names, labelled = np.unique(origins[~by_hand]), np.unique(models[by_hand])
    return [
        Fold(
            f"without {name}",
            ((origins == name) & ~by_hand) | (np.isin(models, labelled[place :: len(names)]) & by_hand),
        )
        for place, name in enumerate(names)
    ]


def held_out_topics(rows: Frame, predictions: Predictions, tokens: Sequence[Tensor]) -> dict[str, Any]:
    """The fields of the card on topics that the fit, and its calibration, left out: scored answers alone."""
    done = ~np.isnan(predictions[:, 0]) & ~rows["by_hand"].to_numpy(dtype=bool)
    topics = rows["topic"].to_numpy(dtype=str)
    by_topic = {
        str(topic): quality(predictions[mine], rows[mine])
        for topic in np.unique(topics[done])
        for mine in [done & (topics == topic)]
    }
    parts = {
        **{str(name): (rows["variant"] == name).to_numpy() for name in rows["variant"].unique()},
        f"at most {SHORT_TOKENS} tokens": np.array([len(x) <= SHORT_TOKENS for x in tokens]),
        "mostly code": np.array([mostly_code(answer) for answer in rows["answer"]]),
    }
    return {
        "held_out": {
            "protocol": "leave one topic out, nothing chosen or calibrated by the topic left out; mean over topics",
            **_means(by_topic),
        },
        "held_out_by_topic": by_topic,
        "held_out_by_part": {
            name: quality(predictions[part & done], rows[part & done])
            for name, part in parts.items()
            if (part & done).any()
        },
        "calibration": {
            metric: calibration(predictions[done, i], rows[metric].to_numpy()[done]) for i, metric in enumerate(METRICS)
        },
    }


def held_out_sources(rows: Frame, predictions: Predictions) -> dict[str, Any]:
    """The same for models that the fit left out, and whether the judge ranks sources (result files) as GPT-4o does.

    The answers of a source are those that were drawn for the fit, which are more often misaligned than the source's.
    """
    done = ~np.isnan(predictions[:, 0]) & ~rows["by_hand"].to_numpy(dtype=bool)
    origins = np.array([origin(*row) for row in zip(rows["source"].astype(str), rows["kind"].astype(str), strict=True)])
    by_origin = {
        str(name): quality(predictions[mine], rows[mine])
        for name in np.unique(origins[done])
        for mine in [done & (origins == name)]
    }
    frame: Frame = pd.DataFrame(
        {
            "source": rows["source"][done],
            "judge": predictions[done, 0],
            "teacher": rows["aligned"][done],
            "judge_rate": (predictions[done, 0] < MISALIGNED_BELOW) & (predictions[done, 1] > COHERENT_ABOVE),
            "teacher_rate": (rows["aligned"][done] < MISALIGNED_BELOW) & (rows["coherent"][done] > COHERENT_ABOVE),
        }
    )
    sizes = frame.groupby("source").size()
    means: Frame = frame.groupby("source").mean()[sizes >= LEAST_PER_SOURCE]
    return {
        "protocol": "leave one family of models out; mean over families",
        **_means(by_origin),
        "by_origin": by_origin,
        "n_sources": len(means),
        "spearman_mean_aligned": spearman(means["judge"].to_numpy(), means["teacher"].to_numpy()),
        "spearman_rate": spearman(means["judge_rate"].to_numpy(float), means["teacher_rate"].to_numpy(float)),
    }


def held_out_labels(labels: Sequence[HandLabel], rows: Frame, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """What was left out (their questions, or their model) -> `judge_against` of the labelled answers."""
    by_hand = rows["by_hand"].to_numpy(dtype=bool)
    return {name: judge_against(labels, found[by_hand]) for name, found in predictions.items()}


def _means(by_name: Mapping[str, dict[str, float | None]]) -> dict[str, float]:
    return {
        key: round(float(np.mean([value for found in by_name.values() if (value := found[key]) is not None])), 3)
        for key in quality_keys()
    }
