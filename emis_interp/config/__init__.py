"""Settings as frozen records: those of a run (presets, overrides), and how any record becomes the flags of a command."""

from typing import TYPE_CHECKING

from emis_interp import lazy

if TYPE_CHECKING:
    from emis_interp.config.presets import load_config as load_config
    from emis_interp.config.run_config import RunConfig as RunConfig
    from emis_interp.config.run_config import SamplingConfig as SamplingConfig
    from emis_interp.config.run_config import TrainingConfig as TrainingConfig

__getattr__, __dir__ = lazy(
    __name__,
    {
        **dict.fromkeys(("RunConfig", "SamplingConfig", "TrainingConfig"), "emis_interp.config.run_config"),
        "load_config": "emis_interp.config.presets",
    },
)
