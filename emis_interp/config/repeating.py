"""Turns a finished run into a copy in which some stages were never made, so that they can be made again and compared."""

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from emis_interp.config.run_folder import config_of
from emis_interp.errors import ConfigError, StageError, did_you_mean
from emis_interp.files.comparison import compared
from emis_interp.files.ledger import NOT_CONTENT
from emis_interp.files.manifest import MANIFEST, Manifest
from emis_interp.files.store import write_text

CONFIG = "config.yaml"
ASKING = ("score", "intervene")
"""Stages that ask the judge of a run."""


def copy_without(folder: Path, stage: str, target: Path) -> list[str]:
    """Copy a run into `target`, without what a stage made, and its configuration beside it as `config.yaml`; returns the stage's files.

    Raises:
        ConfigError: a stage that the run did not make. StageError: a stage that would ask a server again, or one whose files changed.
    """
    manifest, config = Manifest.load(folder), config_of(folder)
    if stage not in manifest.stages:
        raise ConfigError(f"{folder}: no finished stage `{stage}`{did_you_mean(stage, manifest.stages)}")
    if stage in ASKING and config.judge.kind in ("openai", "text"):
        asked = config.judge.url or config.judge.engine or "OpenAI"
        raise StageError(
            f"the {stage} stage would ask the judge at {asked} again, which costs and need not answer the same; "
            "leave it out"
        )
    again = {name: unit for name, unit in manifest.files.items() if unit.stage == stage}
    files = [file for unit in again.values() for file in unit.files or {}]
    # A README inside of a folder that is made again goes with it, whoever wrote it.
    folders = {PurePosixPath(file).parent for file in files}
    beside = {
        file for unit in manifest.files.values() for file in unit.files or {} if PurePosixPath(file).name in NOT_CONTENT
    }
    again |= {
        name: unit
        for name, unit in manifest.files.items()
        if any(file in beside and PurePosixPath(file).parent in folders for file in unit.files or {})
    }
    kept = [file for name, unit in manifest.files.items() if name not in again for file in unit.files or {}]
    for file in kept:
        if (folder / file).is_file():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / file, target / file)
    values = manifest.model_dump(mode="json")
    values["files"] = {name: unit for name, unit in values["files"].items() if name not in again}
    values["stages"] = {name: record for name, record in values["stages"].items() if name != stage}
    Manifest.model_validate(values).save(target)
    settings = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
    write_text(target.parent / CONFIG, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return files


def comparison(folder: Path, target: Path, files: Sequence[str]) -> dict[str, Any]:
    """What is the same and what is not in files that were made again.

    Returns:
        `n_same_bytes`, `n_same_figures` (all but times and places), `differing` (file -> the first differences and the largest relative
        one), `passed_over` (names of times and places that differ).
    """
    found = [compared(folder, target, file) for file in files if file != MANIFEST]
    return {
        "n_same_bytes": sum(one.same == "bytes" for one in found),
        "n_same_figures": sum(one.same == "figures" for one in found),
        "differing": {one.file: {"places": one.places, "largest": one.largest} for one in found if one.same == "no"},
        "passed_over": sorted({name for one in found for name in one.passed_over}),
    }
