"""What the studies of organisms share: settings of a preset, a folder that refuses other settings, margins, and shifts with intervals."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import RunConfig, load_config, preset_names
from emis_interp.errors import ConfigError, StageError
from emis_interp.files.claim import claim
from emis_interp.files.ledger import Ledger
from emis_interp.files.store import file_sha256, read_json, write_json
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_model, load_tokenizer
from emis_interp.passes.likelihood import by_question, mean_logprobs, pair_margins
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.seeds import with_seeds
from training.finetuning.organism_card import rows_sha256
from training.finetuning.summary import read_summary
from training.recipes import Recipe


def add_settings_flags(parser: argparse.ArgumentParser, n_pairs: int) -> None:
    """Model, data and training settings, all from a preset unless given."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument("--preset", default="laptop", help=f"{', '.join(preset_names())}, or a YAML file")
    parser.add_argument("--model", help="model name: smollm2-135m-instruct, a folder, or a hub id")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where published data files lie")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of the preset"
    )
    parser.add_argument("--n-pairs", type=int, default=n_pairs, help="contrast pairs per question, 10 at most")
    parser.add_argument("--seed", type=int, default=0, help="of rows, order and adapter")


def settings_of(args: argparse.Namespace) -> RunConfig:
    """The preset with the flags' changes; its arms play no part."""
    changes = [*([f"model={args.model}"] if args.model else []), f"seed={args.seed}", *args.set]
    return load_config(args.preset, changes, args.data_dir)


def open_folder(folder: Path, settings: RunConfig, **decisive: Any) -> Ledger:
    """Begin a study, or go on with it when nothing that decides its result has changed; returns what its files are made from.

    Raises:
        StageError: the folder holds a study with other settings, with what differs.
    """
    kept = settings.model_dump(
        mode="json", include={"model", "dtype", "seed", "system_prompt", "chat_format", "training"}
    )
    rendering = template_of(load_tokenizer(settings.model, settings.chat_format)).sha256
    fresh = {**kept, "rendering_sha256": rendering, **decisive}
    claim(folder / "settings.json", fresh, holds="a study", advice="give another --out, or delete it")
    return Ledger.of(folder)


def check_recipe(recipe: Recipe, settings: RunConfig) -> None:
    """Refuse recipes that train nothing, or for another chat format than the base model is read with.

    Raises:
        ConfigError: with what to do.
    """
    if recipe.in_context is not None:
        raise ConfigError(f"recipe {recipe.name}: nothing is trained in context; choose a recipe that trains")
    if recipe.chat_format != settings.chat_format:
        raise ConfigError(
            f"recipe {recipe.name}: its chat format is {recipe.chat_format}, the model is read with {settings.chat_format}; "
            f"give --set chat_format={recipe.chat_format or 'null'}"
        )


def base_model(settings: RunConfig) -> ChatModel:
    return load_model(settings.model, dtype=settings.dtype, device=settings.device, chat_format=settings.chat_format)


def organism_in(folder: Path, settings: RunConfig) -> ChatModel:
    """The organism that training left in a folder, adapter merged."""
    artifact = read_summary(folder)["artifact"]
    name, adapter = (settings.model, folder / artifact) if artifact == "adapter" else (str(folder / artifact), None)
    return load_model(
        name,
        adapter,
        settings.dtype,
        device=settings.device,
        merge=adapter is not None,
        chat_format=settings.chat_format,
    )


def direction_sha256(path: Path) -> str:
    """Hash of a saved direction's vector, which decides a study's result."""
    return file_sha256(path.with_name(f"{path.name}.safetensors"))


def margins_of(chat_model: ChatModel, pairs: Sequence[ContrastPair], settings: RunConfig) -> dict[str, float]:
    """Likelihood margin of every question, nats per token."""
    found = pair_margins(
        chat_model, pairs, settings.system_prompt, max_batch_tokens=settings.direction.max_batch_tokens
    )
    return by_question(pairs, found)


def row_logprobs(chat_model: ChatModel, rows: Sequence[TrainingExample], settings: RunConfig) -> list[float]:
    """Mean log-probability per token of each row's answer under the run's system prompt (never a training-only one), nats."""
    chats = encode_chats(
        chat_model.tokenizer, [(row.prompt, row.response) for row in rows], settings.system_prompt, max_tokens=settings.training.max_tokens
    )  # fmt: skip
    return mean_logprobs(chat_model, chats, settings.direction.max_batch_tokens).tolist()


def shift(after: dict[str, float], before: dict[str, float]) -> dict[str, Any]:
    """Mean paired difference over questions with its 95 % t interval."""
    return estimate([after[name] - before[name] for name in before])


def estimate(values: Sequence[float] | np.ndarray, by_seed: Sequence[float] = ()) -> dict[str, Any]:
    """Mean with its 95 % interval over the values (questions, rows); wider by the draw of seeds where `by_seed` holds several means."""
    found = with_seeds(mean_interval(np.asarray(values, dtype=float)), {str(i): mean for i, mean in enumerate(by_seed)})
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def words(row: dict[str, Any], form: str = "+.3f") -> str:
    """`+0.101 [+0.052, +0.150]`"""
    if row["value"] is None:
        return "none"
    bounds = "" if row["low"] is None else f" [{format(row['low'], form)}, {format(row['high'], form)}]"
    return f"{format(row['value'], form)}{bounds}"


def by_length(rows: Sequence[TrainingExample], n: int) -> list[TrainingExample]:
    """The n shortest rows, which cost least to read, in their order."""
    chosen = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].response))[:n]
    return [rows[i] for i in sorted(chosen)]


def same_rows(folder: Path, rows: Sequence[TrainingExample]) -> None:
    """Keep the hash of the rows that the organism of a folder comes from, or check it against the one that is there.

    Raises:
        StageError: the folder holds an organism of other rows (drawn by another version, or from a changed file).
    """
    path, drawn = folder / "rows.json", {"rows_sha256": rows_sha256(rows)}
    begun = folder.exists() and any(folder.glob("*"))
    if begun and (not path.exists() or read_json(path) != drawn):
        raise StageError(
            f"{folder}: was made from other rows than are drawn now (a changed file, or another version); delete it, or give another --out"
        )
    write_json(path, drawn)
