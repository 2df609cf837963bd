"""Turns a run, or a result file, into a verdict on every published value of the same model, finetune, suite, variant and estimand."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.files.manifest import MANIFEST, read_manifest
from emis_interp.process import Bars, no_bars
from emis_interp.stats.words import limits
from evals.results.result_files import chosen_results
from evals.results.result_table import Results
from evals.results.scorecard import VERDICTS, Identity, Line, load_published, scorecard
from evals.settings.results import ScorecardSettings

SUITES = {"first_plot_questions": "main8", "preregistered_evals": "preregistered48"}
"""File names of the authors' questions, and what the table of published values calls them."""


def run(settings: ScorecardSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Who was run, and a line for every published value."""
    published = load_published(settings.reference or _default_reference())
    results = chosen_results(settings.run, settings)
    stated = {"model": settings.model, "finetune": settings.finetune, "suite": settings.suite}
    identities = identify(results, settings.run, {key: value for key, value in stated.items() if value is not None})
    lines = scorecard(results, identities, published, margin=settings.margin / 100)
    return {
        "run": str(settings.run),
        "identities": {name: asdict(identity) for name, identity in identities.items()},
        "judges": sorted({str(name) for name in results.extra.get("judge", ()) if name}),
        "verdicts": {verdict: sum(line.verdict == verdict for line in lines) for verdict in VERDICTS},
        "rows": [_as_dict(line) for line in lines],
    }


def identify(results: Results, path: Path, stated: dict[str, str]) -> dict[str, Identity]:
    """What every run is: as stated with flags, else as the manifest of the run folder says.

    Raises:
        ConfigError: a result file, and a flag is missing.
    """
    config = read_manifest(path).get("config") if (path / MANIFEST).exists() else None
    lacking = [f"--{key}" for key in ("model", "finetune", "suite") if key not in stated]
    if config is None and lacking:
        raise ConfigError(f"{path} does not say what was run; give {', '.join(lacking)}")
    return {
        name: Identity(**{**({} if config is None else from_manifest(config, name)), **stated})
        for name in results.run_names
    }


def from_manifest(config: dict[str, Any], arm: str) -> dict[str, str]:
    """Model, finetune and suite of an arm. The project's own data sets and questions are not those of the papers, and are named so."""
    entry = next((entry for entry in config["arms"] if entry["name"] == arm), None)
    if entry is None:
        raise ConfigError(
            f"arm `{arm}` has answers, but manifest.json has no such arm; give --finetune, --model and --suite"
        )
    dataset, questions = entry["dataset"], config["sampling"]["questions"]
    finetune = "none" if dataset is None else Path(dataset).name.partition(".")[0]
    if dataset is not None and "." not in dataset:
        finetune += " (shipped)"
    if entry["n_rows"] is not None:
        finetune += f"[{entry['n_rows']}]"
    stem = Path(questions).stem
    suite = SUITES.get(stem, f"{stem} questions")
    if config["system_prompt"] is not None:
        suite += " under a system prompt"
    return {"model": config["model"], "finetune": finetune, "suite": suite}


def say(result: dict[str, Any]) -> str:
    lines = []
    for row in sorted(result["rows"], key=lambda row: row["verdict"] == "not comparable"):
        said = row["published"]
        what = f"{said['model']} {said['finetune']} {said['suite']} {said['variant']}: {said['estimand']}"
        numbers = f"published {_interval(said)}"
        if row["ours"] is not None:
            numbers += f", {row['run']} {_interval(row['ours'])} (n {row['ours']['n']})"
        lines.append(f"{row['verdict']:14}  {what}\n{'':16}{numbers}; {row['reason']}")
    counts = ", ".join(f"{n} {verdict}" for verdict, n in result["verdicts"].items())
    judges = ", ".join(result["judges"]) or "not stated in the file"
    return "\n".join(
        [
            *lines,
            "",
            f"{counts}. Judge of the run: {judges}. The run's intervals leave out its finetuning seed; of twenty equal rates one is "
            "called different by chance, and no row stands out as the primary one.",
        ]
    )


def _default_reference() -> Path:
    folder = os.environ.get("EMIS_REFERENCE_DATA")
    if not folder:
        raise ConfigError(
            "no published values: give a CSV file with --reference, or set EMIS_REFERENCE_DATA to the folder that has "
            "reference/published_values.csv (third-party data that the project does not ship)"
        )
    return Path(folder) / "reference" / "published_values.csv"


def _as_dict(line: Line) -> dict[str, Any]:
    ours = None if line.ours is None else asdict(line.ours)
    shift = None if line.difference is None else dict(zip(("value", "low", "high"), line.difference, strict=True))
    return {
        "published": line.published.model_dump(),
        "run": line.run,
        "ours": ours,
        "difference": shift,
        "verdict": line.verdict,
        "reason": line.reason,
    }


def _interval(row: dict[str, Any]) -> str:
    value = "no value" if row["value"] is None else f"{row['value']:.3g}"
    return f"{value} {limits(row, '.3g', none='')}".rstrip()
