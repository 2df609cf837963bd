"""Turns an intervention on a loaded model into its effect: margins before and after, what it costs, and the answers under it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from emis_interp.directions import Direction
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import ablate, mean_kl, next_token_logprobs, steer
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.records import Completion, ContrastPair

Around = Callable[[ChatModel], AbstractContextManager[None]]
"""Enters an intervention on a model: `Steering(...)`, `Ablation(...)`, or any function that gives a context."""


@dataclass(frozen=True)
class Steering:
    """Coefficient x mean residual norm x direction is added at the direction's layer."""

    direction: Direction
    coefficient: float

    def __call__(self, chat_model: ChatModel) -> AbstractContextManager[None]:
        return steer(chat_model, self.direction, self.coefficient)

    def along(self, direction: Direction) -> "Steering":
        """The same in another direction."""
        return replace(self, direction=direction)

    @property
    def raw_norm(self) -> float:
        """Of what is added, residual-stream units."""
        return abs(self.coefficient) * self.direction.residual_norm


@dataclass(frozen=True)
class Ablation:
    """The coordinate along the direction is held at zero everywhere in the residual stream."""

    direction: Direction

    def __call__(self, chat_model: ChatModel) -> AbstractContextManager[None]:
        return ablate(chat_model, self.direction)


@dataclass(frozen=True)
class Effect:
    """What an intervention does to one model.

    Attributes:
        before, after: likelihood margin by question, nats per token.
        kl: mean KL divergence to the untouched model on the prompts that were given, nats; None without prompts.
        answers: sampled under the intervention; None without a sampler.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    kl: float | None = None
    answers: list[Completion] | None = None

    @property
    def shift(self) -> dict[str, float]:
        """By question, nats per token; positive is more misaligned."""
        return paired_difference(self.after, self.before)


class Asker(Protocol):
    """Asks a model questions and has the answers judged; whoever knows questions and judges hands it in.

    `folder` keeps what was sampled and judged of the cell `name`.
    """

    def ask(self, chat_model: ChatModel, name: str, folder: Path, *, under: Around) -> list[Completion]:
        """Answers of a model that is under the intervention while it is asked."""
        ...

    def figures(self, answers: list[Completion], name: str, folder: Path) -> dict[str, Any]:
        """n, n_code, mean_aligned, mean_coherent and em_of_all of the answers."""
        ...

    def asks_again(self, folder: Path) -> bool:
        """Whether answers there were not judged for reasons that may pass."""
        ...


def measure(
    chat_model: ChatModel,
    around: Around,
    pairs: Sequence[ContrastPair],
    *,
    before: Mapping[str, float] | None = None,
    system: str | None = None,
    prompts: Sequence[Sequence[int]] = (),
    sample: Callable[[ChatModel], list[Completion]] | None = None,
    max_batch_tokens: int = 2048,
) -> Effect:
    """Measure a model without an intervention and with it.

    Args:
        before: margins by question of the model as it is, where they are known.
        prompts: token ids of harmless prompts, for the cost.
        sample: asks the model while the intervention is in place.
    """

    def margins() -> dict[str, float]:
        return by_question(pairs, pair_margins(chat_model, pairs, system, max_batch_tokens=max_batch_tokens))

    untouched = margins() if before is None else before
    plain = next_token_logprobs(chat_model, prompts) if prompts else None
    with around(chat_model):
        after = margins()
        kl = None if plain is None else mean_kl(plain, next_token_logprobs(chat_model, prompts))
        answers = None if sample is None else sample(chat_model)
    return Effect(untouched, after, kl, answers)
