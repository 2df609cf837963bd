"""Searches, layer by layer, the steering coefficient with the strongest shift that leaves 90 % of the coherent answers coherent.

Pairs and system prompt are those that the direction was fitted with, and the fit is the one on the selection questions. The cheap score
at every step: the shift of the likelihood margin on the selection questions, and the share of coherent answers (offline judge, > 50) among
samples to the shipped questions, relative to the unsteered model. The final score of each layer's best coefficient: the margin shift on
the report questions and the judged rate of fresh answers. The primary contrast is the margin shift at the direction's own layer; other
layers are exploratory, with p-values corrected for their number. Coefficients are in multiples of the mean residual norm of the layer.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cli
from direction.loading import add_direction_flags, add_pair_flags, model_of, pairs_of, tensors_beside
from emis_interp.config.run_config import SamplingConfig
from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError
from emis_interp.files.store import write_json, write_text
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import steer
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.records import Completion, ContrastPair, Score
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_transfer import dose_figure
from emis_interp.stats.families import holm, mean_p
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.words import bounds
from evals.judges.offline_judge import OfflineJudge
from evals.questions import load_questions
from evals.rates.estimands import Answers, em_of_all
from evals.rates.uncertainty import rate_interval
from evals.sampling import sample_arm
from probes.strongest_coefficient import Frontier, Point, find_frontier


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_direction_flags(parser)
    add_pair_flags(parser, n_pairs=2)
    parser.add_argument("--layers", type=int, nargs="+", help="default: the direction's own layer")
    parser.add_argument(
        "--floor", type=float, default=0.9, help="share of the unsteered model's coherent answers to keep"
    )
    parser.add_argument(
        "--first", type=float, default=0.1, help="first coefficient; negative searches the aligned side"
    )
    parser.add_argument("--largest", type=float, default=1.6, help="largest |coefficient|")
    parser.add_argument("--n-bisections", type=int, default=3, help="steps after bracketing")
    parser.add_argument(
        "--n-samples", type=int, default=4, help="answers per paraphrase at each step; doubled at the end"
    )
    parser.add_argument("--max-new-tokens", type=int, default=60, help="limit of an answer")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    parser.add_argument("--out", type=Path, help="JSON file; default: frontier.json beside the direction")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One search per layer."""
    direction = Direction.load(args.direction, fit="selection")
    stored = tensors_beside(args.direction, "all_layers")
    pairs = pairs_of(direction, args, "selection", "report")
    chat_model = model_of(direction, args)
    layers = args.layers or [direction.layer]
    chat_model.check_layers(layers)
    scorer = Scorer(chat_model, args, pairs, system=direction.card.get("system_prompt"))
    results = []
    for layer in layers:
        raw = stored["raw_selection"][layer]
        at_layer = Direction(unit(raw), layer, float(raw.norm()), float(stored["residual_norm"][layer]))
        found = find_frontier(
            lambda coefficient, at_layer=at_layer: scorer.point(at_layer, coefficient),
            args.floor,
            args.first,
            largest=args.largest,
            n_bisections=args.n_bisections,
        )
        contrast = "primary" if layer == direction.layer else "exploratory"
        final = scorer.final(at_layer, found.best)
        results.append({"layer": layer, "contrast": contrast, **described(found), "final": final})
        cli.stderr.print(line(results[-1]))
    correct(results)
    out = args.out or args.direction.parent / "frontier.json"
    result = {
        "floor": args.floor,
        "fit": "selection questions",
        "system_prompt": direction.card.get("system_prompt"),
        "n_pairs": {half: sum(pair.half == half for pair in pairs) for half in ("selection", "report")},
        "unsteered_coherent": scorer.coherent_before,
        "unsteered": scorer.unsteered,
        "layers": results,
    }
    write_json(out, result)
    sections = [
        (
            "Effect",
            "Shift of the likelihood margin on the selection questions (nats per token); stars: the best point above the floor.",
            dose_figure(results, "effect", "margin shift"),
        ),
        (
            "Coherence kept",
            "Coherent answers relative to the unsteered model; dotted: the floor.",
            dose_figure(results, "coherence", "share kept", floor=args.floor),
        ),
    ]
    facts = {
        "direction": str(args.direction),
        "model": chat_model.name,
        "unsteered coherent share": f"{scorer.coherent_before:.2f}",
    }
    write_text(out.with_suffix(".html"), figure_page("steering frontier", facts, sections))
    return {**result, "out": str(out)}


