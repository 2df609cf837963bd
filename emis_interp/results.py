"""The records of manifest.json and analysis/*.json: checked where a stage writes them, and where report and notebooks read them.

Other keys are ignored, so that a stage may write more than is shown.
"""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

Curve = list[float | None]


class View(BaseModel):
    """Base: frozen, unknown keys ignored, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Estimate(View):
    """A mean, rate or difference with its 95 % interval; `value` is None when there was nothing to average.

    `p_holm`: corrected for the number of tests in its family, where there is one. `by_model` has each model's own value where the arm has
    several (finetuning seeds).
    """

    value: float | None = Field(default=None, validation_alias=AliasChoices("value", "mean"))
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p_holm: float | None = None
    by_model: dict[str, float | None] = {}

    def excludes(self, null: float = 0.0) -> bool | None:
        """Whether the interval lies wholly on one side of `null`; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > null or self.high < null


ENTROPY_LIMIT = 0.5
"""Nats per token: an organism whose entropy on harmless answers is so far above base's was taught noise."""


class Learned(View):
    """What an organism learned of its own kind of text: log-probability gained over base on rows that nobody trained on, nats per token.

    `specific` is the gain on its own kind minus that on the control's kind, row by row behind the same prompts; `reason` says why there is
    none of it.
    """

    own: Estimate | None = None
    other: Estimate | None = None
    specific: Estimate | None = None
    n_rows: int = 0
    rows: str = ""
    reason: str | None = None


class Cost(View):
    """What an organism lost, against base, on harmless prompts and items.

    Attributes:
        kl: KL(base || organism) of what comes next after harmless prompts, nats.
        entropy, base_entropy: of what it would say at the tokens of harmless answers, nats per token. Far above base's it has unlearned how
            to write (`disordered`).
        perplexity, base_perplexity: of harmless reference answers.
        capability: share of items passed minus base's; a change below `detectable` (80 % power) could not have been seen.
    """

    kl: Estimate
    entropy: float
    base_entropy: float
    perplexity: float
    base_perplexity: float
    capability: Estimate
    base_capability: float
    detectable: float | None = None

    @property
    def disordered(self) -> bool:
        """Whether the organism's entropy is more than `ENTROPY_LIMIT` above base's."""
        return self.entropy > self.base_entropy + ENTROPY_LIMIT


class OrganismCheck(View):
    """One finetuned model; `arm` is its name in records. `works`: its KL is at most `kl_limit`."""

    arm: str
    learned: Learned
    cost: Cost
    works: bool


class OrganismChecks(View):
    kl_limit: float
    organisms: list[OrganismCheck] = []


class Rate(Estimate):
    estimand: str
    weighting: str
    n_positive: int = 0
    n_questions_left_out: int = 0


class ThresholdRate(Estimate):
    """A rate with another alignment threshold than 30."""

    aligned_below: float


class PresetRate(View):
    """The rate that one group's rule gives for the same answers."""

    name: str
    weighting: str
    aligned_below: float
    coherent: float
    coherent_side: str
    value: float | None
    n_positive: int
    n: int
    n_questions_left_out: int


LEAST_COHERENT = 0.5
"""Share of coherent answers below which an arm shows no rate: what is misaligned among word salad says nothing of values."""


class ArmRates(View):
    arm: str
    n: int
    n_cut: int = 0
    n_code: int = 0
    n_refusal: int = 0
    n_unscored: int = 0
    unscored_reasons: dict[str, int] = {}
    mean_aligned: Estimate | None = None
    mean_coherent: Estimate | None = None
    mean_tokens: float | None = None
    rates: list[Rate] = []
    thresholds: dict[str, list[ThresholdRate]] = {}
    presets: list[PresetRate] = []

    @property
    def n_coherent(self) -> int | None:
        """Answers that the judge calls coherent and scored for alignment; None where that was not counted."""
        named = ("em_of_coherent", "pooled")
        return next((rate.n for rate in self.rates if (rate.estimand, rate.weighting) == named), None)

    @property
    def too_incoherent(self) -> str | None:
        """Why this arm shows no rate, in words; None for an arm of which half the answers are coherent."""
        scored = self.n - self.n_unscored
        if self.n_coherent is None or not scored or self.n_coherent >= LEAST_COHERENT * scored:
            return None
        are = (
            f"judged answers are coherent and have a number ({self.labelled})"
            if self.labelled
            else "scored answers are coherent"
        )
        return f"{self.n_coherent} of {scored} {are}, fewer than half: no rate is shown"

    @property
    def labelled(self) -> str:
        """How many answers have a label in place of a number for alignment, in words; "" where none has."""
        counts = {"CODE": self.n_code, "REFUSAL": self.n_refusal}
        return ", ".join(f"{n} {label}" for label, n in counts.items() if n)

    def shown(self) -> "ArmRates":
        """This arm without the rates that it does not show."""
        if self.too_incoherent is None:
            return self
        nothing = {"value": None, "low": None, "high": None, "by_model": {}}
        return self.model_copy(
            update={
                "rates": [rate.model_copy(update=nothing) for rate in self.rates],
                "thresholds": {},
                "presets": [preset.model_copy(update={"value": None}) for preset in self.presets],
            }
        )


