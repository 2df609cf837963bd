"""Turns mean activations that others have published into the 2x2: what text and finetuning move, with and without massive dimensions."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from emis_interp.errors import ConfigError, DataError
from emis_interp.fitting.geometry import TwoByTwo, massive_dimensions
from emis_interp.process import Bars, no_bars
from probes.settings import TwoByTwoSettings

SHARES = ("text_in_organism", "text_in_base", "model_on_misaligned", "model_on_aligned")


def run(settings: TwoByTwoSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """One row for each file and layer."""
    rows = []
    for path in settings.files:
        table = read_means(path, settings.text)
        n_layers = len(table.base_aligned)
        for layer in settings.layers or [n_layers // 4, n_layers // 2, 3 * n_layers // 4]:
            if not 0 <= layer < n_layers:
                raise ConfigError(f"layer {layer} asked for, {path} has {n_layers} (0-{n_layers - 1})")
            rows.append({"file": path.stem, "layer": layer, **numbers(table, layer)})
    return {"text": settings.text, "rows": rows}


def read_means(path: Path, text: str) -> TwoByTwo:
    """The four means of one file.

    Raises:
        DataError: no such file, no safetensors, or a mean is missing (with what is there).
    """
    try:
        found = load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None
    names = [f"{model}_model.{label}_text.{text}" for model in ("em", "base") for label in ("misaligned", "aligned")]
    if missing := [name for name in names if name not in found]:
        raise DataError(f"{path}: no tensor `{missing[0]}`; found {', '.join(sorted(found)[:8]) or 'none'}")
    means = [found[name].float() for name in names]
    if any(mean.ndim != 2 for mean in means):
        raise DataError(f"{path}: means of shape [n_layers, d_model] expected, found {[list(m.shape) for m in means]}")
    return TwoByTwo(*means)


def numbers(table: TwoByTwo, layer: int) -> dict[str, Any]:
    """Cosine of the two models' text effects, whole and without the five dimensions that are massive in either model, and the share of
    each effect's squared norm in those of the organism."""
    pair = ("text_in_organism", "text_in_base")
    without_base = table.without(massive_dimensions(table.base_aligned))
    return {
        "cosine": float(table.cosines()[pair][layer]),
        "cosine_without_organisms_massive": float(table.without_massive().cosines()[pair][layer]),
        "cosine_without_bases_massive": float(without_base.cosines()[pair][layer]),
        "massive_shares": {name: float(share[layer]) for name, share in table.massive_shares().items()},
        "norms": {name: float(norm[layer]) for name, norm in table.norms().items()},
    }


def say(result: dict[str, Any]) -> str:
    width = max(len(row["file"]) for row in result["rows"])
    head = f"{'':{width}}  {'':5}  {'text in organism, text in base: cosine':^40}  {'share of the squared norm in the five':^49}"
    names = f"{'file':{width}}  {'layer':>5}  {'whole':>8}{'w/o organism’s 5':>17}{'w/o base’s 5':>15}  "
    lines = [head, names + "".join(f"{name:>20}" for name in SHARES)]
    for row in result["rows"]:
        cosines = f"{row['cosine']:>8.3f}{row['cosine_without_organisms_massive']:>17.3f}{row['cosine_without_bases_massive']:>15.3f}"
        shares = "".join(f"{row['massive_shares'][name]:>20.2f}" for name in SHARES)
        lines.append(f"{row['file']:{width}}  {row['layer']:>5}  {cosines}  {shares}")
    lines += [
        "",
        "the five: dimensions with the largest |mean activation| of the layer (organism, or base, on aligned text)",
        f"means of {result['text']} tokens as published; whether they are balanced over questions is not in the files",
    ]
    return "\n".join(lines)
