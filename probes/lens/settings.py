"""The settings of `probe.py lens` and `probe.py patch`."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings
from emis_interp.passes.hook_names import HOOK_POINTS

PATCHED = ("resid_post", "attn_out", "mlp_out")
POSITION_GROUPS = ("prompt", "last_prompt", "answer", "all")


@settings
class PairedModelSettings(ModelSettings):
    """A model, its organism where --adapter is given, and the pairs of report questions that both read."""

    pairs: Path | None = flag("JSONL of contrast pairs; default: the shipped ones", default=None)
    n_pairs: int | None = flag("pairs per report question; default: all", default=None)
    system_prompt: str | None = flag("system prompt of every text; left to the chat template when absent", default=None)
    layers: tuple[int, ...] | None = flag("default: every third layer and the last", default=None)


@settings
class LensSettings(PairedModelSettings):
    """Reads residuals, a direction and the likelihood margin through the model's own final norm and head.

    At each layer: the margin of the report questions as the lens reads it, and the tokens that the direction and the mean difference of
    organism and base write. Direct logit attribution: what embedding, attention and MLP of every layer add to the margin. The parts sum to
    the margin: the scale of the final norm and the next-token distribution are frozen at what the model itself has at each token, and what
    the entropy of that distribution adds is a part of its own. With --control, its attribution stands beside the organism's.
    """

    control: Path | None = flag("folder or hub id of a control's adapter on the same base", default=None)
    direction: Path | None = flag("what find_direction.py fit saved, of the base model", default=None)
    n_tokens: int = flag("tokens to show of each end", default=8)
    out: Path = flag("JSON file")


@settings
class PatchSettings(PairedModelSettings):
    """Puts activations of base into the organism, and of the organism into base, and reads how much of the margin's difference moves.

    One cell is a layer, a hook point and a group of positions (the question, the last prompt token, the answer, or all). Every cell is
    patched exactly, and estimated by attribution patching: gradient of the answers' log-probability times the change of the activations,
    one backward pass for all cells. The correlation of the two over cells says whether the estimate may stand for the patches.
    """

    hook_points: tuple[str, ...] = flag("what is patched", default=PATCHED, choices=HOOK_POINTS)
    positions: tuple[str, ...] = flag("groups of tokens", default=POSITION_GROUPS, choices=POSITION_GROUPS)
    screen_only: bool = flag("estimate by attribution alone, patch nothing", default=False)
    out: Path = flag("JSON file")