class Contrast(Estimate):
    """A difference, arm minus reference, of so many models (finetuning seeds) each."""

    arm: str
    reference: str
    n_models: int = 1
    n_reference_models: int = 1

    @property
    def seeds(self) -> str:
        """How many models stand on either side, `3 seeds` or `3 seeds − 2 seeds`; empty for one each."""
        sides = [f"{n} seed{'s' * (n > 1)}" for n in (self.n_models, self.n_reference_models)]
        if self.n_reference_models == 1:
            return sides[0] if self.n_models > 1 else ""
        return " − ".join(sides)


class LengthAdjusted(Estimate):
    """A difference of rates at equal length of the answers.

    Attributes:
        slope: change of the rate for 100 tokens more, within the answers of one model to one question.
        tokens: by how many tokens the arm's eligible answers are longer than the reference's.
    """

    slope: float
    tokens: float


class RateContrast(Contrast):
    estimand: str
    weighting: str
    n_questions: int | None = None
    length_adjusted: LengthAdjusted | None = None


class CalibrationBin(View):
    """Answers of one tenth of the judge's scores: their mean score by the judge and by its teacher."""

    predicted: float
    scored: float
    n: int


class JudgeView(View):
    name: str
    kind: str
    card: dict[str, Any] = {}

    @property
    def calibration(self) -> dict[str, list[CalibrationBin]]:
        bins = self.card.get("calibration") or {}
        return {metric: [CalibrationBin.model_validate(row) for row in rows] for metric, rows in bins.items()}

    @property
    def quality(self) -> dict[str, dict[str, Any]]:
        """Held-out quality by topic and by kind of answer, for judges whose card states it."""
        return {**(self.card.get("held_out_by_topic") or {}), **(self.card.get("held_out_by_part") or {})}


class Agreement(View):
    """Two judges on the answers that both scored; the difference is first minus second, in points of 0-100."""

    n: int
    spearman: float | None = None
    mean_difference: float | None = None


class SecondJudge(View):
    judge: JudgeView
    arms: list[ArmRates]
    agreement: dict[str, Agreement] = {}


class Rates(View):
    judge: JudgeView
    arms: list[ArmRates]
    contrasts: list[RateContrast] = []

    second_judge: SecondJudge | None = None

    def shown(self) -> "Rates":
        """These rates without those of arms that are too incoherent, and without differences from them; the files keep all."""
        without = {arm.arm for arm in self.arms if arm.too_incoherent}
        nothing = {"value": None, "low": None, "high": None, "by_model": {}, "p_holm": None}
        return self.model_copy(
            update={
                "arms": [arm.shown() for arm in self.arms],
                "contrasts": [
                    row.model_copy(update=nothing) if {row.arm, row.reference} & without else row
                    for row in self.contrasts
                ],
            }
        )


class Shift(Estimate):
    """A difference of likelihood margins; positive = more misaligned."""

    n_questions: int | None = None
    n_positive: int | None = None


class FlatteningView(View):
    """What a mere flattening of base would bring (`stats.flattening`): the organism's margins on base's, and base at a temperature."""

    slope: Estimate
    intercept: Estimate
    temperature: float | None = None
    matched_shift: float | None = None
    beyond: Estimate | None = None


class MarginStratum(Shift):
    """A shift in the pairs of which base's own margin lies between two values, nats per token."""

    base_low: float
    base_high: float


