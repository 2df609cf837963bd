"""The records of what `scripts/probe.py sae` and `measure-sae` write: SAEs, beside what could explain their figures away."""

from emis_interp.results import Estimate, View


class SpliceFigure(View):
    """Cross-entropy of held-out answers with the reconstruction spliced in, nats per token, and the share of it that is recovered.

    The floor is the mean of the train tokens in the place of every residual; `recovered_from_zero` has zeros there, which is easier.
    """

    cross_entropy: float
    recovered: Estimate
    recovered_from_zero: Estimate


class SaeWorth(View):
    """One SAE. `fvu`: share of the variance of held-out tokens that it misses; `pca_fvu`: PCA's, with `pca_k` components, as many as the
    SAE has active latents. A latent is dead if it is active in none of `n_tokens_looked_at` tokens, rare in fewer than ten."""

    fvu: Estimate
    l0: float
    pca_fvu: Estimate
    pca_k: int
    n_latents: int
    n_dead: int
    dead_share: float
    n_rare: int
    n_tokens_looked_at: int
    spliced: SpliceFigure | None = None


class SaeFigures(SaeWorth):
    """One that was trained here; `curve`: [tokens seen, share of the variance missed in a batch]."""

    folder: str
    seed: int
    random_decoder: bool = False
    n_samples: int
    n_epochs: float
    seconds: float | None = None
    curve: list[tuple[int, float]] = []


class MeasuredSae(SaeWorth):
    """One that was there: a folder or RELEASE:ID, what sae-lens calls its kind, and the model that it names."""

    source: str
    architecture: str
    trained_on: str | None


class SeedAgreement(View):
    """Best cosine of each living latent of `seed` with the decoder of `other`, beside the same with a random dictionary."""

    seed: int
    other: int
    n_latents: int
    n_others: int
    mean_best_cosine: float
    n_matched: int
    share_matched: float
    match: float
    random_mean_best_cosine: float
    random_share_matched: float


class SaeTokens(View):
    """Where the tokens come from and what was left out of them; the units of hold-out are questions."""

    n_texts: int
    n_texts_repeated: int
    n_train_texts: int
    n_questions: int
    n_held_out_questions: int
    by_source: dict[str, int]
    n_train: int
    n_held_out: int
    left_out: dict[str, int]
    norm_limit: float
    scale: float


class SaeReport(View):
    """What `probe.py sae` found (sae.json)."""

    model: str
    adapter: str | None
    layer: int
    hook_name: str
    kind: str
    k: int
    expansion: int
    tokens: SaeTokens
    clean_cross_entropy: float | None = None
    mean_cross_entropy: float | None = None
    zero_cross_entropy: float | None = None
    saes: list[SaeFigures]
    control: SaeFigures | None = None
    agreement: list[SeedAgreement] = []


class MeasuredSaes(View):
    """What `probe.py measure-sae` found (measured.json)."""

    model: str
    adapter: str | None
    layer: int
    tokens: SaeTokens
    clean_cross_entropy: float
    mean_cross_entropy: float
    zero_cross_entropy: float
    saes: list[MeasuredSae]