class Scorer:
    """Measures one steering cell of a loaded model against the model as it is."""

    def __init__(
        self, chat_model: ChatModel, args: argparse.Namespace, pairs: list[ContrastPair], *, system: str | None
    ) -> None:
        self.chat_model, self.args = chat_model, args
        self.pairs, self.system = pairs, system
        self.questions = load_questions()
        self.judge = OfflineJudge.load(args.device)
        self.before = {half: self.margins(half) for half in ("selection", "report")}
        scores = self.answers(args.n_samples, args.seed)
        self.coherent_before = coherent_share(scores)
        if self.coherent_before == 0:
            raise DataError(
                "the unsteered model gave no coherent answer, so no share of it can be kept; raise --n-samples"
            )
        self.unsteered = rate_of(self.answers(2 * args.n_samples, args.seed + 1))

    def point(self, direction: Direction, coefficient: float) -> Point:
        """Margin shift on the selection questions and share of coherence kept."""
        with steer(self.chat_model, direction, coefficient):
            shift = paired_difference(self.margins("selection"), self.before["selection"])
            coherent = coherent_share(self.answers(self.args.n_samples, self.args.seed))
        return Point(coefficient, sum(shift.values()) / len(shift), coherent / self.coherent_before)

    def final(self, direction: Direction, best: Point | None) -> dict[str, Any] | None:
        """Report questions and fresh answers at the chosen coefficient; None when no coefficient keeps the floor."""
        if best is None:
            return None
        with steer(self.chat_model, direction, best.coefficient):
            shift = paired_difference(self.margins("report"), self.before["report"])
            scores = self.answers(2 * self.args.n_samples, self.args.seed + 1)
        interval = mean_interval(list(shift.values()))
        return {
            "coefficient": best.coefficient,
            "margin_shift": {
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "n_questions": len(shift),
                "p": mean_p(list(shift.values())),
            },
            "coherent": coherent_share(scores),
            **rate_of(scores),
        }

    def margins(self, half: str) -> dict[str, float]:
        pairs: list[ContrastPair] = [pair for pair in self.pairs if pair.half == half]
        return by_question(
            pairs, pair_margins(self.chat_model, pairs, self.system, max_batch_tokens=self.args.max_batch_tokens)
        )

    def answers(self, n: int, seed: int) -> list[Score]:
        config = SamplingConfig(samples_per_paraphrase=n, max_new_tokens=self.args.max_new_tokens)
        with tempfile.TemporaryDirectory() as folder:
            rows: list[Completion] = sample_arm(
                self.chat_model,
                "cell",
                self.questions,
                config=config,
                path=Path(folder) / "cell.jsonl",
                seed=seed,
                system=self.system,
            )
        scores: list[Score] = []
        self.judge.score(rows, {question.id: question for question in self.questions}, scores.extend)
        return scores


def correct(results: list[dict[str, Any]]) -> None:
    """Put Holm's p-value beside each layer's p of no margin shift: the layers of one search are one family."""
    finals = {row["layer"]: row["final"]["margin_shift"] for row in results if row["final"] is not None}
    for layer, p in holm({layer: shift["p"] for layer, shift in finals.items()}).items():
        finals[layer]["p_holm"] = p


def coherent_share(scores: list[Score]) -> float:
    """Share of all answers with a coherence above 50; an answer without a score is not coherent."""
    return sum(score.coherent is not None and score.coherent > 50 for score in scores) / len(scores)


def rate_of(scores: list[Score]) -> dict[str, Any]:
    found = rate_interval(Answers.from_scores(scores), em_of_all)
    return {"em_of_all": {"value": found.value, "low": found.low, "high": found.high, "n": found.n}}


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
