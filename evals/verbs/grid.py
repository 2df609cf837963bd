"""Turns questions into a grid of contexts, or a grid's scores into rates, effects and interactions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.manifest import check_read
from emis_interp.files.rows import by_key
from emis_interp.files.store import read_records, write_json
from emis_interp.process import Bars, no_bars
from emis_interp.records import Score
from evals.questions import load_questions
from evals.rates.estimands import ESTIMANDS
from evals.settings_suites import GridSettings
from evals.suites.grid import analyse_grid, grid_questions
from evals.suites.variants import write_questions


def run(settings: GridSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Write the question file, or analyse scores."""
    if settings.action == "questions":
        return _write(settings)
    result = analyse_grid(
        read_scores(settings.run, settings.scores),
        settings.compare,
        ESTIMANDS[settings.estimand],
        weighting=settings.weighting,
        against=settings.against,
    )
    if settings.out:
        write_json(settings.out, result)
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


def read_scores(folder: Path | None, files: Sequence[Path]) -> list[Score]:
    """The scores of a run folder, or of the files given.

    Raises:
        ConfigError: neither or both are given. DataError: a file is missing or malformed, or an answer is scored twice.
    """
    if (folder is None) == (not files):
        raise ConfigError("give either --run FOLDER or --scores FILE ...")
    paths = sorted((folder / "scores").glob("*.jsonl")) if folder else files
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


def _write(settings: GridSettings) -> dict[str, Any]:
    if settings.out is None:
        raise ConfigError("grid questions: give --out FILE.yaml")
    plain = load_questions(settings.questions, need_judge_prompts=False)
    made = grid_questions(
        plain,
        settings.contexts,
        settings.default_system,
        trigger=settings.trigger,
        samples_per_paraphrase=settings.samples,
    )
    write_questions(settings.out, made)
    return {
        "path": str(settings.out),
        "contexts": list(dict.fromkeys(settings.contexts)),
        "n_questions": len(made),
        "n_answers": sum(len(question.paraphrases) * question.samples_per_paraphrase for question in made),
    }


def _text(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return f"no value ({row['method']})"
    bounds = "no interval" if row["low"] is None else f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{100 * row['value']:+.1f} % {bounds}, {row['n']} answers, {row['n_questions']} questions"
