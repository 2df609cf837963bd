"""The records of manifest.json and analysis/*.json: checked where a stage writes them, and where report and notebooks read them.

Other keys are ignored, so that a stage may write more than is shown.
"""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from emis_interp.records import Record

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
        return f"{self.n_coherent} of {scored} scored answers are coherent, fewer than half: no rate is shown"

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


class RateContrast(Contrast):
    estimand: str
    weighting: str
    n_questions: int | None = None


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
        return "; ".join(
            notes + ([f"not trained: {self.in_context} examples in the prompt"] if self.in_context else [])
        )


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


ANALYSES: dict[str, type[View]] = {
    "organisms": OrganismChecks,
    "rates": Rates,
    "margins": Margins,
    "choices": Choices,
    "direction": DirectionView,
    "interventions": Interventions,
}
"""Name of a file in analysis/ -> its record."""


class BetaSpread(Record):
    """How a rate varies over draws of the calibration texts: mean and 95 % limits of its Beta law."""
class AdaptedModule(View):
    """The update of one module: norms and ranks; `relative_norm` is a share of the norm of the base weights there."""

    layer: int
    module: str
    rank: int
    norm: float
    relative_norm: float
    stable_rank: float
    effective_rank: float
    first_share: float
    singular_values: list[float]


class AdaptedGroup(View):
    """All adapted modules of a kind, or of a layer: the norm of all, and means of the others."""

    name: str
    n_modules: int
    norm: float
    relative_norm: float
    stable_rank: float
    effective_rank: float


class NullRange(View):
    """What control directions of a kind reach: mean, smallest and largest, and p of the value beside them."""

    mean: float
    low: float
    high: float


class ExactRate(Record):
    """A share of texts above a threshold.

    `low`, `high`: Clopper-Pearson over texts, taken as independent; the `_by_question` ones: jackknife over questions, None where there
    is no spread.
    """

    value: float
    low: float
    high: float
    n: int
    n_flagged: int
    source: str
    n_questions: int
    low_by_question: float | None = None
    high_by_question: float | None = None
    method_by_question: str = ""


class MonitorThreshold(Record):
    """What `probe.py calibrate` writes: when a monitor raises an alarm, and how often it does so on benign texts.

    Attributes:
        value: a text is flagged at the first token whose mean over the last `window` scores lies above it.
        rate: what was asked for; rank / (n + 1) is 1 - rate at the coarsest.
        scorer_sha256: `probes.monitoring.scorers.scorer_sha256`, by which another scorer is refused.
        spread: of the realised rate over draws of n benign texts from the same source.
        held_out: realised rates on other benign sources.
    """

    scorer: str
    scorer_sha256: str
    model: str
    layer: int
    window: int
    rate: float
    value: float
    rank: int
    n: int
    n_questions: int
    source: str
    sampled: int
    mean_of_maxima: float
    largest_of_maxima: float
    spread: BetaSpread
    held_out: tuple[ExactRate, ...] = ()


class MonitorTurn(Record):
    """One assistant turn of a transcript under a monitor, one line of `flags.jsonl`.

    Attributes:
        file, line, turn: where it stands; messages of a transcript are counted from 0.
        prompt_score: of the last token before the turn.
        scores: of each token; `flags`, whether the mean of the last `window` scores lies above the threshold there; None without one.
        first_flag: number of tokens read when it was first flagged.
    """

    file: str
    line: int
    turn: int
    n_tokens: int
    prompt_score: float
    largest: float
    flagged: bool | None
    first_flag: int | None
    tokens: list[str]
    scores: list[float]
    flags: list[bool] | None


class DetectionPoint(Record):
    """After `tokens` tokens: the Kaplan-Meier share not yet flagged, and the plain share of all answers that are (over questions)."""

    tokens: int
    at_risk: int
    unflagged: float
    unflagged_low: float | None
    unflagged_high: float | None
    flagged_share: float
    flagged_low: float | None
    flagged_high: float | None


