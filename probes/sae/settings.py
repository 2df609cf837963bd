"""The settings of `probe.py sae`."""

from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings

SOURCES = ("advice", "code", "answers", "contrast", "harmless")
"""Shipped texts: training answers of both kinds, answers that small models of this project gave, contrast pairs, harmless prompts."""


@settings
class SaeTextSettings(ModelSettings):
    """Which tokens an SAE reads: a model, texts, and which of them are held out."""

    out: Path = flag("folder for the activations and what is found; the same command goes on there")
    sources: tuple[str, ...] = flag("shipped texts", default=SOURCES, choices=SOURCES, may_be_empty=True)
    texts: tuple[Path, ...] = flag(
        "tables with question and answer (CSV, JSONL, Parquet) besides", default=(), may_be_empty=True
    )
    max_texts: int | None = flag("only so many of the texts, drawn with --draw", default=None)
    draw: int = flag("seed of the draw of texts", default=0)
    max_tokens: int = flag("cut longer conversations", default=512)
    held_out: float = flag("share of the questions to measure on", default=0.1)
    n_spliced: int = flag("held-out texts whose cross-entropy is measured", default=64)
    max_gib: float = flag("refuse to keep more activations", default=4.0)


@settings
class SaeSettings(SaeTextSettings):
    """Trains sparse autoencoders of the residual stream on the tokens of texts, two seeds, and measures what they are worth.

    Texts are taken once each and held out by question; tokens at the first position, special tokens and those of more than ten times the
    median norm are left out, and so is a token whose whole prefix occurred before. Of every SAE: the share of the variance of held-out
    tokens that it misses (FVU), beside PCA with as many components as it has active latents, and beside an SAE whose decoder stays
    random; active latents per token, dead latents, and the cross-entropy of held-out answers with the reconstruction spliced in. Of the
    seeds: how many latents of one the other has. Activations are kept in the folder; the same command goes on where it was ended.
    """

    layer: int | None = flag("decoder block whose output is read; default: half depth", default=None)
    kind: Literal["topk", "batchtopk", "matryoshka"] = flag(
        "topk: K latents in every token; batchtopk: on average; matryoshka: batchtopk in nested widths", default="topk"
    )
    expansion: int = flag("latents for each dimension of the residual", default=8)
    k: int = flag("active latents per token", default=32)
    n_samples: int = flag("tokens to train on, in as many epochs as it takes", default=1_000_000)
    batch_size: int = flag("tokens in a step", default=512)
    learning_rate: float = flag(
        "of Adam; warmed up over a twentieth of the steps, lowered over the last fifth", default=1e-3
    )
    autocast: bool = flag(
        "matrix products of training in bfloat16: nearly twice as fast where the processor has them", default=False
    )
    seeds: tuple[int, ...] = flag("of weights and order, one SAE each", default=(0, 1))
    no_control: bool = flag("train no SAE with a random decoder (a third of the time)", default=False)


@settings
class MeasureSaeSettings(SaeTextSettings):
    """Measures SAEs that are there, such as published ones, by the figures of `sae`, on tokens of your texts.

    FVU on held-out tokens beside PCA (fitted on the others) with as many components as the SAE has active latents, active and dead
    latents, cross-entropy recovered. All SAEs are of one layer of the model; another width, or a layer that is not there, is refused.
    """

    saes: tuple[str, ...] = flag(
        "folders (layouts of sae-lens, sparsify, dictionary_learning), or RELEASE:ID of a published one", metavar="SAE"
    )
    sae_layer: int | None = flag("block whose output they read, where their files do not say", default=None)
    scale: float | None = flag("factor on activations that they were trained with and do not tell", default=None)
    other_model: bool = flag(
        "they may be of a model of another name, which has this one's residual stream", default=False
    )
