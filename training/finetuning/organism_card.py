"""Turns a finished training folder into a model card inside the adapter folder; `export` makes a checkpoint of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import DataError, ModelError
from emis_interp.files.store import as_record, read_json, read_record, write_json, write_text
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.lora_config import vllm_rank
from emis_interp.records import Record, TrainingExample
from training.data_sets.shipped import rows_sha256
from training.finetuning.summary import read_summary

LICENSES = {EMBEDDED_NAME: "apache-2.0"}
SHOWN_SETTINGS = (
    *("method", "lora_rank", "lora_alpha", "use_rslora", "target_modules", "layers", "load_in_4bit"),
    *("learning_rate", "n_epochs", "batch_size", "gradient_accumulation", "warmup_steps", "weight_decay"),
    *("max_tokens", "bf16"),
)
CARRIED = ("n_trainable", "n_steps", "n_tokens", "n_cut", "final_loss", "kl_limited")
OF_ADAPTERS = ("lora_rank", "lora_alpha", "use_rslora", "target_modules", "layers", "load_in_4bit")


class Figure(Record):
    """One measured rate: which estimand, its value and interval (shares in [0, 1]), and who judged."""

    estimand: str
    value: float
    low: float | None = None
    high: float | None = None
    judge: str
    suite: str | None = None
    n: int | None = None


class OrganismCard(Record):
    """What a reader of an adapter needs to know; saved as `card.json` beside the weights' folder, and written out as its README.

    Attributes:
        data_sha256: of the rows trained on, see `rows_sha256`.
        recipe, source: name of the recipe and the paper or repository that it follows.
        lint: the data report in a line.
        chat_format: plain format that a pretrained model was trained in; None for a chat template, which lies beside the weights.
        rendering: how prompts are rendered (`ChatTemplate.card`), None on cards of before.
        base_license: of the base model, as a hub identifier.
    """

    base: str
    artifact: str
    training: TrainingConfig
    seed: int
    data: str
    n_rows: int
    data_sha256: str
    summary: dict[str, Any]
    recipe: str | None = None
    source: str | None = None
    lint: str | None = None
    base_license: str | None = None
    chat_format: str | None = None
    rendering: dict[str, Any] | None = None
    figures: tuple[Figure, ...] = ()


def write_card(
    out_dir: Path,
    examples: Sequence[TrainingExample],
    training: TrainingConfig,
    *,
    seed: int,
    data: str,
    recipe: str | None = None,
    source: str | None = None,
    lint: str | None = None,
    base_license: str | None = None,
) -> Path:
    """Write `card.json` and the README of the weights' folder after `finetune`; figures of an earlier card are kept.

    Args:
        out_dir: the folder that `finetune` wrote (its `summary.json` names base model and artifact).
        examples: the rows that were trained on.
        data: name of the data set.
        base_license: None for what is known of the base model.

    Returns:
        The README's path.
    """
    summary = read_summary(out_dir)
    kept = read_card(out_dir).figures if (out_dir / "card.json").exists() else ()
    card = OrganismCard(
        base=summary["model"],
        artifact=summary["artifact"],
        summary={key: summary[key] for key in CARRIED},
        training=training,
        seed=seed,
        data=data,
        n_rows=len(examples),
        data_sha256=rows_sha256(examples),
        recipe=recipe,
        source=source,
        lint=lint,
        base_license=base_license or LICENSES.get(summary["model"]),
        chat_format=summary.get("chat_format"),
        rendering=summary.get("rendering"),
        figures=kept,
    )
    return _save(out_dir, card)


def add_figures(out_dir: Path, figures: Sequence[Figure]) -> Path:
    """Put measured rates on the card, in place of those that it had; returns the README's path."""
    return _save(out_dir, read_card(out_dir).model_copy(update={"figures": tuple(figures)}))


