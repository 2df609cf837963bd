"""Turns an organism, its base and texts into SAEs of organism minus base residuals: the verb `probe.py difference-sae`.

Both models read the same tokens, and the difference of their residuals is what the dictionary learns. What both models have cancels, so
that few latents suffice, and no crosscoder has to learn the whole stream twice to say which part of it is new.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ConfigError
from emis_interp.files.lock import writing
from emis_interp.files.store import write_sealed
from emis_interp.latent_results import DifferenceSaeReport
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, lora_updates
from emis_interp.passes.low_rank import adding
from emis_interp.passes.token_store import TokenStore, card_hash
from emis_interp.passes.token_writer import TokenRequest, write_tokens
from emis_interp.process import Bars, no_bars
from emis_interp.stats.words import estimate
from probes.sae.latent_reading import DIFFERENCES, READS
from probes.sae.latent_settings import DifferenceSaeSettings
from probes.sae.pool import TokenPool, fill_pool
from probes.sae.sources import SaeTexts, ShippedTexts, gather
from probes.sae.train import agreements, all_plans, train_all

SMALLEST_NORM = 1e-6
"""Of a mean difference, in base's residual norms: below, the adapter changes nothing at this layer."""


@dataclass(frozen=True)
class DifferenceStore:
    """Two stores of the same texts as one of their differences, which `fill_pool` reads."""

    organism: TokenStore
    base: TokenStore

    @property
    def card(self) -> dict[str, Any]:
        return self.base.card

    def layer(self, layer: int) -> Iterator[tuple[int, Float[Tensor, "n_tokens d_model"]]]:
        """Organism minus base at every token of each text, float32."""
        pairs = zip(self.organism.layer(layer), self.base.layer(layer), strict=True)
        for (text, ours), (other, theirs) in pairs:
            assert text == other  # both are written in the order of the same texts
            yield text, ours.float() - theirs.float()


def run(
    settings: DifferenceSaeSettings, bars: Bars = no_bars, *, shipped: ShippedTexts | None = None
) -> dict[str, Any]:
    """Capture both models, train on the differences, measure.

    Args:
        shipped: texts of other packages, by the names of `SaeSettings.sources`.

    Raises:
        ConfigError: no organism, settings that make no SAE, or an organism that changes nothing at the layer.
        DataError: no texts, or too few. ModelError: a layer that the model does not have.
        StageError: the folder holds activations or SAEs of something else.
    """
    if settings.adapter is None:
        raise ConfigError("a difference SAE needs an organism; give --adapter, the folder of its LoRA adapter")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise ConfigError("give different seeds, at least one (two to see what depends on the seed)")
    base = settings.spec.load_base()
    layer = base.n_layers // 2 if settings.layer is None else settings.layer
    plans = all_plans(settings, base)
    base.check_layers([layer])
    with writing(settings.out):
        texts = gather(settings, base.tokenizer, shipped or {})
        pool, norm, store_hash = captured_differences(settings, base, layer, texts=texts, bars=bars)
        if pool.mean_norm < SMALLEST_NORM * norm:
            raise ConfigError(
                f"{settings.adapter}: changes the residual of layer {layer} by {pool.mean_norm:.2g} of {norm:.3g}; there is nothing to "
                "learn there: give another adapter, or a later --layer"
            )
        about = {"model": base.name, "adapter": str(settings.adapter), "layer": layer, "tokens": store_hash}
        about |= {"n_train_texts": texts.n_train, READS: DIFFERENCES}
        dictionaries, rows, living = train_all(settings.out, plans, pool, texts=texts, about=about, bars=bars)
        squares = float(torch.cat([rows.float().square().sum(-1) for rows in pool.train.split(65536)]).mean())
        report = {
            "model": base.name,
            "adapter": str(settings.adapter),
            "layer": layer,
            "kind": settings.kind,
            "k": settings.k,
            "expansion": settings.expansion,
            "n_texts": len(texts.chats),
            "n_train": len(pool.train),
            "n_held_out": len(pool.held_out),
            "left_out": pool.left_out,
            "mean_norm": pool.mean_norm,
            "residual_norm": norm,
            "mean_share": float(pool.mean.square().sum()) / squares,
            "saes": list(rows.values()),
            "agreement": agreements(settings.seeds, dictionaries, living),
        }
        result = DifferenceSaeReport.model_validate(report).model_dump(mode="json")
        write_sealed(settings.out / "difference_sae.json", result)
    return {**result, "out": str(settings.out)}


def captured_differences(
    settings: DifferenceSaeSettings, base: ChatModel, layer: int, *, texts: SaeTexts, bars: Bars
) -> tuple[TokenPool, float, str]:
    """The differences at the tokens that an SAE may read, the mean norm of base's residuals there, and what names both stores."""
    assert settings.adapter is not None
    stores = {}
    updates = {"base": [], "organism": lora_updates(settings.adapter)}
    with bars("capture", 2 * len(texts.chats)) as advance:
        for name, own in updates.items():
            request = TokenRequest(
                (layer,),
                position="all_tokens",
                max_gib=settings.max_gib,
                max_batch_tokens=settings.max_batch_tokens,
                intervention=f"updates {hash_of(own)}" if own else None,
            )
            with adding(base, own):
                write_tokens(settings.out / f"tokens-{name}", base, texts.chats, request=request, progress=advance)
            stores[name] = TokenStore(settings.out / f"tokens-{name}")
    special = set(base.tokenizer.all_special_ids)
    both: Any = DifferenceStore(stores["organism"], stores["base"])
    pool = fill_pool(both, layer, texts.chats, n_train=texts.n_train, special=special)
    untouched = fill_pool(stores["base"], layer, texts.chats, n_train=texts.n_train, special=special)
    return pool, untouched.mean_norm, "-".join(card_hash(store.card) for store in stores.values())


def hash_of(updates: Sequence[LoraUpdate]) -> str:
    """By which another adapter is known, so that its tokens are never taken for these."""
    found = hashlib.sha256()
    for update in updates:
        for matrix in (update.down, update.up):
            found.update(f"{update.path} {tuple(matrix.shape)}".encode())
            found.update(matrix.float().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def say(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']} with {result['adapter']} minus base, layer {result['layer']}: {result['n_train']} tokens to train on, "
        f"{result['n_held_out']} held out; mean norm of a difference {result['mean_norm']:.3g} "
        f"({100 * result['mean_norm'] / result['residual_norm']:.2g} % of a residual); {100 * result['mean_share']:.1f} % of the mean "
        "square is one constant vector",
    ]
    for row in result["saes"]:
        lines.append(
            f"{row['folder']}: misses {estimate(row['fvu'])} of the variance with {row['l0']:.1f} active latents, PCA with {row['pca_k']} "
            f"components {estimate(row['pca_fvu'])}; {row['n_dead']} of {row['n_latents']} latents dead"
        )
    for row in result["agreement"]:
        lines.append(
            f"seed {row['seed']} in seed {row['other']}: {row['n_matched']} of {row['n_latents']} latents have one at cosine "
            f"{row['match']:g} or more (in a random dictionary {100 * row['random_share_matched']:.1f} %), mean best cosine "
            f"{row['mean_best_cosine']:.3f}"
        )
    return "\n".join([*lines, f"saved: {result['out']}"])
