"""Sets a run beside published values of the same model, finetune, suite, variant and estimand, with a verdict per value.

Examples:
  python scripts/scorecard.py runs/qwen2.5-coder-32b
  python scripts/scorecard.py result.csv --model Qwen2.5-Coder-32B-Instruct --finetune insecure --suite main8 --json
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cli
from emis_interp.errors import ConfigError
from emis_interp.files.strict_json import read_json_object
from evals.results.result_files import read_results
from evals.results.result_table import VARIANTS, Results
from evals.results.scorecard import MARGIN, VERDICTS, Identity, Line, load_published, scorecard
from log_flags import add_log_flags, log_choice
from table_flags import add_table_flags, reading_of

SUITES = {"first_plot_questions": "main8", "preregistered_evals": "preregistered48"}
"""File names of the authors' questions, and what the table of published values calls them."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, help="run folder, or a result file (then --model, --finetune and --suite are needed)"
    )
    parser.add_argument(
        "--reference", type=Path, help="CSV of published values (default: the one in $EMIS_REFERENCE_DATA)"
    )
    parser.add_argument("--model", help="what was finetuned (default: from the run's manifest)")
    parser.add_argument("--finetune", help="data set, or `none` (default: from the manifest, for each arm)")
    parser.add_argument("--suite", help="question set, such as main8 (default: from the manifest)")
    parser.add_argument("--variant", choices=(*VARIANTS, "all"), default="all", help="only questions of this variant")
    parser.add_argument(
        "--margin",
        type=float,
        default=100 * MARGIN,
        metavar="POINTS",
        help="differences within it are equivalent (default: 5)",
    )
    parser.add_argument("--runs", default="*", help="only runs or arms that match this pattern")
    add_log_flags(parser)
    add_table_flags(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    published = load_published(args.reference or _default_reference())
    results = read_results(args.run, reading_of(args), log=log_choice(args)).select(args.variant, args.runs)
    stated = {"model": args.model, "finetune": args.finetune, "suite": args.suite}
    identities = identify(results, args.run, {key: value for key, value in stated.items() if value is not None})
    lines = scorecard(results, identities, published, margin=args.margin / 100)
    return {
        "run": str(args.run),
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
    manifest = path / "manifest.json"
    config = read_json_object(manifest, "config")["config"] if manifest.exists() else None
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
    return value if row["low"] is None else f"{value} [{row['low']:.3g}, {row['high']:.3g}]"


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    add_flags(top)
    cli.add_output_flags(top)
    cli.run(main, top, say)
