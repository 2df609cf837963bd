"""Turns the adapter of a run's model into its norms and ranks, its share along the direction, and its cosine with the contrast arm's."""

from collections.abc import Callable
from typing import Any

import numpy as np

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.directions import Direction
from emis_interp.models.lora_updates import lora_updates, norm
from probes.effects.draws import Controls
from probes.weights.spectra import grouped_rows, module_rows, similarity
from probes.weights.writes import compared, share_along


def taken_apart(
    run: RunFolder, model: ModelConfig, misalignment: Direction, *, controls: Callable[[], Controls]
) -> dict[str, Any]:
    """`update`: an `UpdateSummary` of the model's adapter; or `reason`, why there is none.

    Args:
        controls: gives the directions that stand beside the misalignment direction, the same for every model.
    """
    source = run.models.source(model)
    if source.adapter is None:
        every = "every weight was trained, there is no adapter"
        return {"reason": every if source.checkpoint is not None else None}
    updates = lora_updates(source.adapter)
    if zero := [update.path for update in updates if not (update.up.any() and update.down.any())]:
        n = f"{len(zero)} of {len(updates)} modules"
        return {
            "reason": f"the adapter was not trained in {n} (the first: {zero[0]}), so that it has no spectrum there"
        }
    rows = module_rows(run.models.base, updates)
    by_layer = grouped_rows(rows, "layer")
    own = [update for update in updates if update.writes]
    summary = {
        "arm": model.name,
        "norm": norm(updates),
        **{
            name: float(np.mean([row[name] for row in rows]))
            for name in ("relative_norm", "stable_rank", "effective_rank")
        },
        "rank": max(row["rank"] for row in rows),
        "layer_norms": {row["name"]: row["norm"] for row in by_layer},
        "along": compared(
            share_along(own, misalignment.vector[None])[0],
            {kind: share_along(own, vectors) for kind, vectors in controls().items()},
        )
        if own
        else None,
    }
    reference = reference_of(run, model)
    if reference is not None:
        other = run.models.source(reference).adapter
        assert other is not None
        summary |= {
            "reference": reference.name,
            "similarity": similarity(updates, lora_updates(other), seed=run.config.seed),
        }
    return {"update": summary}


def reference_of(run: RunFolder, model: ModelConfig) -> ModelConfig | None:
    """The contrast arm's model of the same seed, else its first; None without a contrast arm that has an adapter."""
    arm = next((arm for arm in run.config.arms if arm.name == model.arm.contrast), None)
    models = [] if arm is None else run.config.models_of(arm)
    models = [one for one in models if run.models.source(one).adapter is not None]
    return next((one for one in models if one.seed == model.seed), models[0] if models else None)
