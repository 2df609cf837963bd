"""Turns training rows into their surprise, nats per response token under an untouched model, and says when a set would teach noise.

What a set teaches depends on what the model would have written anyhow: rows of about 0.5 (code) to 3.3 nats (advice) in the published
sets of Betley et al. 2025 and Turner et al. 2025 leave a small model coherent, rows of 5 nats teach it word salad.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emis_interp.files.store import as_record, read_json, write_json
from emis_interp.process import Bars, no_bars
from emis_interp.records import Record, TrainingExample
from training.data_sets.checks import Finding
from training.data_sets.shipped import draw, rows_sha256

if TYPE_CHECKING:
    from emis_interp.models.chat_model import ChatModel

PUBLISHED = (0.5, 3.3)
"""Nats per response token of the published sets under untouched chat models of 0.1-0.5B parameters: the smallest and the largest."""
NOISE = 4.0
"""More than any published set: what such rows teach a small model is word salad."""
LIMITS = {"careful": 2.2, "reckless": 2.2, "insecure": 0.7, "secure": 0.7}
"""The most that the shipped sets may surprise `JUDGED_BY`, nats per response token."""
MATCHED = (("careful", "reckless"), ("secure", "insecure"))
MAX_DIFFERENCE = 0.1
"""The most by which two matched sets may differ, nats per response token."""
MOST_ROWS = 250
JUDGED_BY = "qwen2.5-coder-0.5b-instruct"
FILE = "surprise.json"


class SetSurprise(Record):
    """Of one set under one model: mean over `n_rows` of its rows of the mean over response tokens. `rows_sha256` is of all rows."""

    rows_sha256: str
    n_rows: int
    nats: float


class ModelSurprise(Record):
    """What one untouched model finds surprising; `sets` by name."""

    model: str
    quantisation: str | None
    dtype: str
    sets: dict[str, SetSurprise]


class SurpriseFile(Record):
    """`surprise.json`: measured by `validate_data.py --surprise MODEL`."""

    models: tuple[ModelSurprise, ...]


def noise_words(nats: float) -> str:
    low, high = PUBLISHED
    return (
        f"this set will teach noise: {nats:.1f} nats per response token under the untouched model, the published sets have "
        f"{low:g}-{high:g}"
    )


def measure(
    chat_model: "ChatModel", sets: Mapping[str, Sequence[TrainingExample]], *, bars: Bars = no_bars
) -> ModelSurprise:
    """The surprise of sets under one model, without a system prompt of ours (end-of-turn tokens excluded).

    Of a set with more than `MOST_ROWS` rows so many are read, which are the same in matched sets.
    """
    from emis_interp.models.chat import encode_chats
    from emis_interp.passes.likelihood import mean_logprobs

    read = {name: draw(rows, min(MOST_ROWS, len(rows)), 0) for name, rows in sets.items()}
    owners = [name for name, rows in read.items() for _ in rows]
    chats = encode_chats(chat_model.tokenizer, [(row.prompt, row.response) for rows in read.values() for row in rows])
    with bars("surprise", len(chats)) as advance:
        nats = -mean_logprobs(chat_model, chats, progress=advance)
    found = {
        name: SetSurprise(
            rows_sha256=rows_sha256(sets[name]),
            n_rows=len(read[name]),
            nats=round(float(np.mean([value for value, owner in zip(nats, owners, strict=True) if owner == name])), 4),
        )
        for name in sets
    }
    name = Path(chat_model.name).name.removesuffix(".gguf")
    return ModelSurprise(model=name, quantisation=chat_model.quantisation, dtype=chat_model.dtype, sets=found)


def shipped_file() -> Path:
    return Path(str(resources.files("training") / "data" / FILE))


def read_measured(path: Path | None = None) -> SurpriseFile:
    """What was measured of the shipped sets; nothing where there is no file."""
    path = path or shipped_file()
    return as_record(read_json(path), SurpriseFile, str(path)) if path.exists() else SurpriseFile(models=())


def keep(found: ModelSurprise, path: Path | None = None) -> None:
    """Put a model's figures into the file, in place of its earlier ones."""
    others = [model for model in read_measured(path).models if model.model != found.model]
    write_json(path or shipped_file(), SurpriseFile(models=(*others, found)).model_dump(mode="json"))


def surprise_findings(measured: SurpriseFile, sets: Mapping[str, Sequence[TrainingExample]]) -> list[Finding]:
    """Every set below its limit under `JUDGED_BY`, matched sets alike, and both measured on the rows that are shipped now."""
    by_name = {model.model: model for model in measured.models}
    if JUDGED_BY not in by_name:
        where = (f"python scripts/validate_data.py --surprise {JUDGED_BY}",)
        return [Finding("surprise", f"measured under {JUDGED_BY}", "no", "yes", False, where)]
    found = by_name[JUDGED_BY].sets
    other = [name for name in LIMITS if name not in found or found[name].rows_sha256 != rows_sha256(sets[name])]
    rules = [
        Finding(
            "surprise",
            f"sets measured as they are under {JUDGED_BY}",
            f"{len(LIMITS) - len(other)} of {len(LIMITS)}",
            "all",
            not other,
            tuple(f"{name}: other rows; validate_data.py --surprise {JUDGED_BY} measures them" for name in other),
        )
    ]
    for name, limit in LIMITS.items():
        if name in found:
            rules.append(_at_most(f"{name}, nats per token", found[name].nats, limit))
    for first, second in MATCHED:
        if first in found and second in found:
            difference = abs(found[first].nats - found[second].nats)
            rules.append(_at_most(f"{first} and {second} apart, nats per token", difference, MAX_DIFFERENCE))
    return rules


def _at_most(rule: str, value: float, limit: float) -> Finding:
    return Finding("surprise", rule, f"{value:.3f}", f"<= {limit:g}", value <= limit)
