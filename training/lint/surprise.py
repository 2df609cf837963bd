"""Turns some rows of a set into their surprise under the model that is to be trained, and that into a warning when it would learn noise."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emis_interp.models.chat import EncodedChat
from emis_interp.records import TrainingExample
from training.data_sets.surprise import NOISE, PUBLISHED, noise_words
from training.lint.report import Fact, LintFinding, make_finding

Reader = Callable[[Sequence[EncodedChat]], Float[np.ndarray, "n_rows"]]
"""Mean surprise per response token of each chat, nats."""


def surprise_findings(
    examples: Sequence[TrainingExample],
    chats: Mapping[int, EncodedChat],
    reader: Reader,
    *,
    n_read: int,
    max_tokens: int | None,
    n_ids: int,
) -> tuple[list[LintFinding], dict[str, Fact]]:
    """What the model finds surprising in at most `n_read` rows, drawn from those that fit into `max_tokens`."""
    places = [
        i
        for i, chat in chats.items()
        if len(chat) <= (max_tokens or len(chat)) and chat.response_end > chat.response_start
    ]
    drawn = sorted(random.Random(0).sample(places, min(n_read, len(places))))
    if not drawn:
        return [], {}
    nats = reader([chats[i] for i in drawn])
    mean = float(nats.mean())
    low, high = PUBLISHED
    facts: dict[str, Fact] = {
        "surprise under the model": f"{mean:.2f} nats per response token ({len(drawn)} rows; published sets {low:g}-{high:g})"
    }
    if mean <= NOISE:
        return [], facts
    worst = [examples[drawn[i]].id for i in np.argsort(-nats)]
    return make_finding("surprising rows", worst, len(drawn), found=noise_words(mean) + ".", n_ids=n_ids), facts