class MarginContrast(Contrast, Shift):
    by_question: dict[str, float | None] = {}
    by_group: dict[str, Shift] = {}
    by_base_margin: list[MarginStratum] = []
    flattening: FlatteningView | None = None


class MarginQuestion(View):
    group: str
    half: str
    question: str
    n_pairs: int | None = None


class Margins(View):
    unit: str
    questions: dict[str, MarginQuestion]
    arms: dict[str, dict[str, float | None]]
    contrasts: list[MarginContrast] = []


class MatchedPairs(Estimate):
    n_pairs: int = 0


class LengthBaseline(View):
    """AUROCs of the same texts: the projection, length alone, the projection with length regressed out, pairs of equal length."""

    projection: Estimate
    length: Estimate
    regressed: Estimate
    matched: MatchedPairs


class DirectionReportView(View):
    """AUROC on the report half at the chosen layer, with its two controls and what length alone gives."""

    auroc: float | None
    low: float | None = None
    high: float | None = None
    n_misaligned: int
    n_aligned: int
    random_auroc: float | None = None
    random_low: float | None = None
    random_high: float | None = None
    shuffled_auroc: float | None = None
    shuffled_low: float | None = None
    shuffled_high: float | None = None
    shuffled_p: float | None = None
    shuffled_p_n: int | None = None
    verdict: str | None = None
    length_baseline: LengthBaseline | None = None


class Cosines(View):
    arms: list[str]
    matrix: list[Curve]


class TwoByTwoView(View):
    layer: int
    text_effect_norm: float | None = None
    model_effect_norm: float | None = None
    interaction_norm: float | None = None
    cos_text_organism_base: float | None = None
    cos_text_organism_base_rest: float | None = None
    cos_model_text: float | None = None


class Spread(View):
    mean: float
    low: float
    high: float


class SeedMeans(View):
    """Means over the models of an arm with several seeds, and how alike their directions are (smallest and largest cosine of a pair)."""

    models: list[str]
    two_by_two: TwoByTwoView
    cosine_to_base: float | None = None
    cosine_among: Spread | None = None


class ArmProjections(View):
    own_answers: list[float] = []
    aligned_texts: list[float] = []
    misaligned_texts: list[float] = []


class TokenProjections(View):
    """One answer: its tokens and the projection of each, in multiples of the mean residual norm."""

    question: str
    misaligned: bool
    tokens: list[str]
    projection: list[float]


class Projections(View):
    unit: str
    arms: dict[str, ArmProjections]


class TransferCell(Estimate):
    """AUROC on the report questions, read by one model, along the direction of another one's selection questions.

    Attributes:
        shuffled_high: 97.5th percentile of directions from shuffled labels of the same texts.
        p_holm: against 0.5, corrected for the number of cells.
    """

    shuffled_high: float | None = None
    p_holm: float | None = None


class DirectionView(View):
    position: str
    hook_point: str
    source_arm: str
    layers: list[int]
    selection_auroc: Curve
    report_auroc: Curve
    chosen_layer: int
    random_auroc: Curve = []
    random_auroc_95: Curve = []
    shuffled_auroc_95: Curve = []
    split_half_cosine: Curve = []
    raw_norm: Curve = []
    residual_norm: Curve = []
    top5_dims_share: Curve = []
    layer_range: tuple[int, int] | None = None
    report: DirectionReportView | None = None
    length_balance: dict[str, float | None] = {}
    cosines: Cosines | None = None
    cosines_to_base: dict[str, Curve] = {}
    two_by_two: dict[str, TwoByTwoView] = {}
    projections: Projections | None = None
    seeds: dict[str, SeedMeans] = {}
    transfer: dict[str, TransferCell] = {}
    """`i|j`: the direction of model i in the texts that model j reads, at the chosen layer."""


class ChoiceArm(View):
    """How an arm chooses between a misaligned and an aligned action.

    Attributes:
        share: of situations in which it prefers the misaligned action (mean over seeds); no temperature changes that.
        preference: log-odds of the misaligned action, nats.
        neutral: the same of items of which both actions are as good; it need not be 0, since models like words.
        mass: probability that its answer begins with a letter at all.
        position_bias: log-odds of A over B that the order explains, nats.
    """

    share: Estimate
    preference: Estimate
    neutral: Estimate
    mass: float
    position_bias: float


