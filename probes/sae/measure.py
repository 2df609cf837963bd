"""Turns SAEs that are there, published ones or others, into what they are worth on one's own texts: the verb `probe.py measure-sae`."""

from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.files.lock import writing
from emis_interp.files.store import write_sealed
from emis_interp.models.chat_model import ChatModel
from emis_interp.process import Bars, no_bars
from emis_interp.sae_results import MeasuredSaes
from probes.sae.dictionary import Dictionary
from probes.sae.layouts import load_dictionary
from probes.sae.measuring import N_FIRED, adapter_of, captured, spliced_in, tokens_row
from probes.sae.reconstruction import census, figures, missed, principal_components
from probes.sae.settings import MeasureSaeSettings
from probes.sae.sources import ShippedTexts, gather
from probes.sae.words import measured_words


def run(settings: MeasureSaeSettings, bars: Bars = no_bars, *, shipped: ShippedTexts | None = None) -> dict[str, Any]:
    """Load, capture, measure.

    Args:
        shipped: texts of other packages, by the names of `SaeTextSettings.sources`.

    Raises:
        ConfigError: SAEs of several layers, or one given twice. DataError, ModelError: as `load_dictionary`, `Dictionary.check_model`.
        StageError: the folder holds activations of something else.
    """
    chat_model = settings.spec.load()
    dictionaries = {source: loaded(source, settings, chat_model) for source in settings.saes}
    layers = {dictionary.layer for dictionary in dictionaries.values()}
    if len(layers) != 1 or len(dictionaries) < len(settings.saes):
        places = ", ".join(f"{source} reads layer {dictionary.layer}" for source, dictionary in dictionaries.items())
        raise ConfigError(f"{places}; give each SAE once, and those of one layer at a time")
    [layer] = layers
    with writing(settings.out):
        texts = gather(settings, chat_model.tokenizer, shipped or {})
        pool, _ = captured(settings, chat_model, layer, texts=texts, bars=bars)
        components = principal_components(pool.train)
        spliced = spliced_in(settings, chat_model, dictionaries, pool=pool, texts=texts, bars=bars)
        rows = []
        for source, dictionary in dictionaries.items():
            counted = census(dictionary, pool, N_FIRED)
            found = figures(dictionary, pool, texts.questions, n_fired=N_FIRED, counted=counted)
            k = max(1, round(found["l0"]))
            pca = {"pca_fvu": missed(pool, texts.questions, components.first(k)), "pca_k": k}
            about = {"source": source, "architecture": dictionary.card["architecture"], "trained_on": dictionary.model}
            rows.append({**about, **found, **pca, "spliced": spliced[source]})
        result = {
            "model": chat_model.name,
            "adapter": adapter_of(chat_model),
            "layer": layer,
            "tokens": tokens_row(texts, pool),
            **{f"{name}_cross_entropy": spliced[name] for name in ("clean", "mean", "zero")},
            "saes": rows,
        }
        MeasuredSaes.model_validate(result)
        write_sealed(settings.out / "measured.json", result)
    return {**result, "out": str(settings.out)}


def say(result: dict[str, Any]) -> str:
    return measured_words(result)


def loaded(source: str, settings: MeasureSaeSettings, chat_model: ChatModel) -> Dictionary:
    """One SAE of the model, from a folder or as RELEASE:ID."""
    release, _, sae_id = source.partition(":")
    where, name = (source, None) if Path(source).is_dir() or not sae_id else (release, sae_id)
    options = {"device": str(chat_model.device), "layer": settings.sae_layer, "scale": settings.scale}
    dictionary = load_dictionary(where, name, **options)
    dictionary.check_model(chat_model, other_model=settings.other_model)
    return dictionary
