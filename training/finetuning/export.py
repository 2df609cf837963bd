"""Turns a trained adapter into a plain checkpoint that other tools load, and puts measured rates on its card."""

from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.files.strict_json import read_json_object
from emis_interp.files.text import flat_lines
from emis_interp.models.adapter_files import adapter_folder, base_named_by
from emis_interp.models.hub import is_hub_id
from emis_interp.models.lora_config import SETTINGS
from emis_interp.models.merging import save_merged
from emis_interp.models.weight_files import read_object
from emis_interp.process import Bars, no_bars
from training.finetuning.export_settings import AdapterExportSettings
from training.finetuning.organism_card import add_figures, read_figures


def run(settings: AdapterExportSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Put the rates on the card, merge the adapter, or both.

    Raises:
        ConfigError: neither is asked for, or the base model is not known. Others as `read_figures`, `add_figures` and `merge`.
    """
    adapter = settings.adapter
    if settings.out is None and settings.results is None:
        raise ConfigError("nothing to do; give --out DIR to merge the adapter, or --results FILE for its card")
    result: dict[str, Any] = {"adapter": str(adapter)}
    if settings.results is not None:
        result["card"] = str(add_figures(adapter.resolve().parent, read_figures(settings.results)))
    if settings.out is not None:
        base = settings.base or base_of(adapter)
        out = merge(adapter, settings.out, base, dtype=settings.dtype, chat_format=settings.chat_format)
        result |= {"base": base, "out": str(out), "dtype": settings.dtype}
        result["files"] = sorted(path.name for path in out.iterdir())
    return result


def say(result: dict[str, Any]) -> str:
    return "\n".join(flat_lines(result))


def merge(
    adapter: Path, out: Path, base: str | None = None, *, dtype: str = "float32", chat_format: str | None = None
) -> Path:
    """Fold an adapter into its base model and save a plain HF checkpoint in `out`, with the chat template that it was trained in.

    Args:
        base: name of the base model; None for the one that `base_of` finds.
        chat_format: a plain format in place of the adapter's own template, see `load_model`.

    Raises:
        ConfigError: the base model is not known. StageError: `out` is not empty. ModelError: the adapter does not fit.
    """
    save_merged(base or base_of(adapter), adapter, out, dtype=dtype, chat_format=chat_format)
    return out


def base_of(adapter: Path) -> str:
    """The base model's name: from the training summary beside the adapter, else from PEFT's own configuration.

    Raises:
        ConfigError: neither names it. ModelError: a folder without an adapter.
    """
    place = adapter.resolve() if adapter.exists() else adapter
    summary = place.parent / "summary.json"
    name = read_json_object(summary).get("model") if summary.exists() else None
    if name is None and (adapter.is_dir() or is_hub_id(str(adapter))):
        name = base_named_by(read_object(adapter_folder(adapter) / SETTINGS))
    if not name:
        raise ConfigError(
            f"{adapter}: neither summary.json beside it nor adapter_config.json names the base model; give --base"
        )
    return str(name)