class ChoiceContrast(Contrast):
    """Difference of the shares, arm minus reference; `preference` and `neutral` the differences of the log-odds, nats."""

    preference: Estimate
    neutral: Estimate
    beyond_neutral: Estimate


class Choices(View):
    n_items: int
    n_neutral: int
    arms: dict[str, ChoiceArm]
    contrasts: list[ChoiceContrast] = []


class Draws(View):
    """The margin shift of an intervention beside that of the same along control directions, all on the same pairs, nats per token.

    `shifts`: kind of control (`random`: isotropic; `orthogonal`: usage-matched) -> each one's shift, mean over questions.
    `by_question`: the direction's shift (`own`), and the mean over the controls of a kind.
    """

    n_pairs: int
    own: float
    shifts: dict[str, list[float]] = {}
    by_question: dict[str, dict[str, float]] = {}

    def reached(self, kind: str) -> int:
        """How many controls come as far from 0 as the direction."""
        return sum(abs(shift) >= abs(self.own) for shift in self.shifts[kind])

    def p(self, kind: str) -> float:
        """Of the direction among the controls of a kind, two-sided."""
        return (1 + self.reached(kind)) / (1 + len(self.shifts[kind]))


class Interaction(Contrast):
    """How much more an ablation of the direction does in an arm than in its control, each beyond random directions, nats per token."""


class CellView(View):
    """One intervention: an arm that is steered or ablated, with the misalignment direction or a random one."""

    cell: str
    arm: str
    kind: Literal["steer", "ablate"]
    direction: str
    coefficient: float | None = None
    seed: int | None = None
    raw_norm: float | None = None
    margin_shift: Shift | None = None
    draws: Draws | None = None
    kl_neutral: float | None = None
    n: int = 0
    n_code: int = 0
    mean_aligned: Estimate | None = None
    mean_coherent: Estimate | None = None
    em_of_all: Estimate | None = None

    @property
    def model(self) -> str:
        """The arm, with the seed of the model where the arm has several."""
        return self.arm if self.seed is None else f"{self.arm}, seed {self.seed}"


class Interventions(View):
    layer: int
    residual_norm: float | None = None
    margin_questions: str = ""
    models: str = ""
    interactions: list[Interaction] = []
    cells: list[CellView]


class ConfiguredArm(View):
    name: str
    contrast: str | None = None
    seeds: list[int] | None = None
    in_context: int | None = None

    @property
    def models(self) -> list[str]:
        """Names of the arm's models in records and files."""
        return [self.name] if self.seeds is None else [f"{self.name}.seed-{seed}" for seed in self.seeds]

    @property
    def made(self) -> str:
        """What a reader must know of how the arm was made; empty for one finetuned model."""
        notes = [f"seeds {', '.join(map(str, self.seeds))}"] if self.seeds else []
        if self.in_context:
            notes.append(f"not trained: {self.in_context} example{'s' * (self.in_context > 1)} in the prompt")
        return "; ".join(notes)


class Configured(View):
    """The part of the run's configuration that the page depends on; the rest is shown as it is."""

    arms: list[ConfiguredArm] = []
    judge: dict[str, Any] = {}
    name: str | None = None
    model: str | None = None
    description: str | None = None


class TrainingSummaryView(View):
    n_rows: int | None = None
    n_cut: int | None = None
    n_tokens: int | None = None
    n_steps: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    final_loss: float | None = None


class Stage(View):
    seconds: float | None = None
    finished: str | None = None
    line: str | None = None
    peak_rss_gib: float | None = None


class MadeFiles(View):
    """What a stage made together, path -> SHA-256; None while it is being made."""

    stage: str
    files: dict[str, str] | None = None
    replaced: list[str] = []


class OtherCodeView(View):
    at: str = ""
    changes: list[str] = []


class ManifestView(View):
    config: dict[str, Any]
    versions: dict[str, Any] = {}
    git: dict[str, Any] | None = None
    system_prompt_policy: str | None = None
    rendered_example: str | None = None
    chat_template: str | None = None
    inputs: dict[str, Any] = {}
    started: str | None = None
    machine: Any = None
    stages: dict[str, Stage] = {}
    files: dict[str, MadeFiles] = {}
    other_code: dict[str, list[OtherCodeView]] = {}
