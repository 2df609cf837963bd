"""Which model is meant, in one record: name, adapter, number format, device. It is what a card says, and it loads the model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emis_interp.models.chat_model import ChatModel


@dataclass(frozen=True)
class ModelSpec:
    """A model by name, and how it is loaded; the fields are those of `models.loading.load_model`.

    Attributes:
        name: embedded name, folder or hub id.
        adapter: folder or hub id of a LoRA adapter on top.
        dtype: of the weights; `auto`: bfloat16 where the device computes it in hardware, else float32.
        device: auto, cpu, cuda, cuda:1, ...
        merge: fold the adapter into the weights.
        chat_format: plain format for a pretrained model without a chat template.
    """

    name: str
    adapter: Path | str | None = None
    dtype: str = "auto"
    device: str = "auto"
    merge: bool = True
    chat_format: str | None = None

    def load(self) -> "ChatModel":
        """The model, ready to be asked.

        Raises:
            ModelError: as `load_model`.
        """
        from emis_interp.models.loading import load_model

        return load_model(
            self.name,
            self.adapter,
            self.dtype,
            device=self.device,
            merge=self.merge and self.adapter is not None,
            chat_format=self.chat_format,
        )

    def load_base(self) -> "ChatModel":
        """The model without its adapter, which reads in the adapter's chat template: what an organism is set against."""
        from emis_interp.models.loading import load_model

        return load_model(
            self.name, dtype=self.dtype, device=self.device, chat_format=self.chat_format, tokenizer_of=self.adapter
        )

    def as_card(self) -> dict[str, Any]:
        """What a card says of the model that made its file; the device plays no part."""
        from emis_interp.models.precision import dtype_name

        return {
            "model": self.name,
            "adapter": None if self.adapter is None else str(self.adapter),
            "dtype": dtype_name(self.dtype, self.device),
            "chat_format": self.chat_format,
        }