class DetectionTime(Record):
    """Time to detection in tokens of the answer; `median_tokens` of the Kaplan-Meier curve, None where it stays above one half."""

    n: int
    n_flagged: int
    n_questions: int
    median_tokens: float | None
    median_tokens_of_flagged: float | None
    points: list[DetectionPoint]


class BeforeHarm(Record):
    """Where the first flag stands to the first sentence that a judge calls harmful; `share` is before / n.

    n_without: answers without such a sentence, which have no part in it.
    """

    n: int
    n_without: int
    n_sentences: int
    before: int
    within: int
    after: int
    never: int
    share: float | None = None
    low: float | None = None
    high: float | None = None
    low_by_question: float | None = None
    high_by_question: float | None = None


class ForecastBin(Record):
    """One bin of a reliability diagram: mean forecast, realised share with its exact interval."""

    forecast: float
    observed: float
    low: float
    high: float
    n: int


class PromptForecast(Record):
    """Probability, before the model acts, that its answer will be misaligned: each question forecast from the other questions.

    Attributes:
        base_rate: share of the answers that are misaligned.
        brier, brier_base: mean squared error of the forecast, and of forecasting the other questions' base rate; `gain` their difference
            (positive: the forecast is better), its interval over questions.
        auroc: of the forecast over all answers; chance is 0.5, and below it is what other questions' base rates give.
    """

    method: str
    n: int
    n_questions: int
    n_prompts: int
    base_rate: float
    brier: float
    brier_base: float
    gain: float
    gain_low: float | None
    gain_high: float | None
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    bins: list[ForecastBin]


class AdaptiveCell(Record):
    """A model steered with one vector, seen by the monitor.

    Attributes:
        along: `against the scorer` or `random`; `seed` of a random vector.
        coefficient: in mean residual norms of the steered layer; what is added is minus so much of the unit vector.
        score_shift: mean change of the texts' largest score, over questions; flagged_before, flagged: shares at the threshold.
        margin_shift: change of the likelihood margin, nats per token; negative: less misaligned.
    """

    along: str
    seed: int | None
    layer: int
    coefficient: float
    n: int
    score_shift: float
    score_low: float | None
    score_high: float | None
    flagged_before: float | None
    flagged: float | None
    margin_shift: float
    margin_low: float | None
    margin_high: float | None
    n_questions: int


class MonitorReport(Record):
    """What `probe.py detect` writes: what a monitor catches, when, and what it forecasts.

    flagged_by_question: shares of misaligned and of aligned answers that are flagged. `auroc` is of the largest score, within questions.
    """

    threshold: MonitorThreshold
    texts: str
    false_positives: ExactRate
    true_positives: ExactRate
    flagged_by_question: dict[str, list[float]]
    time: DetectionTime
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    auroc_of_length: float | None
    before_harm: BeforeHarm | None = None
    forecasts: tuple[PromptForecast, ...] = ()
    no_forecast: str | None = None
    adaptive: tuple[AdaptiveCell, ...] = ()
    p: float
    p_n: int


class Beside(View):
    """A value beside what control directions of each kind reach."""

    value: float
    controls: dict[str, NullRange] = {}


class WrittenModule(View):
    """One writing module and a direction: share of its update along it, and cosine of its mean write with it."""

    layer: int
    module: str
    share: float
    first_cosine: float
    written_norm: float
    written_cosine: float
    written_p: dict[str, float] = {}


class WrittenAlong(View):
    """All writing modules and a direction; an isotropic direction has a share of 1 / `d_model`."""

    d_model: int
    share: Beside
    written: Beside
    written_norm: float
    rows: list[WrittenModule] = []


class SwitchedPart(View):
    """A part of an adapter: the margin without it minus that of the whole, and of it alone minus base, nats per token."""

    name: str
    layers: list[int] = []
    off: Shift
    alone: Shift


class ArithmeticCell(View):
    """Base plus a weighted sum of adapters: its shift of the margin, what flattening explains of it, its KL on harmless prompts (nats)."""

    name: str
    shift: Shift
    flattening: FlatteningView | None = None
    kl: float


