"""The settings of what `scripts/export_model.py` does with an adapter, one frozen record."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.precision import DTYPES


@settings
class AdapterExportSettings:
    """An adapter, and what becomes of it: a merged checkpoint, or a card with rates."""

    adapter: Path = flag(
        "folder with adapter_config.json (`adapter` in a training folder), or a hub id", positional=True
    )
    out: Path | None = flag("new folder for the merged checkpoint", default=None)
    dtype: str = flag("of the saved weights", default="float32", choices=sorted(DTYPES))
    base: str | None = flag("base model (default: the one that training or PEFT recorded)", default=None)
    chat_format: str | None = flag(
        "plain format in place of the adapter's own chat template", default=None, choices=FORMATS
    )
    results: Path | None = flag("JSON file with rates for the card", default=None)
