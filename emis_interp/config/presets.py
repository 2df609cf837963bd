"""Turns a preset and command-line overrides into one frozen configuration of a run.

Every field can be set from YAML or with `--set section.field=value`; unknown keys are refused with a suggestion.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.files.strict_yaml import YamlDocument, kind_of_yaml, parse_yaml, read_yaml
from emis_interp.http.addresses import foreign_variable_problem
from emis_interp.models.precision import AUTO, dtype_name, uses_bfloat16


def preset_names() -> list[str]:
    folder = resources.files("emis_interp") / "presets"
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_config(preset: str, overrides: Sequence[str] = (), data_dir: Path | None = None) -> RunConfig:
    """`asked_config`, with dtypes left open decided for this machine."""
    return on_this_machine(asked_config(preset, overrides, data_dir))


def asked_config(preset: str, overrides: Sequence[str] = (), data_dir: Path | None = None) -> RunConfig:
    """A shipped preset by name, or a YAML file, with overrides `section.field=value` (values are YAML) applied in order.

    Raises:
        ConfigError: unknown preset, malformed YAML (file and line), unknown key, or a value that does not fit.
    """
    if preset in preset_names():
        text = (resources.files("emis_interp") / "presets" / f"{preset}.yaml").read_text("utf-8")
        document = parse_yaml(text, f"preset {preset}", error=ConfigError)
    elif preset.endswith((".yaml", ".yml")) and Path(preset).exists():
        document = read_yaml(Path(preset), error=ConfigError)
    else:
        raise ConfigError(
            f"unknown preset `{preset}`{did_you_mean(preset, preset_names())} (or give the path of a YAML file)"
        )
    values = fields_of(document)
    if problem := _foreign_key(values, overrides):
        where = document.place(("judge", "key_variable")).where
        raise ConfigError(f"{where}: judge.key_variable: {problem} (--set judge.key_variable=NAME)")
    for override in overrides:
        document.override(override, flag="--set", error=ConfigError)
    if data_dir is not None:
        if not data_dir.is_dir():
            raise ConfigError(f"--data-dir {data_dir}: no such folder")
        values["data_dir"] = data_dir
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(document.explain(error, RunConfig)) from None


def fields_of(document: YamlDocument) -> dict[str, Any]:
    """The document's mapping of fields.

    Raises:
        ConfigError: it holds something else.
    """
    if not isinstance(document.value, dict):
        raise ConfigError(f"{document.where}: expected a mapping of fields, found {kind_of_yaml(document.value)}")
    return document.value


def _foreign_key(values: dict[str, Any], overrides: Sequence[str]) -> str | None:
    """Why the file may not choose its key variable, or None; the command line may choose any."""
    judge = values.get("judge")
    name = judge.get("key_variable") if isinstance(judge, dict) else None
    if not isinstance(name, str) or any(text.startswith("judge.key_variable=") for text in overrides):
        return None
    return foreign_variable_problem(name)


def on_this_machine(config: RunConfig) -> RunConfig:
    """The configuration with its dtypes decided, so that a run's record says what was used and a resumed run cannot change it."""
    training = config.training.model_copy(update={"bf16": uses_bfloat16(config.training.bf16, config.device)})
    judge = config.judge
    if judge.runs_here:
        judge = judge.model_copy(update={"dtype": dtype_name(judge.dtype or AUTO, config.device)})
    decided = {"dtype": dtype_name(config.dtype, config.device), "training": training, "judge": judge}
    return config.model_copy(update=decided)
