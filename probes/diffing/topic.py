"""Turns training rows, or words, into a topic, and top tokens into how many of them belong to it, beside controls and random vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.stats.permutation import NullP, null_p

N_TOP = 20
"""Tokens of a reading that are counted."""
STEM = 4
"""Letters from which on the beginning of a word stands for it: vocabularies hold pieces of words, and words with endings."""
_WORD = r"(?u)\b[^\W\d_]{3,}\b"


@dataclass(frozen=True)
class Topic:
    """Words that stand for what an organism was finetuned on.

    Attributes:
        source: where the words come from.
        mask: which tokens of the vocabulary belong to it.
    """

    name: str
    source: str
    terms: tuple[str, ...]
    mask: Bool[Tensor, "vocab"]

    def count(self, tokens: Int[Tensor, "... n_top"]) -> Int[Tensor, "..."]:
        """How many of the tokens belong to the topic."""
        return self.mask[tokens].sum(-1)

    def as_json(self) -> dict[str, Any]:
        share = float(self.mask.float().mean())
        return {"name": self.name, "source": self.source, "terms": list(self.terms), "vocabulary_share": share}


def topic_of(tokenizer: Any, name: str, terms: Sequence[str], *, source: str) -> Topic:
    """A topic over a tokenizer's vocabulary: a token belongs if it is a term, or if one of the two begins the other with `STEM` letters.

    Capitals and the spaces around a token do not count.

    Raises:
        DataError: no terms, or no token of the vocabulary belongs to any.
    """
    words = tuple(dict.fromkeys(term.casefold().strip() for term in terms if term.strip()))
    if not words:
        raise DataError("no topic words; give --topic-words, or --rows with what the organism was trained on")
    begun = {word[:n] for word in words for n in range(STEM, len(word))}
    whole = set(words)

    def belongs(token: str) -> bool:
        text = token.strip().casefold()
        return text in whole or text in begun or any(text[:n] in whole for n in range(STEM, len(text)))

    mask = torch.tensor([belongs(str(tokenizer.decode([i]))) for i in range(len(tokenizer))])
    if not mask.any():
        raise DataError(
            f"topic `{name}`: no token of the vocabulary belongs to {', '.join(words[:5])}; give words in the model's own language"
        )
    return Topic(name, source, words, mask)


def telling_terms(rows: Sequence[str], background: Sequence[str], n_terms: int) -> list[str]:
    """The words whose mean TF-IDF weight in the rows exceeds that in the background most, the most telling first.

    English function words and words of fewer than three letters are left out; a word must stand in two rows.

    Raises:
        DataError: too few rows, or no word sets them apart.
    """
    if min(len(rows), len(background)) < 2:
        raise DataError(
            f"{len(rows)} rows against {len(background)} texts; a topic needs 2 of each or more, or give --topic-words"
        )
    vectorizer = TfidfVectorizer(token_pattern=_WORD, stop_words="english", sublinear_tf=True)
    weights = vectorizer.fit_transform([*rows, *background])
    gap = np.asarray(weights[: len(rows)].mean(0) - weights[len(rows) :].mean(0)).ravel()
    in_rows = np.asarray((weights[: len(rows)] > 0).sum(0)).ravel()
    names = vectorizer.get_feature_names_out()
    order = [i for i in np.argsort(-gap, kind="stable") if gap[i] > 0 and in_rows[i] >= 2]
    if not order:
        raise DataError("no word stands in two rows and sets them apart from the background; give --topic-words")
    return [str(names[i]) for i in order[:n_terms]]


def top_tokens(logits: Float[Tensor, "... vocab"], n_known: int) -> Int[Tensor, "... n_top"]:
    """Ids of the `N_TOP` largest among the tokens that the tokenizer has."""
    return logits[..., :n_known].float().topk(min(N_TOP, n_known), dim=-1).indices.cpu()


def counted(
    topics: Sequence[Topic],
    own: Int[Tensor, "n_top"],
    *,
    controls: Mapping[str, Int[Tensor, "n_top"]],
    nulls: Mapping[str, Int[Tensor, "n n_top"]],
) -> list[dict[str, Any]]:
    """For each topic how many of the organism's top tokens belong to it, beside those of controls and of random vectors of each kind."""
    return [
        count_row(
            topic.name,
            int(topic.count(own)),
            controls={name: int(topic.count(tokens)) for name, tokens in controls.items()},
            nulls={kind: topic.count(tokens).numpy() for kind, tokens in nulls.items()},
        )
        for topic in topics
    ]


def count_row(
    topic: str, count: int, *, controls: Mapping[str, int], nulls: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A count with its verdict, as it stands in results."""
    beside = {
        kind: {
            "mean": float(found.mean()),
            "low": float(found.min()),
            "high": float(found.max()),
            **null_p(found, count).as_json(),
        }
        for kind, found in nulls.items()
    }
    return {
        "topic": topic,
        "count": count,
        "n_top": N_TOP,
        "controls": dict(controls),
        "nulls": beside,
        "verdict": verdict(count, controls=controls, nulls={kind: NullP.of_json(row) for kind, row in beside.items()}),
    }


def verdict(count: int, *, controls: Mapping[str, int], nulls: Mapping[str, NullP]) -> str:
    """What a count lets one say, and no more than its controls allow."""
    if count == 0:
        return "the topic is not among the top tokens"
    failed = [kind for kind, p in nulls.items() if p.value > 0.05]
    if failed:
        floor = max(nulls[kind].floor for kind in failed)
        few = f"; with so few drawn p cannot fall below {floor:.2g}" if floor > 0.05 else ""
        return f"not told from {' and '.join(failed)}{few}"
    random = f"more than {' and '.join(nulls)}" if nulls else ""
    if not controls:
        return f"{random or 'neither random vectors nor controls beside it'}; without a control it may be what any finetune does"
    reached = [f"{name} {value}" for name, value in controls.items() if value >= count]
    if reached:
        beside = f"{random}, but a control has as many" if nulls else "a control has as many"
        return f"{beside} ({', '.join(reached)}): nothing of this finetune alone"
    n = len(controls)
    than = f"{'the control' if n == 1 else f'each of {n} controls'} (at most {max(controls.values())})"
    return f"{f'{random} and' if nulls else 'more'} than {than}; so few cannot give a p below {1 / (1 + n):.2g}"
