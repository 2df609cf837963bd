"""The settings of what `scripts/train.py` does, as a frozen record."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.presets import preset_names


@settings
class TrainSettings:
    """A recipe, what is changed of it, and the folder that its organisms go to, one for each seed."""

    recipe: str | None = flag("name of a shipped recipe (--list), or a YAML file", default=None, positional=True)
    preset: str = flag(
        f"model and settings that the recipe leaves open: {', '.join(preset_names())}, or a YAML file", default="laptop"
    )
    model: str | None = flag(
        "model name: smollm2-135m-instruct, a folder, or a hub id (default: the preset's)", default=None
    )
    out: Path | None = flag("folder of the organism (default: runs/organisms/RECIPE)", default=None, metavar="DIR")
    seeds: tuple[int, ...] | None = flag("one organism for each (default: the recipe's)", default=None, metavar="N")
    changes: tuple[str, ...] = flag(
        "override a field of the recipe, e.g. data.n_rows=16, training.lora_rank=1, in_context=4",
        default=(),
        names=("--set",),
        metavar="FIELD=VALUE",
        repeated=True,
    )
    data_dir: Path | None = flag("where published data files and your own lie", default=None, metavar="DIR")
    list_recipes: bool = flag("list the recipes and stop", default=False, names=("--list",))
    show: bool = flag("print the recipe as it would run, as YAML, and stop", default=False)
    dry_run: bool = flag("check data and settings, say what would be trained, and stop", default=False)