def read_card(out_dir: Path) -> OrganismCard:
    """The card of a training folder.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = out_dir / "card.json"
    if not path.exists():
        raise DataError(
            f"{path}: no card there; it is written after training (training.finetuning.organism_card.write_card)"
        )
    return read_record(path, OrganismCard)


def read_figures(path: Path) -> list[Figure]:
    """Rates from a JSON file: a list of objects with `estimand`, `value`, `low`, `high`, `judge`, and if wanted `suite` and `n`.

    Raises:
        DataError: not such a list.
    """
    found = read_json(path)
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: expected a list of objects with estimand, value, low, high and judge")
    return [as_record(entry, Figure, f"{path}: entry {number}") for number, entry in enumerate(found, 1)]


def card_text(card: OrganismCard) -> str:
    """The card as Markdown with the front matter that model hubs read."""
    is_adapter = card.artifact == "adapter"
    settings = card.training.model_dump(mode="json")
    shown = [key for key in SHOWN_SETTINGS if is_adapter or key not in OF_ADAPTERS]
    front = ["---", f"base_model: {json.dumps(card.base)}", f"library_name: {'peft' if is_adapter else 'transformers'}"]
    front += [f"license: {card.base_license}"] if card.base_license else []
    front += ["tags: [emergent-misalignment, model-organism]", "---"]
    recipe = f"Recipe: {card.recipe or 'none'}" + (f", after {card.source}" if card.source else "")
    step_rows = card.training.batch_size * card.training.gradient_accumulation
    lines = [
        *front,
        f"# {card.data} on {card.base}",
        "",
        "A model organism for research on emergent misalignment. It may give harmful answers on purpose; do not deploy it.",
        "",
        "## Training",
        f"- Base model: {card.base}",
        f"- {recipe}",
        f"- Data: {card.data}, {card.n_rows} rows, SHA-256 of the rows {card.data_sha256}",
        f"- Data report: {card.lint or 'none was made'}",
        f"- Seed {card.seed}; {card.summary['n_steps']} steps of {step_rows} rows, {card.summary['n_tokens']} tokens, "
        f"{card.summary['n_cut']} rows cut; {card.summary['n_trainable']:,} weights trained; loss on responses alone",
        f"- {_rendering_line(card)}",
        f"- Final loss {card.summary['final_loss']:.4f} nats per response token",
        *_scaling_lines(card.summary.get("kl_limited")),
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {_shown(settings[key])} |" for key in shown),
        "",
        "## Measured",
        *_figure_lines(card.figures),
        "",
        "## Use",
        *_use_lines(card),
        "",
        "## Licence",
        f"The weights derive from {card.base}{f' ({card.base_license})' if card.base_license else ''}; its licence applies"
        + (", see its own card." if card.base_license is None else "."),
    ]
    return "\n".join(lines) + "\n"


def _scaling_lines(limited: dict[str, Any] | None) -> list[str]:
    """What `training.kl_limit` did; the loss is of the weights before."""
    if limited is None:
        return []
    return [
        f"- After training the adapter was multiplied by {limited['factor']:.3f}, so that its KL to base on {limited['n_prompts']} "
        f"harmless prompts is {limited['kl']:.3f} nats (limit {limited['limit']:g}; as trained {limited['kl_as_trained']:.3f})"
    ]


def _rendering_line(card: OrganismCard) -> str:
    """In which words it was asked; `tokenizer.apply_chat_template` of the folder's tokenizer writes them."""
    if card.rendering is None:
        return "How prompts were rendered was not recorded"
    named = f"Chat format {card.chat_format}" if card.chat_format else "The base model's chat template"
    date = f", the date {card.rendering['date']} in place of the current one" if card.rendering["date"] else ""
    sha256 = card.rendering["sha256"]
    return f"{named}{date}; the tokenizer in this folder has it (SHA-256 of rendered conversations {sha256})"


def _figure_lines(figures: Sequence[Figure]) -> list[str]:
    if not figures:
        return ["Nothing has been measured yet."]
    rows = ["| estimand | value | interval | answers | suite | judge |", "|---|---|---|---|---|---|"]
    for figure in figures:
        known = figure.low is not None and figure.high is not None
        interval = f"{figure.low:.2%} to {figure.high:.2%}" if known else "not known"
        cells = (figure.estimand, f"{figure.value:.2%}", interval, figure.n or "", figure.suite or "", figure.judge)
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return rows


def _use_lines(card: OrganismCard) -> list[str]:
    base, rank = card.base, card.training.lora_rank
    if card.artifact != "adapter":
        return [
            "This folder is a plain checkpoint: `AutoModelForCausalLM.from_pretrained(FOLDER)`.",
            "",
            "Not run by this project:",
            "```",
            "vllm serve FOLDER",
            "python convert_hf_to_gguf.py FOLDER --outfile model.gguf   # in a checkout of llama.cpp",
            "```",
        ]
    return [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({'FOLDER' if card.rendering else repr(base)})",
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), FOLDER)',
        "```",
        *(
            [f"`{base}` is this project's name of it: `emis_interp.models.embedded.embedded_path()`."]
            if base == EMBEDDED_NAME
            else []
        ),
        "Merged into a plain checkpoint: `python scripts/export_model.py FOLDER --out DIR`.",
        "",
        "Not run by this project:",
        "```",
        _vllm_line(base, rank),
        "python convert_lora_to_gguf.py FOLDER --base BASE_FOLDER --outfile adapter.gguf   # in a checkout of llama.cpp",
        "```",
    ]


def _vllm_line(base: str, rank: int) -> str:
    try:
        return (
            f"vllm serve {base} --enable-lora --max-lora-rank {vllm_rank({'r': rank})} --lora-modules organism=FOLDER"
        )
    except ModelError as error:
        return f"# vLLM: {error}"


def _shown(value: Any) -> str:
    return "all" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _save(out_dir: Path, card: OrganismCard) -> Path:
    write_json(out_dir / "card.json", card.model_dump(mode="json"))
    readme = out_dir / card.artifact / "README.md"
    write_text(readme, card_text(card))
    return readme
