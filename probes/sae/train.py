"""Turns texts and a model into SAEs of two seeds and what they are worth: the verb `probe.py sae`."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from emis_interp.errors import ConfigError
from emis_interp.files.lock import writing
from emis_interp.files.store import write_sealed
from emis_interp.models.chat_model import ChatModel
from emis_interp.process import Bars, no_bars
from emis_interp.sae_results import SaeReport
from probes.sae.agreement import agreement
from probes.sae.dictionary import Dictionary
from probes.sae.finished import read_finished
from probes.sae.layouts import SAE_LENS
from probes.sae.measuring import N_FIRED, adapter_of, captured, spliced_in, tokens_row
from probes.sae.pool import TokenPool
from probes.sae.reconstruction import PrincipalComponents, census, figures, missed, principal_components
from probes.sae.settings import SaeSettings
from probes.sae.sources import SaeTexts, ShippedTexts, gather
from probes.sae.training import TrainingPlan, trained
from probes.sae.words import say as say

Living = dict[str, Bool[Tensor, "n_latents"]]


def run(settings: SaeSettings, bars: Bars = no_bars, *, shipped: ShippedTexts | None = None) -> dict[str, Any]:
    """Capture, train, measure.

    Args:
        shipped: texts of other packages, by the names of `SaeSettings.sources`.

    Raises:
        ConfigError: settings that make no SAE. DataError: no texts, or too few. ModelError: a layer that the model does not have.
        StageError: the folder holds activations or SAEs of something else.
    """
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise ConfigError("give different seeds, at least one (two to see what depends on the seed)")
    chat_model = settings.spec.load()
    layer = chat_model.n_layers // 2 if settings.layer is None else settings.layer
    plans = all_plans(settings, chat_model)
    chat_model.check_layers([layer])
    with writing(settings.out):
        texts = gather(settings, chat_model.tokenizer, shipped or {})
        pool, store_hash = captured(settings, chat_model, layer, texts=texts, bars=bars)
        about = {"model": chat_model.name, "adapter": adapter_of(chat_model), "layer": layer, "tokens": store_hash}
        about |= {"n_train_texts": texts.n_train}
        dictionaries, rows, living = train_all(settings.out, plans, pool, texts=texts, about=about, bars=bars)
        spliced = spliced_in(settings, chat_model, dictionaries, pool=pool, texts=texts, bars=bars)
        result = report(settings, chat_model, layer, texts=texts, pool=pool, rows=rows, spliced=spliced)
        result["agreement"] = agreements(settings.seeds, dictionaries, living)
        SaeReport.model_validate(result)
        write_sealed(settings.out / "sae.json", result)
    return {**result, "out": str(settings.out)}


def all_plans(settings: SaeSettings, chat_model: ChatModel) -> dict[str, TrainingPlan]:
    """Folder -> what is trained in it, the control last."""
    base = TrainingPlan(
        kind=settings.kind,
        n_latents=settings.expansion * chat_model.d_model,
        k=settings.k,
        n_samples=settings.n_samples,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seeds[0],
        autocast=settings.autocast,
    )
    base.check()
    plans = {f"seed-{seed}": replace(base, seed=seed) for seed in settings.seeds}
    return plans if settings.no_control else {**plans, "random-decoder": replace(base, random_decoder=True)}


def train_all(
    out: Path,
    plans: Mapping[str, TrainingPlan],
    pool: TokenPool,
    *,
    texts: SaeTexts,
    about: dict[str, Any],
    bars: Bars,
) -> tuple[dict[str, Dictionary], dict[str, dict[str, Any]], Living]:
    """Every SAE of the plans, by name: itself, its row, and which of its latents live.

    Args:
        about: as of `trained`.
    """
    dictionaries, rows, living = {}, {}, {}
    components = principal_components(pool.train)
    for name, plan in plans.items():
        with bars(f"train {name}", plan.n_steps) as advance:
            dictionaries[name] = trained(out / name, pool, plan, about=about, advance=advance)
        counted = census(dictionaries[name], pool, N_FIRED)
        living[name] = ~counted.dead
        found = figures(dictionaries[name], pool, texts.questions, n_fired=N_FIRED, counted=counted)
        rows[name] = row_of(found, plan, out / name, pool=pool, texts=texts, components=components)
    return dictionaries, rows, living


def row_of(
    found: dict[str, Any],
    plan: TrainingPlan,
    folder: Path,
    *,
    pool: TokenPool,
    texts: SaeTexts,
    components: PrincipalComponents,
) -> dict[str, Any]:
    """What was measured of one SAE, beside PCA, with how it was trained; without what is spliced in."""
    k = max(1, round(found["l0"]))
    written = read_finished(folder, SAE_LENS)
    return {
        "folder": f"{folder.name}/sae",
        "seed": plan.seed,
        "random_decoder": plan.random_decoder,
        **found,
        "pca_fvu": missed(pool, texts.questions, components.first(k)),
        "pca_k": k,
        **written.model_dump(mode="json", include={"n_samples", "n_epochs", "seconds", "curve"}),
    }


def agreements(seeds: Sequence[int], dictionaries: dict[str, Dictionary], living: Living) -> list[dict[str, Any]]:
    """Every seed against every other one, living latents alone."""
    rows = {seed: dictionaries[f"seed-{seed}"].decoder[living[f"seed-{seed}"]] for seed in seeds}
    return [
        {"seed": seed, "other": other, **agreement(rows[seed], rows[other])}
        for seed, other in itertools.permutations(seeds, 2)
        if len(rows[seed]) and len(rows[other])
    ]


def report(
    settings: SaeSettings,
    chat_model: ChatModel,
    layer: int,
    *,
    texts: SaeTexts,
    pool: TokenPool,
    rows: dict[str, dict[str, Any]],
    spliced: dict[str, Any],
) -> dict[str, Any]:
    """What stands in sae.json, without the agreement of seeds."""
    full = {name: {**row, "spliced": spliced[name]} for name, row in rows.items()}
    control = full.pop("random-decoder", None)
    return {
        "model": chat_model.name,
        "adapter": adapter_of(chat_model),
        "layer": layer,
        "hook_name": f"blocks.{layer}.hook_resid_post",
        "kind": settings.kind,
        "k": settings.k,
        "expansion": settings.expansion,
        "tokens": tokens_row(texts, pool),
        "clean_cross_entropy": spliced["clean"],
        "mean_cross_entropy": spliced["mean"],
        "zero_cross_entropy": spliced["zero"],
        "saes": list(full.values()),
        "control": control,
    }
