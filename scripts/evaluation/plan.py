"""Say how many answers a study needs to tell two rates apart, given its number of questions; found by simulation.

Examples:
  python scripts/evaluate.py plan 0.05 0.01
  python scripts/evaluate.py plan 0.05 0.01 --population suite
  python scripts/evaluate.py plan 0.2 0.05 --n-questions 24 --icc 0.05 --power 0.9

Simulated questions have rates of their own (beta distribution, intraclass correlation `--icc`) that rise and fall together in both arms;
the study succeeds when the 95 % interval of the difference leaves out 0. The finetuning seed is not part of it: one model an arm.
"""

import argparse
from dataclasses import asdict
from typing import Any, get_args

from evals.rates.confidence import Population
from evals.rates.planning import STEPS, TYPICAL_ICC, plan_answers
from evals.rates.simulation import Design


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rate", type=float, help="rate of one arm, in (0, 1)")
    parser.add_argument("against", type=float, help="rate of the other arm")
    parser.add_argument("--n-questions", type=int, default=8, help="questions, the same in both arms")
    parser.add_argument(
        "--population",
        choices=get_args(Population),
        default="questions",
        help="speak of all questions that might have been asked, or of this suite's alone",
    )
    parser.add_argument("--icc", type=float, default=TYPICAL_ICC, help="share of variance between questions")
    parser.add_argument("--power", type=float, default=0.8, help="share of studies that should succeed")
    parser.add_argument("--n-studies", type=int, default=400, help="simulated studies for each number of answers")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")


def run(args: argparse.Namespace) -> dict[str, Any]:
    design = Design(args.n_questions, STEPS[-1], args.rate, args.icc, against=args.against)
    plan = plan_answers(design, args.power, args.n_studies, seed=args.seed, population=args.population)
    return {"rate": args.rate, "against": args.against, "icc": args.icc, "population": args.population, **asdict(plan)}


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
