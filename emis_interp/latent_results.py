"""The records of what `probe.py latents` and `probe.py difference-sae` write: which latents a finetune changed, and what they are."""

from typing import Literal

from emis_interp.probe_results import Beside, NullRange
from emis_interp.records import Record
from emis_interp.results import Estimate, Shift
from emis_interp.sae_results import SaeFigures, SeedAgreement


class LatentNu(Record):
    """Latent scaling for one target (`probes.sae.latent_scaling`): nu near 0 is of one model, near 1 shared; `why_none` without one."""

    target: Literal["error", "reconstruction"]
    beta_own: float | None
    beta_other: float | None
    nu: Estimate
    why_none: str | None = None


class LatentRow(Record):
    """One latent that changed.

    Attributes:
        side: whether it rises or falls from the second model of the comparison to the first.
        passed: the false discovery rate on the selection questions; a row without it is shown because too few passed.
        q: Benjamini-Hochberg, of all latents tested; `p_swapped`: of the models swapped within questions.
        selection, report: change of the mean activation, in the dictionary's units: on the questions that chose it, and on the others.
        effect: |change on the report questions| x decoder norm with the change's sign, residual units.
        activation, firing_rate: by model: mean activation and share of tokens with a positive one, report questions.
        seed_gap: change between two seeds of one finetune on the report questions; seed_p: share of latents whose seed gap is as large.
        cosine_*: of the decoder vector with the plain mean difference and the misalignment direction; p among the latents that fire.
    """

    latent: int
    side: Literal["rises", "falls"]
    passed: bool
    q: float
    p_swapped: float
    selection: Estimate
    report: Estimate
    effect: float
    decoder_norm: float
    activation: dict[str, float]
    firing_rate: dict[str, float]
    seed_gap: Estimate | None = None
    seed_p: float | None = None
    cosine_difference: float
    cosine_difference_p: float
    cosine_direction: float | None = None
    cosine_direction_p: float | None = None
    nu: tuple[LatentNu, ...] = ()


class SwappedNull(Record):
    """How many latents pass when the models are swapped within random questions: mean and 95th percentile, and p of the number found.

    all_swaps: these are all swaps that the questions have, so that p cannot be smaller with more of them.
    """

    n_found: int
    mean: float
    high: float
    p: float
    p_at_floor: bool
    p_n: int
    all_swaps: bool


class SeedNull(Record):
    """The same test between two seeds of one finetune: how many latents pass; `largest`: the largest |change| x decoder norm."""

    adapter: str
    n_found: int
    n_tested: int
    largest: float


class ExplainedDifference(Record):
    """Of the mean difference's squared norm: share in the span of k latents, beside random latents; and of the sum of their changes."""

    k: int
    span: float
    random: NullRange | None
    summed: float


class PlainDifference(Record):
    """The mean difference of the residuals on the report questions, which needs no dictionary.

    Attributes:
        norm, residual_norm: its norm, and the mean norm of single tokens' residuals in base.
        half_cosine: of the differences of selection and report questions.
        direction_cosine: with the misalignment direction at this layer.
        all_summed: share that all latents together explain, the dictionary's own limit; None where the models do not differ at all.
    """

    norm: float
    residual_norm: float
    half_cosine: float
    direction_cosine: float | None = None
    explained: list[ExplainedDifference]
    all_summed: float | None


class LatentComparison(Record):
    """One model against another on the same texts.

    Attributes:
        n_tested: latents whose mean activation differs at all; the family of the false discovery rate.
        n_replicated: of the latents that passed, those with the same sign and an interval off 0 on the report questions.
    """

    first: str
    second: str
    n_questions: dict[str, int]
    rate: float
    n_tested: int
    n_rising: int
    n_falling: int
    n_replicated: int
    swapped: SwappedNull
    seeds: SeedNull | None = None
    plain: PlainDifference
    latents: list[LatentRow]


class LatentDetection(Record):
    """How well words tell, on questions that had no part in finding them, which contexts a latent fires in.

    Attributes:
        by: `terms` of firing contexts, or the latent's own top `logit tokens`.
        auroc: over all held-out contexts; `within`: inside questions, averaged: what is left without knowing the topic.
        balanced_accuracy: of "some of the words stand in the context".
        null: AUROCs of terms found after shuffling which contexts fire within questions; None for logit tokens, which are not fitted.
    """

    by: Literal["terms", "logit tokens"]
    words: list[str]
    n_contexts: int
    n_firing: int
    auroc: Estimate
    within: Estimate | None = None
    balanced_accuracy: Estimate
    null: NullRange | None = None


class LatentLabel(Record):
    """What a latent seems to be: tokens that it writes and terms of the contexts that it fires in, with their scores.

    threshold: a context (so many tokens of an answer) fires above this activation.
    """

    latent: int
    arm: str
    terms: list[str]
    top_tokens: tuple[str, ...] = ()
    bottom_tokens: tuple[str, ...] = ()
    no_tokens: str | None = None
    extremity: Beside | None = None
    threshold: float
    detections: tuple[LatentDetection, ...] = ()
    no_detection: str | None = None


class LatentEffect(Record):
    """What steering along a latent, ablating its direction or zeroing it does to the margin of report questions, nats per token.

    Attributes:
        kind: `steer`: coefficient x mean residual norm x unit decoder vector is added at the layer; `ablate`: the coordinate along that
            vector is zero everywhere; `zero`: the latent's own contribution is taken out at the layer, where it fires.
        others: the same of the latents that are nearest to those steered in activity; p two-sided.
    """

    latent: int
    arm: str
    kind: Literal["steer", "ablate", "zero"]
    coefficient: float | None = None
    shift: Shift
    others: NullRange


class LatentsReport(Record):
    """What `probe.py latents` found (latents.json)."""

    model: str
    sae: str
    layer: int
    n_latents: int
    of_differences: bool
    adapters: dict[str, str]
    direction: str | None = None
    texts: str
    n_texts: int
    n_tokens: int
    fvu: dict[str, float]
    comparisons: list[LatentComparison]
    labels: tuple[LatentLabel, ...] = ()
    effects: tuple[LatentEffect, ...] = ()
    page: str | None = None


class DifferenceSaeReport(Record):
    """What `probe.py difference-sae` found (difference_sae.json): SAEs of organism minus base residuals.

    Attributes:
        mean_norm, residual_norm: mean norm of the differences of train tokens, and of base's own residuals there.
        mean_share: share of the differences' mean square that is their mean, which needs no latent.
        n_train, n_held_out: tokens, of questions apart.
    """

    model: str
    adapter: str
    layer: int
    kind: str
    k: int
    expansion: int
    n_texts: int
    n_train: int
    n_held_out: int
    left_out: dict[str, int]
    mean_norm: float
    residual_norm: float
    mean_share: float
    saes: list[SaeFigures]
    agreement: list[SeedAgreement]
