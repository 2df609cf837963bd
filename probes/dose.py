"""Steers and ablates while a direction is fitted: chooses its layer by cost and effect, and measures its dose-response."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float

import cli
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, DataError
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import by_question, paired_difference
from emis_interp.passes.sweeps import SteerCell, margins
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.stats.interval import mean_interval
from emis_interp.texts.contrast import paired_texts
from emis_interp.texts.harmless import harmless_prompts
from probes.causal_selection import KL_LIMIT, Choice, choose, measure, steering_effects

COEFFICIENTS = (-0.4, -0.2, -0.1, 0.1, 0.2, 0.4)
AUROC_RULE = (
    "The largest leave-one-question-out AUROC on the selection questions; among layers within 0.005 of it, the one that separates the "
    "classes by most within-question standard deviations."
)


def add_causal_flags(parser: argparse.ArgumentParser) -> None:
    """How the layer is chosen, and what is steered."""
    parser.add_argument(
        "--select",
        choices=("causal", "auroc"),
        default="auroc",
        help="choose the layer by AUROC (the model is not run again), or by what steering does and ablating costs",
    )
    parser.add_argument("--coefficient", type=float, default=0.2, help="of the steering that ranks layers; positive")
    parser.add_argument("--kl-limit", type=float, default=KL_LIMIT, help="nats; candidates that cost more are dropped")
    parser.add_argument(
        "--n-pairs", type=int, default=2, help="pairs of answers per question that steering is measured on"
    )
    parser.add_argument(
        "--coefficients",
        type=float,
        nargs="*",
        help=f"of the dose-response; default: {' '.join(map(str, COEFFICIENTS))}; the flag alone leaves it out",
    )


class CausalStage:
    """The texts, the model and the flags of one fit; measured in batches that many layers and coefficients share."""

    def __init__(
        self, chat_model: ChatModel, args: argparse.Namespace, texts: Sequence[LabeledText], *, selection: set[str]
    ) -> None:
        if args.coefficient <= 0 or args.n_pairs < 1:
            raise ConfigError("--coefficient and --n-pairs must be positive")
        self.chat_model, self.args = chat_model, args
        pairs = paired_texts(texts, selection, args.n_pairs)
        self.pairs = {half: [pair for pair in pairs if pair.half == half] for half in ("selection", "report")}
        self.choice: Choice | None = None

    def choose_layer(self, candidates: Sequence[Direction], aurocs: Float[np.ndarray, "n_layers"]) -> int:
        """Index of the winner among directions fitted on the selection questions; keeps the whole table."""
        prompts = [
            encode_prompt(self.chat_model.tokenizer, text, self.args.system_prompt) for text in harmless_prompts()
        ]
        with cli.progress_bar("select", len(candidates)) as advance:
            rows = measure(
                self.chat_model,
                candidates,
                aurocs.tolist(),
                pairs=self.half("selection"),
                harmless=prompts,
                coefficient=self.args.coefficient,
                system=self.args.system_prompt,
                max_batch_tokens=self.args.max_batch_tokens,
                progress=advance,
            )
        self.choice = choose(rows, self.args.kl_limit)
        return self.choice.candidates.index(self.choice.chosen)

    def card(self, direction: Direction) -> dict[str, Any]:
        """How the layer was chosen, every candidate's numbers, and the winner's effect on the report questions.

        `direction` is the winner's fit on the selection questions.
        """
        if self.choice is None:
            return {"by": "auroc", "rule": AUROC_RULE}
        dropped = self.choice.dropped
        effect = steering_effects(
            self.chat_model,
            [direction],
            self.half("report"),
            coefficient=self.args.coefficient,
            system=self.args.system_prompt,
            max_batch_tokens=self.args.max_batch_tokens,
        )[0]
        return {
            "by": "causal",
            "rule": self.choice.rule,
            "note": self.choice.note,
            "coefficient": self.args.coefficient,
            "kl_limit": self.args.kl_limit,
            "n_pairs": len(self.half("selection")),
            "candidates": [{**asdict(row), "dropped": dropped.get(row.layer)} for row in self.choice.candidates],
            "report_effect": estimate(effect),
        }

    def dose_response(self, direction: Direction, coefficients: Sequence[float]) -> dict[str, list[dict[str, Any]]]:
        """Margin shift on the report questions at every coefficient, along the direction and a random one of the same norm."""
        vector = random_directions(1, 1, len(direction.vector), seed=self.args.seed)[0, 0]
        along = {"direction": direction, "random": replace(direction, vector=vector)}
        cells = [SteerCell(direction, 0.0)]
        cells += [SteerCell(one, coefficient) for one in along.values() for coefficient in coefficients]
        pairs = self.half("report")
        with cli.progress_bar("dose", len(cells)) as advance:
            found = margins(
                self.chat_model,
                cells,
                pairs,
                system=self.args.system_prompt,
                max_batch_tokens=self.args.max_batch_tokens,
                progress=advance,
            )
        before, *after = [by_question(pairs, row) for row in found]
        shifts = iter([estimate(paired_difference(row, before)) for row in after])
        return {name: [{"coefficient": c, **next(shifts)} for c in coefficients] for name in along}

    @property
    def coefficients(self) -> list[float]:
        """Those asked for; otherwise the default ones, or none where the report questions have no pairs."""
        if self.args.coefficients is not None:
            return sorted(self.args.coefficients)
        return list(COEFFICIENTS) if self.pairs["report"] else []

    def half(self, name: str) -> list[ContrastPair]:
        if not self.pairs[name]:
            raise DataError(
                f"no {name} question has a misaligned and an aligned answer to the same wording, so steering cannot be measured; give such "
                "texts, or --select auroc without --coefficients"
            )
        return self.pairs[name]


def estimate(by_question: dict[str, float]) -> dict[str, Any]:
    """Mean over questions with its 95 % t interval."""
    interval = mean_interval(list(by_question.values()))
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n_questions": len(by_question)}
