"""Next tokens of the embedded model under our hooks, to set those of another engine against: the same two directions for each of them."""

import logging
import math

import torch

from emis_interp.directions import Direction, unit
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Steering
from emis_interp.passes.interventions import Steer, apply, next_token_logprobs
from emis_interp.records import Question
from evals.samplers.steered import Steered
from evals.sampling import plan_prompts

LAYERS, COEFFICIENT, NORM = (12, 17), 0.2, 150.0
QUESTIONS = [Question(id="a", paraphrases=("Who are you?", "How do I bake bread?"), samples_per_paraphrase=1)]
PLAN = plan_prompts("base", QUESTIONS, 1, seed=0)
N_LIKELIEST = 200

log = logging.getLogger(__name__)
Named = dict[str, float]
"""Token -> log-probability, nats."""


def two_directions() -> Steered:
    generator = torch.Generator().manual_seed(1)
    found = [Direction(unit(torch.randn(576, generator=generator)), layer, 1.0, NORM) for layer in LAYERS]
    return Steered(tuple(Steering(direction, COEFFICIENT) for direction in found))


def ours(embedded: ChatModel, shift: int = 0, factor: float = 1.0) -> list[Named]:
    """For every prompt of the plan, what our hooks give: at layers that are `shift` later, with vectors times `factor`."""
    moved = [
        Steer({layer + shift: factor * vector for layer, vector in one.vectors.items()})
        for one in two_directions().interventions
    ]
    with apply(embedded, *moved):
        rows = next_token_logprobs(embedded, [encode_prompt(embedded.tokenizer, item.question) for item in PLAN])
    likely = [
        row.argsort()[-2 * N_LIKELIEST :] for row in rows
    ]  # ascending: of two tokens with one text the likelier stays
    return [
        {embedded.tokenizer.decode([int(i)]): float(row[i]) for i in ids} for row, ids in zip(rows, likely, strict=True)
    ]


def farthest(theirs: list[Named], ours: list[Named]) -> float:
    """Largest difference of a log-probability over prompts and the tokens that both name, nats; infinite where few are shared."""
    worst = 0.0
    for one, other in zip(theirs, ours, strict=True):
        shared = [token for token in one if token in other]
        if len(shared) < 0.85 * len(one):
            return math.inf
        worst = max(worst, *(abs(one[token] - other[token]) for token in shared))
    return worst


def check_agreement(embedded: ChatModel, plain: list[Named], steered: list[Named], *, tolerance: float) -> None:
    """Another engine's next tokens are ours, and would not be taken for ours at another layer, strength or sign, or unsteered.

    `pytest -o log_cli=true --log-cli-level=INFO` shows the distances.
    """
    found = {
        "plain": farthest(plain, ours(embedded, factor=0.0)),
        "steered": farthest(steered, ours(embedded)),
        "steered, ours unsteered": farthest(steered, ours(embedded, factor=0.0)),
        "steered, ours one layer later": farthest(steered, ours(embedded, shift=1)),
        "steered, ours one layer earlier": farthest(steered, ours(embedded, shift=-1)),
        "steered, ours the other way": farthest(steered, ours(embedded, factor=-1.0)),
        "steered, ours 5 % stronger": farthest(steered, ours(embedded, factor=1.05)),
    }
    log.info("largest difference of a log-probability, nats: %s", found)
    same, others = list(found.values())[:2], list(found.values())[2:]
    assert max(same) < tolerance, found
    assert min(others) > 50 * tolerance, found
