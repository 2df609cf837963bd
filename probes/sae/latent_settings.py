"""The settings of `probe.py latents` and `probe.py difference-sae`."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings
from emis_interp.config.table_settings import AnswerTableSettings, ArmSettings
from probes.sae.settings import SaeSettings


@settings
class LatentTextSettings(ModelSettings, AnswerTableSettings, ArmSettings):
    """Which answers the models read, and how they are rendered."""

    pairs: Path | None = flag(
        "JSONL of contrast pairs; without it and --texts the shipped pairs are read",
        default=None,
        at_most_one_of="texts",
    )
    texts: Path | None = flag(
        "CSV, JSONL or Parquet with question and answer, at least 6 questions", default=None, at_most_one_of="texts"
    )
    n_per_question: int | None = flag("texts of each question, drawn with the seed; default: all", default=None)
    system_prompt: str | None = flag("system prompt of every text; left to the chat template when absent", default=None)
    max_tokens: int = flag("cut longer conversations", default=512)
    seed: int = flag("of draws and permutations", default=0)


@settings
class LatentSettings(LatentTextSettings):
    """Finds the latents of an SAE that an organism changed, rising and falling, and says what they are, with a page.

    All models read the same answers. Latents are chosen on one half of the questions (paired test over questions, false discovery rate,
    models swapped within questions as the null; with --other-seed also what two seeds of one finetune differ by) and reported on the other
    half. Beside them stands the plain mean difference of the residuals. Latent scaling tells latents of one model from shared ones. With
    --control everything is also read against the control, and that comparison is the primary one. The primary comparison's latents get a
    label with a score on held-out text, a section of the page, and, with --n-steered, the margin shift of steering and ablating them beside
    other latents. An SAE that was trained on differences (`probe.py difference-sae`) reads each model minus base, and needs --control.
    """

    sae: Path = flag("folder of an SAE: sae-lens, sparsify or dictionary_learning layout")
    sae_layer: int | None = flag("block whose output it reads, where its files do not say", default=None)
    other_model: bool = flag("the SAE names another model, which has the same residual stream", default=False)
    control: Path | None = flag("folder or hub id of a control's adapter on the same base", default=None)
    other_seed: Path | None = flag("adapter of the same finetune with another seed", default=None)
    direction: Path | None = flag("what find_direction.py fit saved, of the base model", default=None)
    rate: float = flag("false discovery rate", default=0.05)
    n_permutations: int = flag("models swapped within questions, and shuffled labels", default=200)
    n_top: int = flag("latents to show, rising and falling each", default=10)
    n_steered: int = flag("of the primary comparison's latents, those to steer and ablate; 0 for none", default=0)
    n_others: int = flag("latents beside them, those nearest in activity", default=20)
    coefficient: float = flag("of steering, in mean residual norms", default=0.2)
    n_pairs: int | None = flag(
        "contrast pairs of each report question that steering is measured on; default: all", default=None
    )
    out: Path = flag("folder for latents.json and the page")


@settings
class DifferenceSaeSettings(SaeSettings):
    """Trains SAEs on what a finetune adds to the residual stream: organism minus base, token by token, on the same texts.

    The second route to latents that a finetune brings, for `probe.py latents --sae`: a dictionary of base's residuals cannot hold what
    base does not have. Two seeds; share of the variance of held-out differences that is missed, beside PCA; which latents the seeds share.
    """

    out: Path = flag("folder for the activations, the SAEs and difference_sae.json")
    expansion: int = flag("latents for each dimension of the residual", default=2)
    k: int = flag("active latents per token", default=16)
    n_samples: int = flag("tokens to train on, in as many epochs as it takes", default=200_000)
    no_control: bool = True
    n_spliced: int = 0
