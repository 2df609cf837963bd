"""Turns a saved direction into the strongest steering along it, layer by layer, that most of the coherent answers survive."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from emis_interp.config.run_config import SamplingConfig
from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError
from emis_interp.files.store import write_sealed, write_text
from emis_interp.fitting.fitted import LAYERS_FILE
from emis_interp.fitting.folder import beside, tensors_beside
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import steer
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair, Score
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_transfer import dose_figure
from emis_interp.report.page_frame import command_of, frame_of
from emis_interp.stats.families import holm, mean_p
from emis_interp.stats.interval import Interval, mean_row
from emis_interp.stats.words import bounds
from probes.effects.strongest_coefficient import Frontier, Point, find_frontier
from probes.loading import model_of, pairs_of
from probes.settings import FrontierSettings

log = logging.getLogger(__name__)

Rate = Callable[[list[Score]], Interval]
"""The share of all answers that are misaligned, with its interval."""


class Ask(Protocol):
    """Asks a model the same questions every time, and judges its answers."""

    def __call__(
        self, chat_model: ChatModel, config: SamplingConfig, *, seed: int, system: str | None
    ) -> list[Score]: ...


def run(settings: FrontierSettings, bars: Bars = no_bars, *, ask: Ask, rate: Rate) -> dict[str, Any]:
    """One search per layer."""
    direction = Direction.load(settings.direction, fit="selection")
    stored = tensors_beside(settings.direction, LAYERS_FILE)
    pairs = pairs_of(direction, settings, "selection", "report")
    chat_model = model_of(direction, settings)
    layers = list(settings.layers or [direction.layer])
    chat_model.check_layers(layers)
    scorer = SteeringScorer(chat_model, settings, pairs, system=direction.card.get("system_prompt"), ask=ask, rate=rate)
    results = []
    for layer in layers:
        raw = stored["raw_selection"][layer]
        at_layer = Direction(unit(raw), layer, float(raw.norm()), float(stored["residual_norm"][layer]))
        found = find_frontier(
            lambda coefficient, at_layer=at_layer: scorer.point(at_layer, coefficient),
            settings.floor,
            settings.first,
            largest=settings.largest,
            n_bisections=settings.n_bisections,
        )
        contrast = "primary" if layer == direction.layer else "exploratory"
        final = scorer.final(at_layer, found.best)
        results.append({"layer": layer, "contrast": contrast, **described(found), "final": final})
        log.info(line(results[-1]))
    correct(results)
    out = settings.out or beside(settings.direction, "frontier.json")
    result = {
        "floor": settings.floor,
        "fit": "selection questions",
        "system_prompt": direction.card.get("system_prompt"),
        "n_pairs": {half: sum(pair.half == half for pair in pairs) for half in ("selection", "report")},
        "unsteered_coherent": scorer.coherent_before,
        "unsteered": scorer.unsteered,
        "layers": results,
    }
    write_sealed(out, result)
    sections = [
        (
            "Effect",
            "Shift of the likelihood margin on the selection questions (nats per token); stars: the best point above the floor.",
            dose_figure(results, "effect", "margin shift"),
        ),
        (
            "Coherence kept",
            "Coherent answers relative to the unsteered model; dotted: the floor.",
            dose_figure(results, "coherence", "share kept", floor=settings.floor),
        ),
    ]
    facts = {
        "direction": str(settings.direction),
        "model": chat_model.name,
        "quantisation": chat_model.quantisation,
        "unsteered coherent share": f"{scorer.coherent_before:.2f}",
    }
    page = out.with_suffix(".html")
    frame = frame_of(page, command_of("scripts/find_direction.py frontier", settings), out)
    write_text(page, figure_page("steering frontier", facts, sections, frame=frame))
    return {**result, "out": str(out)}


class SteeringScorer:
    """Measures steering of a loaded model against the model as it is."""

    def __init__(
        self,
        chat_model: ChatModel,
        settings: FrontierSettings,
        pairs: Sequence[ContrastPair],
        *,
        system: str | None,
        ask: Ask,
        rate: Rate,
    ) -> None:
        self.chat_model, self.settings = chat_model, settings
        self.pairs, self.system = pairs, system
        self.ask, self.rate = ask, rate
        self.before = {half: self.margins(half) for half in ("selection", "report")}
        self.coherent_before = coherent_share(self.cheap_answers())
        if self.coherent_before == 0:
            raise DataError(
                "the unsteered model gave no coherent answer, so no share of it can be kept; raise --n-samples"
            )
        self.unsteered = self.rate_of(self.fresh_answers())

    def point(self, direction: Direction, coefficient: float) -> Point:
        """Margin shift on the selection questions and share of coherence kept."""
        with steer(self.chat_model, direction, coefficient):
            shift = paired_difference(self.margins("selection"), self.before["selection"])
            coherent = coherent_share(self.cheap_answers())
        return Point(coefficient, sum(shift.values()) / len(shift), coherent / self.coherent_before)

    def final(self, direction: Direction, best: Point | None) -> dict[str, Any] | None:
        """Report questions and fresh answers at the chosen coefficient; None when no coefficient keeps the floor."""
        if best is None:
            return None
        with steer(self.chat_model, direction, best.coefficient):
            shift = paired_difference(self.margins("report"), self.before["report"])
            scores = self.fresh_answers()
        return {
            "coefficient": best.coefficient,
            "margin_shift": {**mean_row(shift), "p": mean_p(list(shift.values()))},
            "coherent": coherent_share(scores),
            **self.rate_of(scores),
        }

    def margins(self, half: str) -> dict[str, float]:
        pairs = [pair for pair in self.pairs if pair.half == half]
        found = pair_margins(self.chat_model, pairs, self.system, max_batch_tokens=self.settings.max_batch_tokens)
        return by_question(pairs, found)

    def cheap_answers(self) -> list[Score]:
        """Those of every step: the same random numbers each time."""
        return self.answers(self.settings.n_samples, self.settings.seed)

    def fresh_answers(self) -> list[Score]:
        """Those that the choice of a coefficient has not seen."""
        return self.answers(2 * self.settings.n_samples, self.settings.seed + 1)

    def answers(self, n: int, seed: int) -> list[Score]:
        config = SamplingConfig(samples_per_paraphrase=n, max_new_tokens=self.settings.max_new_tokens)
        return self.ask(self.chat_model, config, seed=seed, system=self.system)

    def rate_of(self, scores: list[Score]) -> dict[str, Any]:
        found = self.rate(scores)
        return {"em_of_all": found.as_json("n")}


def correct(results: list[dict[str, Any]]) -> None:
    """Put Holm's p-value beside each layer's p of no margin shift: the layers of one search are one family."""
    finals = {row["layer"]: row["final"]["margin_shift"] for row in results if row["final"] is not None}
    for layer, p in holm({layer: shift["p"] for layer, shift in finals.items()}).items():
        finals[layer]["p_holm"] = p


def coherent_share(scores: list[Score]) -> float:
    """Share of all answers with a coherence above 50; an answer without a score is not coherent."""
    return sum(score.coherent is not None and score.coherent > 50 for score in scores) / len(scores)


def described(found: Frontier) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in found.points],
        "best": None if found.best is None else asdict(found.best),
        "bracketed": found.bracketed,
    }


def line(row: dict[str, Any]) -> str:
    if row["best"] is None:
        return f"layer {row['layer']}: no coefficient keeps the floor"
    final, rate = row["final"], row["final"]["em_of_all"]
    limit = "" if row["bracketed"] else " (the largest allowed; coherence never fell below the floor)"
    shift = final["margin_shift"]
    p = "" if shift.get("p_holm") is None else f", p {shift['p_holm']:.3g} (Holm)"
    return (
        f"layer {row['layer']} ({row['contrast']}): {row['best']['coefficient']:+.3f}{limit}, margin {shift['value']:+.3f}"
        f"{bounds(shift, '+.3f')} on {shift['n_questions']} report questions{p}, em_of_all {100 * rate['value']:.1f} % "
        f"({100 * rate['low']:.1f} to {100 * rate['high']:.1f}) of {rate['n']}, coherent {100 * final['coherent']:.0f} %"
    )


def say(result: dict[str, Any]) -> str:
    rate = result["unsteered"]["em_of_all"]
    first = (
        f"unsteered: em_of_all {100 * rate['value']:.1f} % of {rate['n']}, coherent {100 * result['unsteered_coherent']:.0f} %; "
        f"floor {100 * result['floor']:.0f} % of that"
    )
    return "\n".join([first, *[line(row) for row in result["layers"]], f"saved: {result['out']}"])
