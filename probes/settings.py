"""The settings of what `scripts/find_direction.py` does, one frozen record a verb; the docstrings are the help of the verbs."""

from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import AdapterSettings, ModelSettings
from emis_interp.config.table_settings import ArmSettings, ScoreTableSettings

COEFFICIENTS = (-0.4, -0.2, -0.1, 0.1, 0.2, 0.4)
"""Of a dose-response, in mean residual norms of the layer."""
KL_LIMIT = 0.1
"""Nats that ablating a direction may cost; Arditi et al. (2024, appendix C)."""
EXTRACTOR_NAMES = ("question_balanced", "mean_difference", "paired_pca", "standardised", "mass_mean", "logistic")
"""Those of `fitting.extractors`, which needs torch."""
_EXTRACTOR_HELP = ", ".join(EXTRACTOR_NAMES)
_N_PAIRS_HELP = "pairs per question; default: all (few pairs are noisy)"


@settings
class TextSettings(ScoreTableSettings, ArmSettings):
    """Which texts a direction is fitted on, and how they are drawn and rendered."""

    pairs: Path | None = flag(
        "JSONL of contrast pairs; without it and --judged the shipped pairs are used",
        default=None,
        at_most_one_of="texts",
    )
    judged: Path | None = flag(
        "CSV, JSONL or Parquet with question, answer, aligned, coherent", default=None, at_most_one_of="texts"
    )
    system_prompt: str | None = flag("system prompt of every text; left to the chat template when absent", default=None)
    max_tokens: int = flag("cut longer conversations", default=512)
    max_per_class: int = flag("judged texts per question and class", default=150)
    variant: str = flag("judged rows of this `variant` when there is such a column, or `all`", default="plain")
    seed: int = flag("of the draw and of the controls", default=0)


@settings
class FitSettings(ModelSettings, TextSettings):
    """Fits the direction of a model on labelled texts, with its reliability card and a page to look at.

    The layer is chosen on one half of the questions and reported on the other, by what steering along it does and ablating it costs, or by
    AUROC alone. The file holds two fits at that layer: on all questions, to be used on other texts, and on the selection questions, which
    audit and frontier report on the others. Beside it lie its controls, its pairs, its curves over layers (layers.json) and a page
    (index.html). With an adapter the direction is the organism's, and base reads the same texts for a 2x2.
    """

    out: Path = flag("folder for the direction, its card, tables and page")
    extractor: str = flag(_EXTRACTOR_HELP, default="question_balanced")
    position: str = flag("response_mean or last_prompt", default="response_mean")
    layer_range: tuple[float, float] = flag("depth fractions to choose from", default=(0.2, 0.8))
    transfer: Path | None = flag(
        "judged answers (columns as --judged) to test the direction on", default=None, metavar="FILE"
    )
    select: Literal["causal", "auroc"] = flag(
        "choose the layer by AUROC (the model is not run again), or by what steering does and ablating costs",
        default="auroc",
    )
    coefficient: float = flag("of the steering that ranks layers; positive", default=0.2)
    kl_limit: float = flag("nats; candidates that cost more are dropped", default=KL_LIMIT)
    n_pairs: int = flag("pairs of answers per question that steering is measured on", default=2)
    coefficients: tuple[float, ...] | None = flag(
        f"of the dose-response; default: {' '.join(map(str, COEFFICIENTS))}; the flag alone leaves it out",
        default=None,
        may_be_empty=True,
    )


@settings
class DirectionSettings(AdapterSettings):
    """A saved direction, and the model where it is not the card's."""

    direction: Path = flag("what fit saved: the folder, the stem or the file")
    model: str | None = flag("default: the model on the direction's card", default=None)
    dtype: str | None = flag("as of fit; default: the dtype on the direction's card", default=None)


@settings
class PairSettings(DirectionSettings):
    """Which pairs a saved direction is tested on, where they are not its own."""

    pairs: Path | None = flag("JSONL of contrast pairs; default: those of the direction's texts", default=None)
    n_pairs: int | None = flag(_N_PAIRS_HELP, default=None)


@settings
class ScoreSettings(DirectionSettings, ScoreTableSettings, ArmSettings):
    """Projects answers on a saved direction: one number per row, in the order of the rows; larger is more misaligned.

    A table that has `aligned` and `coherent` too is also evaluated: AUROC of the projection within questions, beside what the length of
    the answers alone gives; rows that answer questions which the direction was fitted on are left out of it. The CSV holds the length of
    every answer, for evaluations of your own.
    """

    texts: Path = flag("CSV, JSONL or Parquet with question and answer")
    out: Path = flag("CSV with one projection per row")


@settings
class AlikeSettings(ScoreTableSettings, ArmSettings):
    """Compares directions of any models by what they say about the same texts: correlations of ranks, within questions and classes.

    Directions of two models have other dimensions and cannot be multiplied. `score` projects the same table on each; this sets the files
    side by side: by ranks within a question, without what answer length explains, and within a question and class, where two directions
    no longer agree by both telling misaligned from aligned answers. Give texts that no direction was fitted on. No model is loaded.
    """

    texts: Path = flag("the table that was scored, with question and answer, and aligned and coherent")
    projections: tuple[Path, ...] = flag("CSV files of `score`, two or more", metavar="CSV")
    unlabelled: bool = flag("the table has no scores; leave the classes out", default=False)


