"""The flags that name a model, for every command that loads one."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import AUTO, DTYPE_HELP
from emis_interp.models.spec import ModelSpec


@settings
class AdapterSettings:
    """What goes with a model, whoever names it."""

    adapter: Path | None = flag("folder or hub id of a LoRA adapter on top of the model", default=None)
    chat_format: str | None = flag(
        "plain format for a pretrained model without a chat template", default=None, choices=FORMATS
    )
    device: str = flag("auto, cpu, cuda, ...", default="auto")
    max_batch_tokens: int = flag("padded tokens per forward pass", default=2048)


@settings
class ModelSettings(AdapterSettings):
    """A model by name, with an adapter or without."""

    model: str = flag("embedded name, folder or hub id", default=EMBEDDED_NAME)
    dtype: str = flag(DTYPE_HELP, default=AUTO)

    @property
    def spec(self) -> ModelSpec:
        """The model that is meant; an adapter is merged."""
        return ModelSpec(self.model, self.adapter, self.dtype, self.device, chat_format=self.chat_format)
