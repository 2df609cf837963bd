"""The records of what `scripts/probe.py` writes: probes and their controls, monitors, updates of weights, lens and patching."""

from typing import Any

from emis_interp.records import Record
from emis_interp.results import Estimate, FlatteningView, Shift, Spread, View


class ProbeFigure(View):
    """What one reader of answers reaches: AUROC within questions, averaged; `minus_text` is its difference from the text baseline."""

    name: str
    auroc: Estimate
    by_question: dict[str, float] = {}
    minus_text: Estimate | None = None


class ProbeNull(View):
    """AUROCs of a null over its draws (mean, 2.5th and 97.5th percentile), and the share of draws that reach the probe's."""

    name: str
    mean: float
    low: float
    high: float
    p: float
    p_at_floor: bool
    p_n: int


class ProbeChoice(View):
    """What was chosen on the calibration questions while `left_out` was the test."""

    left_out: str
    method: str
    layer: int
    position: str
    aggregation: str
    calibrate_auroc: float
    penalty: float | None = None


class ProbeSet(View):
    """All readers of one set of answers; `ceiling`: the best AUROC that the judge's label noise allows (widest spread)."""

    name: str
    n_misaligned: int
    n_aligned: int
    n_questions: int
    figures: list[ProbeFigure]
    nulls: list[ProbeNull] = []
    ceiling: Estimate | None = None
    ceiling_at_spread: Estimate | None = None
    verdict: str
    choices: list[ProbeChoice] = []


class ProbeFits(View):
    """What `probe.py fit` found (probe_fit.json)."""

    model: str
    adapter: str | None = None
    texts: dict[str, Any] = {}
    layers: list[int]
    methods: list[str]
    max_tokens: int | None = None
    sets: list[ProbeSet]
    transfers: list[ProbeSet] = []
    sources: list[ProbeSet] = []
    masked: ProbeSet | None = None
    masked_words: list[list[str]] = []
    held_out: ProbeSet | None = None
    probe: str | None = None


class BetaSpread(Record):
    """How a rate varies over draws of the calibration texts: mean and 95 % limits of its Beta law."""

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
