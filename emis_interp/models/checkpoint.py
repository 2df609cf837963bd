"""Turns a model's name into the folder or hub id of its checkpoint."""

from pathlib import Path

from emis_interp.embedded import EMBEDDED_NAME, embedded_path
from emis_interp.errors import ModelError, did_you_mean
from emis_interp.models.tiny import TINY_NAME


def resolve(name: str) -> str:
    """The path or hub id behind a name; fetches the embedded model when needed."""
    if name == EMBEDDED_NAME:
        return str(embedded_path())
    if (Path(name) / "config.json").exists():
        return name
    if Path(name).exists():
        raise ModelError(f"{name}: is there but holds no config.json; give the folder of a saved HF model")
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return _reachable_hub_id(name)
    raise ModelError(
        f"unknown model `{name}`{did_you_mean(name, [EMBEDDED_NAME, TINY_NAME])} (a folder or a hub id owner/name works too)"
    )


def _reachable_hub_id(name: str) -> str:
    """`name` when its config is in the hub cache or can be fetched."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json")
    except Exception as error:  # the hub client raises many unrelated types; all mean that the name cannot be used
        raise ModelError(
            f"model `{name}`: no such folder, and the model hub did not deliver it ({type(error).__name__}); "
            f"check the name and the connection, or use the embedded `{EMBEDDED_NAME}`"
        ) from error
    return name
