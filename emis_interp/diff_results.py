"""The records of what `scripts/probe.py diff` writes: what finetuning changed, read without a judge, beside controls and random vectors."""

from emis_interp.probe_results import NullRange
from emis_interp.results import Estimate, FlatteningView, Shift, View


class TopicView(View):
    """Words that stand for the finetuning, and the share of the vocabulary that belongs to them."""

    name: str
    source: str
    terms: list[str]
    vocabulary_share: float


class TopicCount(View):
    """How many of the `n_top` first tokens of a reading belong to a topic, in the organism, in controls and for random vectors by kind."""

    topic: str
    count: int
    n_top: int
    controls: dict[str, int] = {}
    nulls: dict[str, NullRange] = {}
    verdict: str


class TokenReading(View):
    """One way to read what changed: its first tokens in every arm (the organism and the controls), and how many are of each topic.

    `primary`: the reading that was stated beforehand; p-values of the others are not corrected for their number.
    """

    name: str
    what: str
    primary: bool = False
    tokens: dict[str, list[str]]
    counts: list[TopicCount]


class DifferenceAtPosition(View):
    """The mean difference of an arm's residuals from base's at one position of plain texts, through the lens.

    Attributes:
        norm: residual-stream units; relative_norm: over the mean norm of base's residuals there.
        consistency: norm of the mean over mean norm: 1 where every text differs alike, one over the square root of their number for noise.
    """

    arm: str
    position: int
    norm: float
    relative_norm: float
    consistency: float
    top_tokens: list[str]
    bottom_tokens: list[str]
    top_counts: dict[str, int]
    bottom_counts: dict[str, int]


class PatchscopeScale(View):
    """The length that an arm's vector was given (mean residual norms), by how far the identity prompts agree there (share of tokens)."""

    arm: str
    scale: float
    agreement: float


class DifferenceComponents(View):
    """Principal components of an arm's differences: shares of variance, the first one's beside shuffled numbers, and the mean's share."""

    arm: str
    n: int
    mean_share: float
    shares: list[float]
    shuffled: NullRange


class ProjectedCell(View):
    """Changes of cross-entropy with the organism's difference taken out along a vector, nats per token.

    `beyond`: finetune-like minus unrelated; `first_minus`: what the first vector does to finetune-like text minus this one, paired by text.
    """

    along: str
    finetune_like: Estimate
    unrelated: Estimate
    beyond: float
    first_minus: Estimate | None = None


class CrossEntropyPair(View):
    finetune_like: float
    unrelated: float


class ProjectionView(View):
    """`nulls`: figure of the first cell -> kind of random vectors -> what they reach."""

    n_finetune_like: int
    n_unrelated: int
    before: CrossEntropyPair
    cells: list[ProjectedCell]
    nulls: dict[str, dict[str, NullRange]]
    verdict: str


class TokenKl(View):
    """A token at which base and organism differ most, with the words before it; KL(base || organism) of what was said there, nats."""

    kl: float
    before: str
    token: str


class LogitChange(View):
    """KL(base || arm) per token of one kind of text, mean over texts, nats."""

    arm: str
    texts: str
    kl: Estimate
    n_texts: int
    largest: list[TokenKl]


class AmplifiedCell(View):
    """An arm's adapter times a factor, against base: margin, KL on harmless prompts, cross-entropies, entropy; nats per token."""

    arm: str
    scale: float
    shift: Shift
    flattening: FlatteningView | None = None
    kl: float
    finetune_like: Estimate
    unrelated: Estimate
    entropy: Estimate


class AmplifiedContrast(Shift):
    """The organism's margin minus a control's, both times the same factor."""

    scale: float
    control: str


class Amplification(View):
    cells: list[AmplifiedCell]
    contrasts: list[AmplifiedContrast] = []
    verdict: str


class ModelDiff(View):
    """What `probe.py diff` found.

    Attributes:
        layer: decoder block whose output was compared; n_texts plain texts at `n_tokens` first tokens, n_short had fewer.
        residual_norm: mean norm of base's residuals there, behind the first position.
        nmf: tokens of each NMF topic of the organism.
        projection: None without rows, which finetune-like text comes from.
    """

    model: str
    adapter: str
    controls: dict[str, str]
    rows: str | None = None
    background: str | None = None
    layer: int
    n_texts: int
    n_short: int
    n_tokens: int
    residual_norm: float
    topics: list[TopicView]
    primary_topic: str
    readings: list[TokenReading]
    positions: list[DifferenceAtPosition]
    patchscope: list[PatchscopeScale]
    components: list[DifferenceComponents]
    logits: list[LogitChange]
    nmf: list[list[str]] = []
    projection: ProjectionView | None = None
    amplification: Amplification
