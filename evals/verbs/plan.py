"""Turns two rates that a study should tell apart into the number of answers that it needs."""

from dataclasses import asdict
from typing import Any

from emis_interp.process import Bars, no_bars
from evals.rates.planning import STEPS, plan_answers
from evals.rates.simulation import Design
from evals.settings import PlanSettings


def run(settings: PlanSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """The plan, with what was asked."""
    design = Design(settings.n_questions, STEPS[-1], settings.rate, settings.icc, against=settings.against)
    plan = plan_answers(design, settings.power, settings.n_studies, seed=settings.seed, population=settings.population)
    asked = {name: getattr(settings, name) for name in ("rate", "against", "icc", "population")}
    return {**asked, **asdict(plan)}


def say(result: dict[str, Any]) -> str:
    given = " (as given, no others meant)" if result["population"] == "suite" else ""
    ask = f"to tell {result['rate']:.1%} from {result['against']:.1%} with {result['n_questions']} questions{given}"
    if result["n_answers"] is None:
        most = result["tried"][-1][0]
        end = f"no number of answers is enough: {most} to each question reach a power of {result['power']:.0%}; add questions"
    else:
        end = f"you need {result['n_answers']} answers to each question in each arm (power {result['power']:.0%})"
    tried = ", ".join(f"{n}: {power:.0%}" for n, power in result["tried"])
    return f"{ask} in {result['wanted']:.0%} of studies, {end}\nsimulated, answers to each question: power = {tried}"
