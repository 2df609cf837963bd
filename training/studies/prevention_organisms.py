"""Turns a remedy and the rows of a seed into a trained organism, and that into what is measured of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.files.ledger import remove
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import mean_kl, next_token_logprobs
from emis_interp.process import release_memory
from emis_interp.records import ContrastPair, TrainingExample
from training.recipes import training_config
from training.studies.measures import margins_of, organism_in, row_logprobs
from training.studies.prevention_rows import PreventionRows
from training.studies.remedies import UNTREATED, Remedy, untouched


class OrganismMeasure:
    """What is measured of every organism."""

    def __init__(self, config: RunConfig, pairs: list[ContrastPair], prompts: list[Any], *, plain: Any) -> None:
        self.config, self.pairs, self.prompts, self.plain = config, pairs, prompts, plain

    def __call__(self, organism: ChatModel, held_out: list[TrainingExample]) -> dict[str, Any]:
        return {
            "margin": margins_of(organism, self.pairs, self.config),
            "task": row_logprobs(organism, held_out, self.config),
            "kl_neutral": mean_kl(self.plain, next_token_logprobs(organism, self.prompts)),
        }


def measured(
    remedy: Remedy,
    data: PreventionRows,
    *,
    folder: Path,
    config: RunConfig,
    train: Callable[..., Any],
    measure: OrganismMeasure,
) -> dict[str, Any]:
    """Train one organism, or take up its training, and measure it.

    Args:
        train: `train_organism`, knowing what its organisms will be asked.
    """
    organism = organism_of(remedy, data, folder, config=config, train=train)
    with (remedy.after or untouched)(organism):
        found = measure(organism, data.held_out)
    del organism
    release_memory()
    return found


def organism_of(
    remedy: Remedy, data: PreventionRows, folder: Path, *, config: RunConfig, train: Callable[..., Any]
) -> ChatModel:
    """The trained (and re-aligned) organism with merged weights; remedies after training share the untreated adapter."""
    training = training_config(data.recipe, config.training)
    name, first = remedy.name, folder / "training"
    if remedy.realign or remedy.after is not None:
        name, first = UNTREATED, folder.parent / UNTREATED / "training"
    train(
        name,
        getattr(data, remedy.rows),
        training,
        out_dir=first,
        config=config,
        seed=config.seed,
        recipe=data.recipe,
        while_training=remedy.during,
    )
    if not remedy.realign:
        return organism_in(first, config)
    # The first adapter is folded into float32 weights, and a second one is trained on them.
    start = folder / "start"
    if not (start / "config.json").exists():
        trained = organism_in(first, config.model_copy(update={"dtype": "float32", "device": "cpu"}))
        save_whole(trained, start)
    onward = config.model_copy(update={"model": str(start)})
    train(remedy.name, data.realign, training, out_dir=folder / "training", config=onward, seed=onward.seed)
    return organism_in(folder / "training", onward)


def save_whole(chat_model: ChatModel, folder: Path) -> None:
    """Save a model through a hidden folder and a rename: one that was killed meanwhile leaves no folder that looks like a model."""
    temporary = folder.with_name(f".{folder.name}-unfinished")
    remove(temporary)
    remove(folder)
    chat_model.model.save_pretrained(temporary)
    chat_model.tokenizer.save_pretrained(temporary)
    temporary.replace(folder)
