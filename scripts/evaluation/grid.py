"""Contexts x questions: write the grid as a question file, or analyse its scores with effects of context and interactions.

evaluate.py grid questions --out grid.yaml                     then sample and judge that file as any other
evaluate.py grid analyse --run runs/NAME --compare insecure secure
evaluate.py grid analyse --scores a.jsonl b.jsonl --compare ablated insecure --out grid.json
"""

import argparse
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.manifest import check_read
from emis_interp.files.rows import by_key
from emis_interp.files.store import read_records, write_json
from emis_interp.records import Score
from evals.questions import load_questions
from evals.rates.estimands import ESTIMANDS
from evals.suites.grid import DEFAULT_SYSTEM, STANDARD, TRIGGER, analyse_grid, contexts, grid_questions
from evals.suites.variants import write_questions


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("questions", "analyse"), help="write the question file, or analyse scores")
    parser.add_argument(
        "--out", type=Path, help="questions: the YAML file to write; analyse: a JSON file for the whole result"
    )
    asked = parser.add_argument_group("questions")
    asked.add_argument("--questions", type=Path, help="YAML file of plain questions (default: the shipped suite)")
    asked.add_argument(
        "--contexts", nargs="+", default=list(STANDARD), metavar="NAME", help=f"of {', '.join(contexts())}"
    )
    asked.add_argument("--default-system", default=DEFAULT_SYSTEM, help="system prompt of the context `default`")
    asked.add_argument("--trigger", default=TRIGGER, help="text before the question in the context `trigger`")
    asked.add_argument("--samples", type=int, help="answers per question text (default: the question file's)")
    found = parser.add_argument_group("analyse")
    found.add_argument("--run", type=Path, help="run folder: reads its scores/*.jsonl")
    found.add_argument("--scores", type=Path, nargs="+", metavar="FILE", help="score files (JSONL), of one arm or more")
    found.add_argument(
        "--compare",
        nargs=2,
        action="append",
        default=[],
        metavar=("ARM", "REFERENCE"),
        help="two arms; may be repeated",
    )
    found.add_argument("--against", default="none", help="the context that others are compared with")
    found.add_argument("--estimand", choices=tuple(ESTIMANDS), default="em_of_coherent", help="which rate")
    found.add_argument(
        "--weighting", choices=("macro", "pooled"), default="macro", help="questions or answers weigh alike"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.action == "questions":
        return _write(args)
    result = analyse_grid(
        read_scores(args.run, args.scores),
        [(arm, reference) for arm, reference in args.compare],
        ESTIMANDS[args.estimand],
        weighting=args.weighting,
        against=args.against,
    )
    if args.out:
        write_json(args.out, result)
    return result


def say(result: dict[str, Any]) -> str:
    if "n_questions" in result:
        return (
            f"{result['path']}: {result['n_questions']} questions ({', '.join(result['contexts'])}), {result['n_answers']} answers "
            "for each arm; sample it as any question file"
        )
    lines = [f"{result['estimand']}, {result['weighting']} over questions"]
    lines += [f"  {r['arm']} in {r['context']}: {_text(r)}" for r in result["rates"]]
    lines += [f"  {r['arm']}, {r['context']} - {r['against']}: {_text(r)}" for r in result["context_effects"]]
    for r in result["arm_effects"]:
        where = "over all contexts" if r["context"] is None else f"in {r['context']}"
        lines.append(f"  {r['arm']} - {r['reference']} {where}: {_text(r)}")
    lines += [
        f"  interaction of {r['arm']} - {r['reference']} with {r['context']} - {r['against']}: {_text(r)}"
        for r in result["interactions"]
    ]
    lines.append(
        "exploratory: 95 % intervals, not corrected for their number; give the contrast that a claim rests on before looking"
    )
    return "\n".join(lines)


def read_scores(folder: Path | None, files: list[Path] | None) -> list[Score]:
    """The scores of a run folder, or of the files given.

    Raises:
        ConfigError: neither or both are given. DataError: a file is missing or malformed, or an answer is scored twice.
    """
    if (folder is None) == (files is None):
        raise ConfigError("give either --run FOLDER or --scores FILE ...")
    paths = sorted((folder / "scores").glob("*.jsonl")) if folder else files or []
    if not paths:
        raise DataError(f"{folder}/scores: no score files (*.jsonl) there; judge the run first")
    if folder:
        check_read(folder, paths)
    scores, seen = [], {}
    for path in paths:
        for score in by_key(read_records(path, Score), path).values():
            if score.key in seen:
                raise DataError(
                    f"{path}: the answer {score.key} is scored in {seen[score.key]} too; give each answer once"
                )
            seen[score.key] = path
            scores.append(score)
    return scores


def _write(args: argparse.Namespace) -> dict[str, Any]:
    if args.out is None:
        raise ConfigError("grid questions: give --out FILE.yaml")
    plain = load_questions(args.questions, need_judge_prompts=False)
    made = grid_questions(
        plain, args.contexts, args.default_system, trigger=args.trigger, samples_per_paraphrase=args.samples
    )
    write_questions(args.out, made)
    return {
        "path": str(args.out),
        "contexts": list(dict.fromkeys(args.contexts)),
        "n_questions": len(made),
        "n_answers": sum(len(question.paraphrases) * question.samples_per_paraphrase for question in made),
    }


def _text(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return f"no value ({row['method']})"
    bounds = "no interval" if row["low"] is None else f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{100 * row['value']:+.1f} % {bounds}, {row['n']} answers, {row['n_questions']} questions"