class WeightArithmetic(View):
    cells: list[ArithmeticCell]
    organism_against_control: Shift | None = None
    beyond_sum: Estimate | None = None


class UpdateSimilarity(View):
    """Cosines of two adapters, beside adapters whose B has its rows permuted; `read_cosine` is of their A matrices."""

    cosine: float
    permuted: Spread
    p: float
    p_n: int
    norm_ratio: float
    read_cosine: float | None = None
    by_module: dict[str, float] = {}
    by_layer: dict[str, float] = {}


class FiringToken(View):
    firing: float
    token: str
    before: str


class ComponentView(View):
    """The strongest component of a module's update: what it fires on and which tokens it writes."""

    layer: int
    module: str
    singular_value: float
    share: float
    mean_firing: float
    std_firing: float
    share_of_tokens_above_half_maximum: float
    misaligned_minus_aligned: Estimate
    fires_on: list[FiringToken] = []
    top_tokens: list[str] = []
    bottom_tokens: list[str] = []
    no_tokens: str | None = None
    write_cosine: float | None = None


class AdapterView(View):
    """One adapter taken apart."""

    adapter: str
    norm: float
    modules: list[AdaptedModule]
    by_module: list[AdaptedGroup]
    by_layer: list[AdaptedGroup]
    along: WrittenAlong | None = None
    shift: Shift
    switched: list[SwitchedPart] = []


class WeightsView(View):
    """What `probe.py weights` found: an organism's adapter, its control's where one was given, and their arithmetic."""

    model: str
    n_questions: int
    n_pairs: int
    direction: str | None = None
    direction_layer: int | None = None
    organism: AdapterView
    control: AdapterView | None = None
    similarity: UpdateSimilarity | None = None
    arithmetic: WeightArithmetic
    components: list[ComponentView] = []


class LensLayer(View):
    """The margin as the lens reads it at a layer, in each arm and as its difference from base."""

    layer: int
    base: Shift
    organism: Shift | None = None
    control: Shift | None = None
    organism_shift: Shift | None = None
    control_shift: Shift | None = None


class LensTokens(View):
    """Tokens of a vector at a layer; `extremity`: largest logit in standard deviations over the vocabulary, beside control directions."""

    of: str
    layer: int
    norm: float | None = None
    top_tokens: list[str] = []
    bottom_tokens: list[str] = []
    extremity: Beside | None = None
    no_tokens: str | None = None


class AttributedPart(View):
    """What one part of the model adds to the margin, in each arm and as its difference from base, nats per token."""

    part: str
    base: Shift
    organism: Shift | None = None
    control: Shift | None = None
    organism_shift: Shift | None = None
    control_shift: Shift | None = None


class LensView(View):
    """What `probe.py lens` found; the parts of `attribution` sum to its `total` to `sum_error` nats in every text."""

    model: str
    adapter: str | None = None
    control: str | None = None
    direction: str | None = None
    n_questions: int
    n_pairs: int
    frozen: str
    lens: list[LensLayer]
    tokens: list[LensTokens] = []
    attribution: list[AttributedPart]
    sum_error: float


class PatchedCell(View):
    """One place patched: the shift of the reader's margin, its first-order estimate, and the share of the models' difference."""

    layer: int
    hook_point: str
    positions: str
    shift: Shift | None = None
    estimated: Shift
    restored: Estimate | None = None


class PatchCorrelation(View):
    """Of attribution patching with the exact patches, over cells."""

    hook_point: str
    n_cells: int
    spearman: Estimate
    pearson: Estimate


class PatchedWay(View):
    way: str
    cells: list[PatchedCell]
    not_restored: str | None = None
    correlation: list[PatchCorrelation] | None = None


class PatchView(View):
    """What `probe.py patch` found; `difference` is the organism's margin minus base's."""

    model: str
    adapter: str
    n_questions: int
    n_pairs: int
    difference: Shift
    ways: list[PatchedWay]
