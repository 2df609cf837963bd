"""The flags of a run, and the configuration that they mean; and which of a run's stages are asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.config.presets import load_config, preset_names
from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.http.request_fields import parse_request

QUICK_ROWS = 150


@settings
class RunSettings:
    """A preset, with what is changed of it, and the folder of the run."""

    preset: str = flag(f"one of {', '.join(preset_names())}, or a YAML file", default="laptop")
    run_dir: Path | None = flag("folder of the run (default: runs/<name of the preset>)", default=None, metavar="DIR")
    data_dir: Path | None = flag("where data files named in the preset lie", default=None, metavar="DIR")
    model: str | None = flag("model name: smollm2-135m-instruct, a folder, or a hub id", default=None)
    judge: Literal["offline", "openai", "text", "local"] | None = flag(
        "offline probe, an API judge with log-probabilities or without, or a local chat model (default: the preset's)",
        default=None,
    )
    judge_url: str | None = flag(
        "score with an OpenAI-compatible server (key from $OPENAI_API_KEY)", default=None, metavar="URL"
    )
    judge_model: str | None = flag(
        "model that the API judge asks for, or of --judge local", default=None, metavar="NAME"
    )
    request: tuple[str, ...] = flag(
        "field of every request of an API judge; KEY= leaves it out (judge.request in a preset)",
        default=(),
        metavar="KEY=VALUE",
        repeated=True,
    )
    quick: bool = flag(
        "a first look at the preset, into runs/NAME-quick: one seed, at most 150 rows an arm, fewer answers and random directions",
        default=False,
    )
    changes: tuple[str, ...] = flag(
        f"override any field, e.g. training.n_epochs=2; top level: {', '.join(RunConfig.model_fields)}",
        default=(),
        names=("--set",),
        metavar="FIELD=VALUE",
        repeated=True,
    )

    def config(self) -> RunConfig:
        """The configuration that is meant.

        Raises:
            ConfigError: as `load_config`, or a flag of a judge that the run does not ask.
        """
        config = load_config(self.preset, self.overrides(), self.data_dir)
        if self.request and config.judge.kind in ("offline", "local"):
            raise ConfigError("--request is for an API judge; give --judge openai or --judge text, or --judge-url")
        return quickened(config) if self.quick else config

    def overrides(self) -> list[str]:
        """`--set` values, after those that have a flag of their own."""
        values = []
        if self.judge:
            values.append(f"judge.kind={self.judge}")
        if self.model:
            values.append(f"model={self.model}")
        kind = self.judge if self.judge in ("text", "local") else "openai"
        if self.judge_url:
            if kind == "local":
                raise ConfigError(
                    "--judge-url is for an API judge; leave it out, or give --judge openai or --judge text"
                )
            values += [f"judge.kind={kind}", f"judge.url={self.judge_url}"]
        if self.judge_model:
            values += [f"judge.kind={kind}", f"judge.model={self.judge_model}"]
        if self.request:
            parse_request(self.request)  # its own words for what is no request
            values += [f"judge.request.{setting}" for setting in self.request]
        return [*values, *self.changes]


def quickened(config: RunConfig) -> RunConfig:
    """The same run with the first seed of every arm, at most `QUICK_ROWS` rows of it, and the least of answers and controls."""
    arms = tuple(
        arm
        if arm.untouched
        else arm.model_copy(
            update={
                "seeds": None if arm.seeds is None else arm.seeds[:1],
                "n_rows": None if arm.in_context is not None else min(arm.n_rows or QUICK_ROWS, QUICK_ROWS),
            }
        )
        for arm in config.arms
    )
    sampling = {"samples_per_paraphrase": min(config.sampling.samples_per_paraphrase or 2, 2)}
    intervention = {"random_draws": 1, "samples_per_paraphrase": min(config.intervention.samples_per_paraphrase, 1)}
    return config.model_copy(
        update={
            "name": f"{config.name}-quick",
            "arms": arms,
            "sampling": config.sampling.model_copy(update=sampling),
            "intervention": config.intervention.model_copy(update=intervention),
        }
    )


def chosen_stages(order: Sequence[str], only: Sequence[str] | None, start: str | None) -> list[str]:
    """The stages that are asked for, in their order: those of `only`, or `start` and all that follow, or all.

    Raises:
        ConfigError: a stage that there is not, or both.
    """
    names = list(order)
    for name in [*(only or ()), *([start] if start else [])]:
        if name not in names:
            raise ConfigError(f"unknown stage `{name}`{did_you_mean(name, names)}")
    if only and start:
        raise ConfigError("--only and --from exclude each other; give one of them")
    if only:
        return [name for name in names if name in only]
    return names[names.index(start) :] if start else names
