"""Looks whether a run folder is what its stages made: hashes, inputs of inputs, and stages made again. Exit status 1 when it is not.

Examples:
  python scripts/verify_run.py runs/laptop                                        every file against the hash in the manifest
  python scripts/verify_run.py runs/laptop --sources                              also data sets, questions and model
  python scripts/verify_run.py runs/laptop --again likelihood direction report    made anew elsewhere, compared figure by figure

The run folder is only read. What is looked past in a comparison (times, the place of the folder) is named.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cli
from emis_interp.config.verify_settings import VerifyRunSettings
from emis_interp.errors import EmisError, StageError, printable
from emis_interp.process import Bars

PIPELINE = Path(__file__).with_name("run_pipeline.py")
FAULTS = {
    "changed": "changed since they were made",
    "missing": "missing",
    "other_inputs": "made from something that is another one by now",
    "unmatched_inputs": "made from something else than its maker wrote",
    "unfinished": "unfinished",
    "other_sources": "what the run began with",
}
WORDS = {
    "rebuilt": "built again by another command, or edited (build_report.py makes the page anew)",
    "exchanged": "exchanged by hand and taken as they are",
    "other_code": "made under other code or packages",
    "strangers": "made by no stage",
}


def run(settings: VerifyRunSettings, bars: Bars) -> dict[str, Any]:
    from emis_interp.files.verification import verified

    result = verified(settings.run_dir)
    if settings.sources:
        result["other_sources"] = sources_of(settings.run_dir)
        result["ok"] = result["ok"] and not result["other_sources"]
    if settings.again:
        if not result["ok"]:
            raise StageError(
                f"{settings.run_dir}: is not what its stages made, so nothing is made again from it\n{say(result)}"
            )
        with bars("make again", len(settings.again)) as advance:
            result["again"] = {}
            for stage in settings.again:
                result["again"][stage] = made_again(settings.run_dir, stage)
                advance(note=stage)
        result["ok"] = not any(found["differing"] for found in result["again"].values())
    return result


def sources_of(folder: Path) -> list[str]:
    """What the run was made from outside of its folder, and is another one by now or cannot be read."""
    from emis_interp.config.run_folder import RunFolder, config_of
    from emis_interp.config.run_inputs import begun
    from emis_interp.files.manifest import Manifest
    from emis_interp.files.verification import other_sources
    from evals.questions import run_questions
    from training.arms import RunArms

    config = config_of(folder)
    arms = RunArms(config, folder)
    run = RunFolder(config, folder, arms.source)
    try:
        read = {"questions": run_questions(config), "pairs": run.pairs, "tokenizer": run.models.tokenizer}
        now = begun(config, run.code, recipes=arms.recipes(), arms=arms.inputs(), **read)
    except EmisError as error:
        return [f"cannot be read: {error}"]
    return other_sources(Manifest.load(folder).inputs, now.inputs)


def made_again(folder: Path, stage: str) -> dict[str, Any]:
    """One stage in a process of its own, in a copy of the run that lacks what it made."""
    from emis_interp.config.repeating import CONFIG, comparison, copy_without

    with tempfile.TemporaryDirectory(prefix="verify-") as place:
        target = Path(place) / folder.resolve().name
        files = copy_without(folder, stage, target)
        words = [
            sys.executable,
            str(PIPELINE),
            "--preset",
            str(Path(place) / CONFIG),
            "--run-dir",
            str(target),
            "--only",
            stage,
        ]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise StageError(f"the {stage} stage could not be made again: {printable(lines[-1] if lines else '', 400)}")
        return {"n_files": len(files), **comparison(folder, target, files)}


def say(result: dict[str, Any]) -> str:
    size = result["n_bytes"] / 2**20
    lines = [f"{result['run_dir']}: {result['n_files']} files ({size:.1f} MiB) of {result['n_units']} units hashed"]
    for name, words in {**FAULTS, **WORDS}.items():
        if found := result.get(name):
            more = f", and {len(found) - 10} more" if len(found) > 10 else ""
            lines.append(f"{'  ' if name in WORDS else '! '}{len(found)} {words}: {'; '.join(found[:10])}{more}")
    for stage, again in result.get("again", {}).items():
        lines.append(
            f"{stage} made again: {again['n_same_bytes']} of {again['n_files']} files the same in every byte, "
            f"{again['n_same_figures']} in every figure"
        )
        if again["passed_over"]:
            lines.append(f"  looked past: {', '.join(again['passed_over'])}")
        lines += [
            f"! {file}: {'; '.join(one['places'])} (largest {one['largest']:.2g})"
            for file, one in again["differing"].items()
        ]
    return "\n".join([*lines, "as it was made" if result["ok"] else "NOT as it was made"])


VERB = cli.Verb(VerifyRunSettings, "verify_run", run, status=lambda result: 0 if result["ok"] else 1)

if __name__ == "__main__":
    cli.run(VERB.do, cli.parser_of(VERB, __doc__), say, status=VERB.status)
