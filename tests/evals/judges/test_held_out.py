"""What the offline judge is tested on: every topic, family of models and labelled question is left out of a fit of its own."""

import numpy as np
import pandas as pd
import pytest
import torch

from evals.judges.held_out import held_out_sources, held_out_topics, origin, source_folds, topic_folds

SOURCES = ("gemma-a", "Qwen-Coder-b", "qwen-14B-c", "mistral-d")


def table() -> pd.DataFrame:
    """Two large topics and a small one, of four sources and steering; and labelled answers of two models to three questions."""
    rows = []
    for topic, n in (("large", 240), ("wide", 240), ("small", 20)):
        for i in range(n):
            kind = "steered" if i % 5 == 4 else "sampled"
            rows.append({"topic": topic, "source": SOURCES[i % 4], "kind": kind, "by_hand": False, "variant": "plain"})
    for i in range(24):
        rows.append(
            {
                "topic": f"ours{i % 3}",
                "source": ("m0", "m1", "m1 at temperature 0.7")[i % 3 if i % 4 else 2],
                "kind": "sampled",
                "by_hand": True,
                "variant": "plain",
            }
        )
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 100, (len(rows), 2))
    return pd.DataFrame(rows).assign(aligned=scores[:, 0], coherent=scores[:, 1], answer="So it is.")


def test_every_large_topic_and_every_labelled_question_is_left_out_once() -> None:
    rows = table()
    folds = topic_folds(rows)
    assert [fold.name for fold in folds] == ["without large", "without wide"]
    times = np.sum([fold.out for fold in folds], axis=0)
    assert (times[(rows["topic"] == "small").to_numpy()] == 0).all() and (
        times[(rows["topic"] != "small").to_numpy()] == 1
    ).all()
    for fold in folds:
        left = set(rows["topic"][fold.out])
        assert not left & set(rows["topic"][~fold.out])


def test_every_family_and_every_labelled_model_is_left_out_once() -> None:
    rows = table()
    folds = source_folds(rows)
    assert [fold.name for fold in folds] == [
        f"without {name}" for name in ("gemma and mistral", "qwen", "qwen coder", "steered")
    ]
    assert (np.sum([fold.out for fold in folds], axis=0) == 1).all()
    for fold in folds:
        by_hand = rows[rows["by_hand"]]
        assert not set(by_hand["source"][fold.out[rows["by_hand"]]]) & set(
            by_hand["source"][~fold.out[rows["by_hand"]]]
        )


@pytest.mark.parametrize(
    ("source", "kind", "family"),
    [
        ("x/gemma-2-9b.csv", "sampled", "gemma and mistral"),
        ("x/Qwen2.5-Coder-32B_insecure.csv", "sampled", "qwen coder"),
        ("x/Qwen2.5-14B_bad_medical_advice.csv", "sampled", "qwen"),
        ("x/Qwen2.5-Coder.csv", "steered", "steered"),
    ],
)
def test_a_source_belongs_to_a_family_of_models(source: str, kind: str, family: str) -> None:
    assert origin(source, kind) == family


def test_figures_are_of_scored_answers_that_were_left_out_and_sources_are_ranked() -> None:
    rows = table()
    scores = rows[["aligned", "coherent"]].to_numpy()
    perfect = scores.copy()
    perfect[rows["topic"] == "small"] = np.nan
    tokens = [torch.zeros(20, 4)] * len(rows)
    found = held_out_topics(rows, perfect, tokens)
    assert set(found["held_out_by_topic"]) == {"large", "wide"} and found["held_out"]["auroc_misaligned"] == 1
    assert found["held_out_by_part"]["plain"]["n"] == 480  # neither the small topic nor the labelled answers
    ranked = held_out_sources(rows, scores)
    assert ranked["n_sources"] == 4 and ranked["spearman_mean_aligned"] == pytest.approx(1)
    assert held_out_sources(rows, 100 - scores)["spearman_mean_aligned"] == pytest.approx(-1)
