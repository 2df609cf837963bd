"""Turns `DIRECTION:COEFFICIENT` into what is added while answers are sampled, here and in a server, and checks that it was added.

An engine that ignores what it is asked to add answers as ever, and nothing in a file of answers would show it. So a server is asked for
its next tokens with and without the vectors before the first answer, and one that does not steer is refused.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.directions import Direction, FitName
from emis_interp.errors import ConfigError, ModelError, printable
from emis_interp.passes.added_vectors import VLLM_LENS, added_vectors, vllm_lens_vectors
from emis_interp.passes.effects import Steering
from emis_interp.passes.interventions import Steer, apply
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch
from evals.samplers.hf import HFSampler
from evals.samplers.openai_compatible import OpenAISampler

LEAST_MOVED = 0.01
"""Nats by which steering must move the log-probability of some likely token; what rounding leaves is a hundredth of it."""
ABOVE_NOISE = 5.0
"""And how many times as far as the same request moves it when it is sent twice."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steered:
    """Directions with their coefficients, all added at once.

    Attributes:
        fit: which of a file's two fits was taken (`Direction.load`).
    """

    steerings: tuple[Steering, ...]
    fit: FitName = "all"

    @property
    def interventions(self) -> list[Steer]:
        """One record each; at one layer they add up."""
        return [
            Steer({one.direction.layer: one.coefficient * one.direction.residual_norm * one.direction.vector})
            for one in self.steerings
        ]

    @property
    def card(self) -> list[dict[str, Any]]:
        """What decides the answers, for a sampler's card."""
        return [
            {
                "layer": one.direction.layer,
                "coefficient": one.coefficient,
                "raw_norm": one.raw_norm,
                "fit": self.fit,
                "direction_sha256": hashlib.sha256(one.direction.vector.float().numpy().tobytes()).hexdigest(),
            }
            for one in self.steerings
        ]


def parse_steering(words: Sequence[str], fit: FitName = "all", *, flag: str = "--steer") -> Steered | None:
    """`DIRECTION:COEFFICIENT` each, DIRECTION as `Direction.load` takes it; None without any.

    Raises:
        ConfigError: another form. DataError: as `Direction.load`.
    """
    found = []
    for word in words:
        path, separator, number = word.rpartition(":")
        coefficient = _number(number)
        if not separator or not path or coefficient is None:
            raise ConfigError(
                f"{flag} {printable(word)}: expected DIRECTION:COEFFICIENT, e.g. directions/mine:0.2 (in mean residual norms of its layer)"
            )
        found.append(Steering(Direction.load(path, fit), coefficient))
    return Steered(tuple(found), fit) if found else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class SteeredHF:
    """The model of an `HFSampler`, steered by hooks while it is asked."""

    def __init__(self, sampler: HFSampler, steered: Steered) -> None:
        self._sampler, self._steered = sampler, steered
        with apply(sampler.chat_model, *steered.interventions):
            pass  # a direction of another model is refused before anything is planned

    @property
    def card(self) -> dict[str, Any]:
        return {**self._sampler.card, "steering": self._steered.card}

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """As `HFSampler.sample`."""
        with apply(self._sampler.chat_model, *self._steered.interventions):
            return self._sampler.sample(plan, done, config, on_batch=on_batch)


class SteeredServer:
    """A vLLM server with vllm-lens, which is sent the vectors with every request.

    Args:
        make: a sampler of the server, from changes of every request.

    Raises:
        ModelError: what is asked for is no addition (`added_vectors`).
    """

    def __init__(self, make: Callable[[Mapping[str, Any]], OpenAISampler], steered: Steered) -> None:
        vectors = added_vectors(steered.interventions, VLLM_LENS)
        self._plain, self._steered, self._is_steered = make({}), steered, bool(vectors)
        # vLLM's extra arguments of a request are texts and numbers, so what is nested goes as JSON.
        self._sampler = make(vllm_lens_request(vllm_lens_vectors(vectors))) if vectors else self._plain

    @property
    def card(self) -> dict[str, Any]:
        return {**self._plain.card, "engine": "vllm-lens", "steering": self._steered.card}

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """As `OpenAISampler.sample`, after three requests that show whether the server steers.

        Raises:
            ModelError: it does not, or an unsteered request is answered otherwise after a steered one.
        """
        first = next((item for item in plan if item.key not in done), None)
        if first is not None and self._is_steered:
            before, during, after = (one.next_token(first) for one in (self._plain, self._sampler, self._plain))
            check_steers(before, during, after, server=self._plain.api.host)
        return self._sampler.sample(plan, done, config, on_batch=on_batch)


def vllm_lens_request(vectors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a chat request that carry `vllm_lens_vectors` to a server.

    vLLM keeps the key-value blocks of steered prompts for later requests; the salt keeps plain ones, and those along other vectors, from
    reading them.
    """
    text = json.dumps(list(vectors))
    salt = hashlib.sha256(text.encode("ascii")).hexdigest()
    return {"vllm_xargs": {"apply_steering_vectors": text}, "cache_salt": salt}


def check_steers(
    before: Mapping[str, float], during: Mapping[str, float], after: Mapping[str, float] | None, *, server: str
) -> None:
    """Refuse a server whose next tokens are the same with the vectors as without.

    Args:
        before, during, after: token -> log-probability of the likeliest next tokens, nats: plain, steered, and plain again; None where
            no plain request follows a steered one in the same process.

    Raises:
        ModelError: see above; or plain requests are answered otherwise after a steered one.
    """
    moved = largest_shift(before, during)
    noise = 0.0 if after is None else largest_shift(before, after)
    if noise > max(LEAST_MOVED, moved / ABOVE_NOISE):
        raise ModelError(
            f"{server}: the same unsteered request moves by {noise:.3g} nats after a steered one (which moved by {moved:.3g}): steered "
            "key-value blocks are read again; start the server without prefix caching (vLLM: --no-enable-prefix-caching)"
        )
    if moved <= max(LEAST_MOVED, ABOVE_NOISE * noise):
        raise ModelError(
            f"{server}: with the vectors the likeliest next tokens move by {moved:.2g} nats at most, without them by {noise:.2g}: it does "
            "not steer, and its answers would be those of the plain model. --sampler openai steers through vllm-lens in the server; "
            "--sampler llama starts a llama.cpp that steers; --sampler hf steers here"
        )
    log.info("%s steers: next tokens move by up to %.3g nats", server, moved)


def largest_shift(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The largest change of the log-probability of a token that both name, nats; infinite when they share less than half of the tokens."""
    shared = [
        token for token in before if token in after and math.isfinite(before[token]) and math.isfinite(after[token])
    ]
    if 2 * len(shared) < len(before):
        return math.inf
    return max((abs(after[token] - before[token]) for token in shared), default=0.0)
