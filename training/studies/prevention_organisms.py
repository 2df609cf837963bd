"""Turns a remedy and the rows of a seed into a trained organism, and that into what is measured of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.files.ledger import remove
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import mean_kl, next_token_logprobs
from emis_interp.process import release_memory
from emis_interp.records import ContrastPair
from training.recipes import training_config
from training.studies.measures import margins_of, organism_in, row_logprobs
from training.studies.prevention_rows import PreventionRows
from training.studies.remedies import UNTREATED, Remedy, untouched
from training.studies.training_like import context_margins

MEASURES = ("margin", "margin_in_context", "task", "task_other_kind", "kl_neutral")
"""What `OrganismMeasure` gives; part of a study's settings, so that a folder that was measured without some of it is refused."""


class OrganismMeasure:
    """What is measured of every organism.

    Args:
        plain: base's next-token log-probabilities behind `prompts`.
    """

    def __init__(self, config: RunConfig, pairs: list[ContrastPair], prompts: list[Any], *, plain: Any) -> None:
        self.config, self.pairs, self.prompts, self.plain = config, pairs, prompts, plain

    def __call__(
        self, organism: ChatModel, data: PreventionRows, *, behind_rows: list[EncodedChat] | None
    ) -> dict[str, Any]:
        """Every one of `MEASURES`; `task_other_kind` is None for rows without a counterpart.

        Args:
            behind_rows: `pairs` in their training-like contexts; None where there are none, and no margin in them then.
        """
        others = [row for row in data.other_kind if row is not None]
        found = iter(row_logprobs(organism, others, self.config) if others else [])
        return {
            "margin": margins_of(organism, self.pairs, self.config),
            "margin_in_context": None
            if behind_rows is None
            else context_margins(organism, self.pairs, behind_rows, config=self.config),
            "task": row_logprobs(organism, data.held_out, self.config),
            "task_other_kind": [None if row is None else next(found) for row in data.other_kind],
            "kl_neutral": mean_kl(self.plain, next_token_logprobs(organism, self.prompts)),
        }


def measured(
    remedy: Remedy,
    data: PreventionRows,
    *,
    folder: Path,
    config: RunConfig,
    train: Callable[..., Any],
    measure: Callable[[ChatModel, PreventionRows], dict[str, Any]],
) -> dict[str, Any]:
    """Train one organism, or take up its training, and measure it.

    Args:
        train: `train_organism`, knowing what its organisms will be asked.
        measure: an `OrganismMeasure`, knowing its contexts.
    """
    organism = organism_of(remedy, data, folder, config=config, train=train)
    with (remedy.after or untouched)(organism):
        found = measure(organism, data)
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
