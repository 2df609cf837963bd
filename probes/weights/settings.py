"""The settings of `probe.py weights`."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings


@settings
class WeightsSettings(ModelSettings):
    """Takes the weights of an organism apart: norms and spectra, what it writes along a direction, which layers carry the margin.

    For every adapted module: norm, singular values, stable and effective rank. With --direction: how much of the update, and of what it
    writes on the report questions' texts, lies along it, beside random, shuffled-label and natural directions. Layers are switched off
    one group at a time, and on alone, with the likelihood margin of the report questions beside it. With --control: the same of that,
    cosines of the two updates, and the margin of base plus organism minus control. The strongest components are shown with what they
    read, when they fire and which tokens they write; an adapter of rank 1 is shown whole. Positive shifts are more misaligned.
    """

    control: Path | None = flag("folder or hub id of a control's adapter on the same base", default=None)
    direction: Path | None = flag("what find_direction.py fit saved, of the base model", default=None)
    pairs: Path | None = flag("JSONL of contrast pairs; default: the shipped ones", default=None)
    n_pairs: int | None = flag("pairs per report question; default: all", default=None)
    system_prompt: str | None = flag("system prompt of every text; left to the chat template when absent", default=None)
    layers_together: int = flag("layers that are switched at once", default=1)
    n_components: int = flag("strongest components to show", default=6)
    ranks: tuple[int, ...] = flag("ranks to which the update is cut", default=(1, 4), may_be_empty=True)
    seed: int = flag("of the permuted controls", default=0)
    out: Path | None = flag("JSON file; default: weights.json beside the adapter", default=None)
