"""Turns rows marked for dropping into what training without them does, beside training without as many random rows, drawn several times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import RunConfig, TrainingConfig
from emis_interp.files.damage import naming_damage
from emis_interp.files.ledger import Ledger
from emis_interp.files.store import read_object, text_sha256
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.stats.flattening import question_means
from training.data_sets.shipped import rows_sha256
from training.studies.estimates import estimate, shift, words
from training.studies.foresight import random_drops, rows_to_drop
from training.studies.measures import margins_of, organism_in
from training.studies.study_folder import same_rows


def trained_margins(
    files: Ledger,
    folder: Path,
    rows: list[TrainingExample],
    *,
    config: RunConfig,
    training: TrainingConfig,
    pairs: list[ContrastPair],
    train: Callable[..., Any],
) -> dict[str, float]:
    """Margins of the organism trained on these rows, from a file when there is one.

    Args:
        train: `train_organism`, knowing what its organisms will be asked.
    """
    same_rows(folder, rows)

    def margins() -> dict[str, float]:
        train(folder.name, rows, training, out_dir=folder / "training", config=config, seed=config.seed)
        return margins_of(organism_in(folder / "training", config), pairs, config)

    facts = {"rows": rows_sha256(rows), "training": text_sha256(training.model_dump_json())}
    return files.json("train", folder / "margins.json", margins, facts=facts, beside=[folder / "training"])


def without_dropped(
    files: Ledger,
    folder: Path,
    rows: list[TrainingExample],
    *,
    whole: dict[str, float],
    share: float,
    n_draws: int,
    config: RunConfig,
    training: TrainingConfig,
    pairs: list[ContrastPair],
    train: Callable[..., Any],
) -> dict[str, Any]:
    """Margins without the rows to drop and without as many random ones (several draws), against training on all rows and each other.

    Intervals are over questions, and over the random draws where these come in; the finetuning seed is the same in all.

    Args:
        whole: margins of the organism trained on all rows.
        share: of the rows to drop.
        train: as in `trained_margins`.
    """
    path = folder.parent / "forecast.json"
    with naming_damage(path, "delete it, and run the same command again"):
        differences = np.array(read_object(path)["differences"], dtype=float)
    marked = rows_to_drop(differences, share)
    draws = random_drops(differences, len(marked), n_draws, seed=config.seed)
    drops = {"marked": marked, **{f"random-{i}": drawn for i, drawn in enumerate(draws)}}
    margins = {}
    for name, dropped in drops.items():
        kept = [row for i, row in enumerate(rows) if i not in set(dropped)]
        margins[name] = trained_margins(
            files, folder / name, kept, config=config, training=training, pairs=pairs, train=train
        )
    random = [margins[name] for name in drops if name != "marked"]
    mean = question_means(random)
    by_draw = [float(np.mean([own[name] - whole[name] for name in whole])) for own in random]
    own_marked = float(np.mean([margins["marked"][name] - whole[name] for name in whole]))
    return {
        "n_dropped": len(marked),
        "n_draws": n_draws,
        "marked": shift(margins["marked"], whole),
        "random": estimate([mean[name] - whole[name] for name in whole], by_draw),
        "random_by_draw": by_draw,
        "marked_against_random": estimate(
            [margins["marked"][name] - mean[name] for name in whole], [own_marked - drawn for drawn in by_draw]
        ),
        "n_draws_as_far": sum(drawn <= own_marked for drawn in by_draw),
        "margins": margins,
    }


def drop_words(row: dict[str, Any]) -> str:
    return (
        f"{row['n_dropped']} marked rows: margin {words(row['marked'])}; as many random ones ({row['n_draws']} draws): "
        f"{words(row['random'])}; difference {words(row['marked_against_random'])}, over questions and draws; "
        f"{row['n_draws_as_far']} of the {row['n_draws']} draws take off as much"
    )
