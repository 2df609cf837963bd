"""Turns a run's configuration into how much work each of its stages is, in training rows: what one row costs to train on.

The counts are the run's own. The exchange rates between kinds of work were read off finished runs of the laptop preset on CPUs, and are
good to about a factor of two (docs/terminal.md says how far estimates of the time left were off). They serve for stages that have not
begun; a run's own times take their place as they come.
"""

from emis_interp.config.run_config import RunConfig

PAIR = 0.16
"""A contrast pair whose two answers one model reads for their margin."""
TEXT = 0.11
"""A text of which every layer's activations are kept."""
ANSWER_TOKEN = 0.0034
"""A token of a sampled answer, in batches."""
SCORE = 0.09
"""An answer that the offline judge reads."""
CHECKED, CHOSEN, WATCHED = 40.0, 13.0, 17.0
"""A model's check, its choices, and its part of the probe stage."""
HARMLESS = 6.0
"""The cost of an intervention on harmless prompts."""
DRAW = 5.0
"""A control direction beside an intervention."""


def stage_work(config: RunConfig, *, n_rows: int, n_pairs: int, n_answers: int) -> dict[str, float]:
    """Stage -> work.

    Args:
        n_rows: rows that all arms train on, over all epochs.
        n_answers: that a model is asked for.
    """
    n_models, plan = len(config.models), config.intervention
    ablated = [arm for arm in config.organisms if plan.ablate_arms is None or arm.name in plan.ablate_arms]
    answer = config.sampling.max_new_tokens * ANSWER_TOKEN
    n_asked = n_answers * plan.samples_per_paraphrase / (config.sampling.samples_per_paraphrase or 1)
    # Half of the pairs are of the report half; every second cell is that of a control direction, without draws beside it.
    cell = PAIR * n_pairs / 2 + HARMLESS + n_asked * (answer + SCORE) + DRAW * (2 * plan.random_draws + 1) / 2
    return {
        "train": float(n_rows),
        "check": CHECKED * n_models,
        "sample": answer * n_answers * n_models,
        "score": SCORE * n_answers * n_models,
        "likelihood": PAIR * n_pairs * (n_models + 1),
        "choices": CHOSEN * n_models,
        "capture": TEXT * (2 * n_pairs + n_answers) * n_models,
        "direction": 1.0,
        "intervene": cell * 2 * (len(plan.coefficients) + len(ablated)),
        "probe": WATCHED * n_models,
        "report": 1.0,
    }
