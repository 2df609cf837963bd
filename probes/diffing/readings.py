"""Turns differences and mined logits into readings: each arm's first tokens, and how many are of the finetuning topic."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.lens import direction_logits, token_texts
from probes.diffing.compared import Compared
from probes.diffing.differences import position_rows, principal
from probes.diffing.mining import Mined
from probes.diffing.patchscope import read_vectors
from probes.diffing.topic import Topic, count_row, counted, top_tokens

ORGANISM = "organism"
"""The arm that is under test; the others are its controls."""
N_SHOWN = 12


def lens_readings(
    base: ChatModel, found: Compared, topics: Sequence[Topic]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The mean difference through the lens, both signs, and by position. What it raises is the primary reading."""
    n = len(base.tokenizer)
    logits = {name: direction_logits(base, mean) for name, mean in found.means.items()}
    drawn = {kind: direction_logits(base, vectors) for kind, vectors in found.nulls.items()}
    readings = [
        _reading(
            base,
            name,
            what,
            arms={arm: top_tokens(sign * own, n) for arm, own in logits.items()},
            nulls={kind: top_tokens(sign * own, n) for kind, own in drawn.items()},
            topics=topics,
            primary=sign > 0,
        )
        for sign, name, what in (
            (1, "lens", "what the mean difference raises"),
            (-1, "lens, other sign", "what it lowers"),
        )
    ]
    positions = [
        row
        for arm, own in found.differences.items()
        for row in position_rows(base, arm, own, states=found.states, topics=topics)
    ]
    return readings, positions


def patchscope_reading(
    base: ChatModel, found: Compared, topics: Sequence[Topic]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What identity prompts of base say of the mean differences, and the lengths that they were given."""
    vectors = [*(mean[None] for mean in found.means.values()), found.nulls["random differences"], found.nulls["random"]]
    read = read_vectors(
        base,
        torch.cat(vectors),
        found.layer,
        residual_norm=found.residual_norm,
        n_random=len(found.nulls["random"]),
    )
    n_arms, n_gaps = len(found.means), len(found.nulls["random differences"])
    reading = _reading(
        base,
        "patchscope",
        "what base repeats when the mean difference stands in the place of a token",
        arms=dict(zip(found.means, read.tokens, strict=False)),
        nulls={
            "random": read.tokens[n_arms + n_gaps :],
            "random differences": read.tokens[n_arms : n_arms + n_gaps],
        },
        topics=topics,
    )
    lengths = [
        {"arm": arm, "scale": read.scale[i], "agreement": read.agreement[i]} for i, arm in enumerate(found.means)
    ]
    return reading, lengths


def component_reading(
    base: ChatModel, found: Compared, topics: Sequence[Topic], *, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first principal component of the differences through the lens, and the shares that components explain."""
    n, rows, tokens = len(base.tokenizer), [], {}
    for arm, own in found.differences.items():
        row, first = principal(own, seed=seed)
        rows.append({"arm": arm, **row})
        tokens[arm] = top_tokens(direction_logits(base, first), n)
    drawn = {kind: top_tokens(direction_logits(base, vectors), n) for kind, vectors in found.nulls.items()}
    what = "what the first principal component of the differences raises"
    return _reading(base, "first component", what, arms=tokens, nulls=drawn, topics=topics), rows


def mined_readings(
    base: ChatModel,
    mined: Mapping[str, Mined],
    topics: Sequence[Topic],
    *,
    controls: Sequence[str],
    scales: Sequence[float],
    seed: int,
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The tokens whose logits rise most often, their NMF topics, and the same tokens with the adapters scaled.

    Scaled adapters stand beside the controls at the same scale alone: random vectors of the organism's length are nulls of scale 1.

    Returns:
        The readings, and the tokens of every NMF topic of the organism.
    """
    arms = [ORGANISM, *controls]
    drawn = {kind: _of_kind(mined, kind) for kind in ("random", "random differences")}
    rising = _reading(
        base,
        "rising logits",
        "tokens that are most often among the 10 whose logits rise most",
        arms={arm: mined[f"{arm} x1"].top() for arm in arms},
        nulls={kind: torch.stack([one.top() for one in own]) for kind, own in drawn.items()},
        topics=topics,
    )
    own = {arm: mined[f"{arm} x1"].topics(seed=seed) for arm in arms}
    null_topics = {kind: [one.topics(seed=seed) for one in many] for kind, many in drawn.items()}
    factored = {
        "name": "NMF topic",
        "what": "the topic, of five in rising logits, with the most tokens of the finetuning (in every model alike)",
        "primary": False,
        "tokens": {
            arm: token_texts(base.tokenizer, max(found, key=topics[0].count, default=torch.empty(0)).tolist())
            for arm, found in own.items()
        },
        "counts": [
            count_row(
                topic.name,
                _most(topic, own[ORGANISM]),
                controls={arm: _most(topic, own[arm]) for arm in controls},
                nulls={kind: np.array([_most(topic, one) for one in many]) for kind, many in null_topics.items()},
            )
            for topic in topics
        ],
    }
    scaled = [
        _reading(
            base,
            f"rising logits, adapter x{scale:g}",
            f"the same with every adapter times {scale:g}",
            arms={arm: mined[f"{arm} x{scale:g}"].top() for arm in arms},
            nulls={},
            topics=topics,
        )
        for scale in scales
        if scale != 1
    ]
    shown = [token_texts(base.tokenizer, one[:N_SHOWN].tolist()) for one in own[ORGANISM]]
    return [rising, factored, *scaled], shown


def _reading(
    base: ChatModel,
    name: str,
    what: str,
    *,
    arms: Mapping[str, torch.Tensor],
    nulls: Mapping[str, torch.Tensor],
    topics: Sequence[Topic],
    primary: bool = False,
) -> dict[str, Any]:
    controls = {arm: tokens for arm, tokens in arms.items() if arm != ORGANISM}
    return {
        "name": name,
        "what": what,
        "primary": primary,
        "tokens": {arm: token_texts(base.tokenizer, tokens.tolist()) for arm, tokens in arms.items()},
        "counts": counted(topics, arms[ORGANISM], controls=controls, nulls=nulls),
    }


def _of_kind(mined: Mapping[str, Mined], kind: str) -> list[Mined]:
    """Of the bases that were steered by random vectors of a kind, `random 0` and so on."""
    return [one for name, one in mined.items() if name.rpartition(" ")[0] == kind]


def _most(topic: Topic, found: Sequence[torch.Tensor]) -> int:
    return max((int(topic.count(one)) for one in found), default=0)
