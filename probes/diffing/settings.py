"""The settings of `probe.py diff`."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings

SCALES = (-1.0, 0.5, 2.0, 3.0)
"""Of the adapter, beside 1 (the organism) and 0 (base)."""


@settings
class DiffSettings(ModelSettings):
    """Says what finetuning changed without asking a judge: activation differences on unrelated text, logits, and scaled weights.

    Base and organism read the same plain texts. The mean difference of their residuals at one layer goes through the logit lens (both
    signs) and into identity prompts of base (patchscope); it is taken out of the organism, with cross-entropy on finetune-like and on
    unrelated text beside it; per-token KL, tokens whose logits rise most often, their NMF topics, principal components of the differences;
    and the adapter times -1, 0.5, 2 and 3. Every reading ends in one number: how many of its 20 first tokens belong to the finetuning
    topic, beside the same of the controls' adapters and of random vectors. The topic comes from the training rows by TF-IDF, or is given.
    Give a benign finetune or a second seed as --control: without one, a reading says at most that it is not random.
    """

    control: tuple[Path, ...] = flag("adapters of benign finetunes or other seeds on the same base", default=())
    rows: str | None = flag("what the organism was trained on: a shipped data set, or a file of rows", default=None)
    background: str | None = flag(
        "a control's rows; words that set --rows apart from them are a second topic, the primary one", default=None
    )
    topic_words: tuple[str, ...] | None = flag(
        "the topic in words of your own; --rows are finetune-like text alone then", default=None
    )
    n_terms: int = flag("words of a topic that is found by TF-IDF", default=60)
    texts: Path | None = flag("unrelated plain text, one a line; default: shipped harmless texts", default=None)
    layer: int | None = flag("decoder block whose output is compared; default: half depth", default=None)
    n_tokens: int = flag("first tokens of each text that are compared", default=5)
    n_random: int = flag("random vectors, and as many differences of random activations", default=64)
    n_random_models: int = flag("base steered by random vectors, as null of what is mined from logits", default=20)
    n_mined: int = flag("unrelated texts whose logits are mined, 32 tokens each", default=24)
    n_held_out: int = flag("finetune-like and as many unrelated texts for cross-entropy", default=8)
    answer_tokens: int = flag("first tokens of their answers that are scored", default=32)
    scales: tuple[float, ...] = flag("factors of the adapter's weights, beside 1", default=SCALES)
    pairs: Path | None = flag("JSONL of contrast pairs for the margin; default: the shipped ones", default=None)
    n_pairs: int | None = flag("pairs per report question; default: all", default=1)
    seed: int = flag("of random vectors and shuffles", default=0)
    out: Path = flag("JSON file")
