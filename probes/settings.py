"""The settings of what `scripts/find_direction.py` does, one frozen record a verb; the docstrings are the help of the verbs."""

from pathlib import Path

from emis_interp.config.flags import flag, settings


@settings
class ExportSettings:
    """Writes a saved direction as a llama.cpp control vector (GGUF), for `llama-server --control-vector FILE`.

    Strength 1 there is `steer` with the coefficient given here. For repeng and steering-vectors, see `probes.control_vectors`.
    """

    direction: Path = flag("what fit saved: the folder, the stem or the file")
    coefficient: float = flag("multiples of the mean residual norm; positive: misaligned", 0.2)
    model_type: str = flag("llama.cpp's name of the architecture, a hint in the file", "llama")
    out: Path = flag("GGUF file")
