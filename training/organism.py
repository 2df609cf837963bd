"""Turns rows into an organism: they are linted, a model is finetuned on them, and its card says what it is made of."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig, TrainingConfig
from emis_interp.models.loading import load_tokenizer
from emis_interp.process import Bars, is_main_process, no_bars, release_memory
from emis_interp.records import TrainingExample
from training.data_sets.textstats import Named
from training.finetuning.organism_card import write_card
from training.finetuning.sft import finetune, n_steps_of
from training.lint.dataset import lint_before_training
from training.lint.report import LintReport, lint_summary_line
from training.recipes import Recipe

log = logging.getLogger(__name__)


def train_organism(
    name: str,
    rows: list[TrainingExample],
    training: TrainingConfig,
    *,
    out_dir: Path,
    config: RunConfig,
    seed: int,
    asked: Sequence[Named],
    recipe: Recipe | None = None,
    bars: Bars = no_bars,
    **watching: Any,
) -> dict[str, Any]:
    """Lint the rows, train one organism behind a progress bar, write its model card, and return its summary.

    Args:
        config: model, chat format, system prompt and device are taken from it.
        asked: what the organism will be asked, which its rows must not hold (`lint.copies.asked_texts`).
        recipe: named on the card.
        watching: goes to `finetune` (probe, while_training, ...).

    Raises:
        DataError: the rows have an error of the lint; nothing is trained.
    """
    if is_main_process():
        warnings = lint_before_training(
            rows,
            load_tokenizer(config.model, config.chat_format),
            out_dir,
            data=name,
            model=config.model,
            system=config.system_prompt,
            max_tokens=training.max_tokens,
            questions=asked,
        )
        if warnings:
            log.warning("lint of %s", warnings)
    release_memory()
    with bars(f"train {name}", n_steps_of(len(rows), training)) as advance:
        done = 0

        def report(step: int, n_steps: int, loss: float, speed: float) -> None:
            nonlocal done
            advance(step - done, note=f"loss {loss:.3f}, {speed:.0f} tokens/s")
            done = step
            if step % 4 == 0:
                release_memory()  # batches of many lengths leave holes that add up over the steps

        summary = finetune(
            config.model,
            rows,
            training,
            out_dir=out_dir,
            seed=seed,
            system=config.system_prompt,
            device=config.device,
            report=report,
            chat_format=config.chat_format,
            **watching,
        )
    if is_main_process():
        write_organism_card(out_dir, rows, training, seed=seed, name=name, recipe=recipe)
    return summary


def write_organism_card(
    out_dir: Path, rows: list[TrainingExample], training: TrainingConfig, *, seed: int, name: str, recipe: Recipe | None
) -> None:
    """The model card of what `train_organism` left in a folder; measured rates that stand on it stay."""
    source = recipe.source if recipe else None
    lint = lint_summary_line(LintReport.load(out_dir / "lint.json"))
    write_card(
        out_dir, rows, training, seed=seed, data=name, recipe=recipe.name if recipe else None, source=source, lint=lint
    )
