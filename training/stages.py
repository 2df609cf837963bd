"""The train stage of a run: finetunes its arms, and puts on a model's card what was measured of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.files.ledger import files_in, remove
from emis_interp.files.store import read_record
from emis_interp.process import Bars, each, no_bars
from emis_interp.records import TrainingExample
from training.arms import RunArms
from training.data_sets.textstats import Named
from training.finetuning.organism_card import Figure, add_figures
from training.finetuning.summary import SUMMARY, TrainingSummary
from training.organism import train_organism, write_organism_card


def train(run: RunFolder, arms: RunArms, *, asked: Sequence[Named], bars: Bars = no_bars) -> tuple[list[Path], str]:
    """Finetune every model that has a data set and does not read it in its context.

    Args:
        asked: see `train_organism`.
    """
    files, parts = [], []
    for model in run.config.models:
        if (n_shown := model.arm.in_context) is not None:
            parts.append(f"{model.name} not trained: {n_shown} example{'s' * (n_shown > 1)} before every question")
    for model in each(bars, "model", [model for model in run.config.models if model.arm in run.config.trained_arms]):
        rows, out_dir, weights = arms.rows(model), arms.training_dir(model), arms.weights(model)
        places = [out_dir / name for name in (SUMMARY, "lint.json", "metrics.jsonl", "checkpoints")] + [weights]
        with run.files.making("train", places) as whole:
            if not whole:
                remove(out_dir / "card.json")  # its figures are of other weights
                train_organism(
                    model.name,
                    rows,
                    arms.training(model.arm),
                    out_dir=out_dir,
                    config=run.config,
                    seed=model.seed,
                    recipe=arms.recipe(model.arm),
                    asked=asked,
                    bars=bars,
                )
        summary = read_record(out_dir / SUMMARY, TrainingSummary)
        card = card_files(arms, model)
        with run.files.making("train", card, inputs=places[:1], anew=True):
            write_model_card(arms, model, rows)
        files += [path for place in places for path in files_in(place)] + card
        parts.append(f"{model.name} loss {summary.final_loss:.3f} ({summary.tokens_per_second:.0f} tokens/s)")
    return files, "; ".join(parts)


def put_rates_on_cards(run: RunFolder, arms: RunArms, rates: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Path]:
    """What the score stage measured of trained models, on their cards and READMEs; returns these files.

    Args:
        rates: fields of `Figure`, by the model's name.
    """
    files = []
    for model in run.config.models:
        if model.name not in rates:
            continue
        out_dir, card = arms.training_dir(model), card_files(arms, model)
        with run.files.making("score", card, inputs=[out_dir / "summary.json", run.scores(model)], anew=True):
            if not card[0].exists():
                write_model_card(arms, model, arms.rows(model))
            add_figures(out_dir, [Figure(**figure) for figure in rates[model.name]])
        files += card
    return files


def card_files(arms: RunArms, model: ModelConfig) -> list[Path]:
    return [arms.training_dir(model) / "card.json", arms.weights(model) / "README.md"]


def write_model_card(arms: RunArms, model: ModelConfig, rows: list[TrainingExample]) -> None:
    """The card of a model as it was trained on these rows."""
    write_organism_card(
        arms.training_dir(model),
        rows,
        arms.training(model.arm),
        seed=model.seed,
        name=model.name,
        recipe=arms.recipe(model.arm),
    )
