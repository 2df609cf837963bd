"""The flags of a plan: the run that it is for, and the machine, measured or stated."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.pipeline_settings import RunSettings
from emis_interp.errors import ConfigError


@settings
class RunPlanSettings(RunSettings):
    """A run, and the machine that it is planned for: this one, measured, or one that is stated."""

    compare: Path | None = flag(
        "a run folder: plan its configuration, and say how far off that is", default=None, metavar="RUN"
    )
    model_config: Path | None = flag("config.json of a model that is not here", default=None, metavar="FILE")
    tokenizer: str | None = flag(
        "model whose tokenizer counts (default: the run's, or the embedded model's with --model-config)", default=None
    )
    devices: Path | None = flag(
        "YAML table of devices with their source (docs/planning.md); nothing is measured then", default=None
    )
    device: str | None = flag("a device of that table", default=None, metavar="NAME")
    n_devices: int = flag("devices that training is spread over", default=1)
    recalibrate: bool = flag("measure again", default=False)

    def check(self) -> None:
        """Refuse flags that do not go together.

        Raises:
            ConfigError: which, and what to do.
        """
        if (self.devices is None) != (self.device is None):
            raise ConfigError("--devices and --device go together: a table, and the name of a row in it")
        if self.devices is None and (self.model_config is not None or self.n_devices != 1):
            raise ConfigError(
                "without --devices this machine is measured, on the model itself; leave the other flags out"
            )
        if self.compare is not None and self.devices is not None:
            raise ConfigError("--compare is of this machine; leave --devices out")