@settings
class TransferSettings:
    """Sets the directions of a run's arms against each other: AUROC and projection shift of arm i's direction in arm j, and asymmetry.

    Needs a finished capture stage. Directions are fitted on the selection questions; every figure is of the report questions, as mean over
    questions with a 95 % interval. Beside the AUROCs stand that of length alone, those with length regressed out, and those of pairs of
    equal length. Each table is one family of tests: its p-values are corrected for the number of its cells (Holm). Models of one arm (its
    seeds) stand apart. `--interventions` also steers and ablates every arm with every arm's direction (minutes).
    """

    run_dir: Path = flag("folder of a run whose capture stage is done", positional=True)
    layer: int | None = flag("default: the layer that the run chose", default=None)
    extractor: str = flag(_EXTRACTOR_HELP, default="question_balanced")
    interventions: bool = flag("steer and ablate too", default=False)
    coefficient: float = flag("of steering, in mean residual norms of base", default=0.2)
    n_pairs: int | None = flag("contrast pairs per report question in interventions; default: all", default=None)
    out: Path | None = flag("JSON file; default: RUN/analysis/transfer.json", default=None)


@settings
class AuditSettings(PairSettings):
    """Audits what ablating a direction does, beside 3 x 20 control directions ablated in the same way.

    The fit on the selection questions is ablated to zero, and to its mean coordinate over the texts that it was fitted on; the controls,
    of the same questions, to zero. For each: the shift of the likelihood margin on the report questions (negative: less misaligned), the
    KL divergence on harmless prompts, the perplexity of harmless text, and the share of items with a certain answer that are passed.
    p is the share of controls of a kind that move the margin at least as far in either direction, (1 + k) / (1 + n). The primary contrast
    is with the `orthogonal` controls, natural differences of texts; the others are exploratory. An increase of the margin is shown as
    plainly as a decrease: published results disagree in sign. Measured rows are kept in `audit.partial.jsonl` until the audit is done; the
    same command goes on from there.
    """

    n_controls: int = flag("of each kind; at least 20 for a p-value below 0.05", default=20)
    out: Path | None = flag("JSON file; default: audit.json beside the direction", default=None)


@settings
class FrontierSettings(PairSettings):
    """Searches, layer by layer, the steering coefficient with the strongest shift that leaves 90 % of the coherent answers coherent.

    Pairs and system prompt are those that the direction was fitted with, and the fit is the one on the selection questions. The cheap
    score at every step: the shift of the likelihood margin on the selection questions, and the share of coherent answers (offline judge,
    > 50) among samples to the shipped questions, relative to the unsteered model. The final score of each layer's best coefficient: the
    margin shift on the report questions and the judged rate of fresh answers. The primary contrast is the margin shift at the direction's
    own layer; other layers are exploratory, with p-values corrected for their number. Coefficients are in multiples of the mean residual
    norm of the layer.
    """

    n_pairs: int | None = flag(_N_PAIRS_HELP, default=2)
    layers: tuple[int, ...] | None = flag("default: the direction's own layer", default=None)
    floor: float = flag("share of the unsteered model's coherent answers to keep", default=0.9)
    first: float = flag("first coefficient; negative searches the aligned side", default=0.1)
    largest: float = flag("largest |coefficient|", default=1.6)
    n_bisections: int = flag("steps after bracketing", default=3)
    n_samples: int = flag("answers per paraphrase at each step; doubled at the end", default=4)
    max_new_tokens: int = flag("limit of an answer", default=60)
    seed: int = flag("of the answers", default=0)
    out: Path | None = flag("JSON file; default: frontier.json beside the direction", default=None)


@settings
class TwoByTwoSettings:
    """Prints the 2x2 of mean activations that others have published: what text and finetuning move, with and without massive dimensions.

    A file (safetensors) holds `[n_layers, d_model]` means {em_model,base_model}.{misaligned,aligned}_text.{answer,question}, as the
    repository of the model organisms (Turner et al. 2025) writes them. Such means are as their makers averaged them: where the misaligned
    and the aligned texts answer other questions, or some more often, both models' text effects hold the topic too, which makes them more
    alike. For texts of your own, `fit --adapter` and `transfer` balance the means over questions.
    """

    files: tuple[Path, ...] = flag("safetensors with the eight (or four) means", positional=True, metavar="FILE")
    layers: tuple[int, ...] | None = flag("default: a quarter, half and three quarters of depth", default=None)
    text: Literal["answer", "question"] = flag("tokens that the means are of", default="answer")


@settings
class ExportSettings:
    """Writes a saved direction as a llama.cpp control vector (GGUF), for `llama-server --control-vector FILE`.

    Strength 1 there is `steer` with the coefficient given here. For repeng and steering-vectors, see `probes.control_vectors`.
    """

    direction: Path = flag("what fit saved: the folder, the stem or the file")
    coefficient: float = flag("multiples of the mean residual norm; positive: misaligned", default=0.2)
    model_type: str = flag("llama.cpp's name of the architecture, a hint in the file", default="llama")
    out: Path = flag("GGUF file")
