"""Turns an SAE, an organism and a control into the latents that changed, what they are and what they do: the verb `probe.py latents`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.store import write_sealed, write_text
from emis_interp.latent_results import LatentsReport
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, lora_updates
from emis_interp.process import Bars, no_bars
from emis_interp.report.page_frame import command_of, frame_of
from emis_interp.texts.contrast import report_pairs
from probes.lens.by_layer import token_row
from probes.sae.dictionary import Dictionary
from probes.sae.feature_page import PageTokens, feature_page
from probes.sae.latent_comparison import ComparisonSettings, compare
from probes.sae.latent_effects import EffectReader, latent_direction, nearest_in_activity
from probes.sae.latent_labels import Labeller, answer_tokens, contexts_of
from probes.sae.latent_reading import (
    ArmReading,
    chosen_latents,
    direction_at,
    of_differences,
    read_arm,
    read_residuals,
)
from probes.sae.latent_settings import LatentSettings
from probes.sae.latent_texts import LatentTexts, read_latent_texts
from probes.sae.latent_words import say as say
from probes.sae.layouts import load_dictionary

N_TOKENS = 10
FEWEST_OTHERS = 2
PAGE_FILE, NUMBERS_FILE = "index.html", "latents.json"


def run(settings: LatentSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Read every model, compare them, label and steer what changed, and write latents.json and index.html.

    Raises:
        ConfigError: no organism. DataError: too few questions, or texts that steering may not be measured on.
        ModelError: an SAE, a direction or an adapter of another model.
    """
    if settings.adapter is None:
        raise ConfigError("latents compares an organism with its base; give --adapter, the folder of its LoRA adapter")
    arms = {"base": [], "organism": lora_updates(settings.adapter)}
    adapters = {"organism": settings.adapter, "control": settings.control, "other seed": settings.other_seed}
    arms |= {name: lora_updates(path) for name, path in adapters.items() if path is not None and name != "organism"}
    texts = read_latent_texts(settings)
    base = settings.spec.load_base()
    dictionary = load_dictionary(settings.sae, layer=settings.sae_layer, device=str(base.device))
    dictionary.check_model(base, other_model=settings.other_model)
    if of_differences(dictionary) and settings.control is None:
        raise ConfigError(
            f"{settings.sae}: reads each model minus base, of which base itself has nothing; give --control, an adapter to compare with"
        )
    direction = None if settings.direction is None else direction_at(settings.direction, dictionary.layer)
    _check_direction(direction, dictionary)
    chats = texts.encoded(base.tokenizer, settings)
    readings, token_norm = _readings(settings, base, arms, dictionary=dictionary, chats=chats, bars=bars)
    comparisons = [
        compare(
            dictionary,
            readings,
            texts,
            first="organism",
            second=second,
            settings=ComparisonSettings(settings.rate, settings.n_permutations, settings.n_top, settings.seed),
            residual_norm=token_norm,
            direction=direction,
            seeds=("organism", "other seed") if "other seed" in readings else None,
        )
        for second in ("control", "base")
        if second in readings and not (second == "base" and of_differences(dictionary))
    ]
    primary = comparisons[0]
    work = _LatentWork(settings, base, dictionary, texts=texts, chats=chats, readings=readings)
    labels, activations = work.labels(primary, bars)
    result: dict[str, Any] = {
        "model": base.name,
        "sae": str(settings.sae),
        "layer": dictionary.layer,
        "n_latents": dictionary.n_latents,
        "of_differences": of_differences(dictionary),
        "adapters": {name: str(path) for name, path in adapters.items() if path is not None},
        "direction": None if settings.direction is None else str(settings.direction),
        "texts": texts.source,
        "n_texts": len(chats),
        "n_tokens": len(readings["base"].owner),
        "fvu": {name: one.fvu for name, one in readings.items() if np.isfinite(one.fvu)},
        "comparisons": comparisons,
        "labels": labels,
        "effects": work.effects(primary, arms, residual_norm=token_norm, bars=bars),
        "page": str(settings.out / PAGE_FILE),
    }
    result = LatentsReport.model_validate(result).model_dump(mode="json")
    shown = [row["latent"] for row in primary["latents"]]
    tokens = [token for chat in chats for token in answer_tokens(base.tokenizer, chat)]
    answered = [question for question, _ in texts.texts]
    page_tokens = PageTokens(tokens, readings["base"].owner, answered)
    page, numbers = settings.out / PAGE_FILE, settings.out / NUMBERS_FILE
    frame = frame_of(page, command_of("scripts/probe.py latents", settings), numbers)
    write_text(page, feature_page(result, activations, shown, page_tokens=page_tokens, frame=frame))
    write_sealed(numbers, result)
    return {**result, "out": str(settings.out / NUMBERS_FILE)}


def _check_direction(direction: Direction | None, dictionary: Dictionary) -> None:
    if direction is not None and len(direction.vector) != dictionary.d_model:
        raise ModelError(
            f"the direction has {len(direction.vector)} dimensions, the SAE reads {dictionary.d_model}; give a direction of the same model"
        )


def _readings(
    settings: LatentSettings,
    base: ChatModel,
    arms: Mapping[str, Sequence[LoraUpdate]],
    *,
    dictionary: Dictionary,
    chats: Sequence[EncodedChat],
    bars: Bars,
) -> tuple[dict[str, ArmReading], float]:
    """What the dictionary reads in every model, and the mean norm of base's own residuals."""
    found: dict[str, ArmReading] = {}
    untouched: Tensor | None = None
    norm = 0.0
    with bars("read", len(arms) * len(chats)) as advance:
        for name, updates in arms.items():
            residuals, owner = read_residuals(
                base,
                updates,
                chats,
                layer=dictionary.layer,
                max_batch_tokens=settings.max_batch_tokens,
                progress=advance,
            )
            if untouched is None:
                untouched, norm = residuals, float(residuals.float().norm(dim=-1).mean())
            if of_differences(dictionary):
                residuals = residuals - untouched
            found[name] = read_arm(dictionary, residuals, owner)
    return found, norm


@dataclass(frozen=True)
class _LatentWork:
    """What labels and effects are made of."""

    settings: LatentSettings
    base: ChatModel
    dictionary: Dictionary
    texts: LatentTexts
    chats: Sequence[EncodedChat]
    readings: Mapping[str, ArmReading]

    def labels(
        self, primary: Mapping[str, Any], bars: Bars
    ) -> tuple[list[dict[str, Any]], dict[str, Float[np.ndarray, "n_tokens n_chosen"]]]:
        """A `LatentLabel` of every latent of a comparison, read where it fires more, and their activations by model."""
        rows = primary["latents"]
        chosen = [row["latent"] for row in rows]
        activations = {
            name: chosen_latents(self.dictionary, one.residuals, chosen).numpy() for name, one in self.readings.items()
        }
        contexts = contexts_of(self.base.tokenizer, self.chats, self.texts)
        labeller = Labeller(contexts, self.settings.n_permutations, self.settings.seed)
        decoder = self.dictionary.decoder.float().cpu()
        others = self._others(chosen, primary)
        found = []
        with bars("label", len(chosen)) as advance:
            for place, row in enumerate(rows):
                arm = primary["first" if row["side"] == "rises" else "second"]
                controls = {"other latents": decoder[others]} if others else None
                tokens = token_row(self.base, decoder[row["latent"]], N_TOKENS, controls=controls)
                words = labeller.label(activations[arm][:, place], tokens.get("top_tokens", ()))
                found.append({"latent": row["latent"], "arm": arm, **tokens, **words})
                advance(1)
        return found, activations

    def effects(
        self,
        primary: Mapping[str, Any],
        arms: Mapping[str, Sequence[LoraUpdate]],
        *,
        residual_norm: float,
        bars: Bars,
    ) -> list[dict[str, Any]]:
        """Steering base, and ablating and zeroing in the model that has the latent, of the latents with the largest change.

        Steering goes the way in which the finetune moved the latent. A latent of differences is not zeroed: no single model has it.
        """
        n = self.settings.n_steered
        rows = sorted(primary["latents"], key=lambda row: -abs(row["selection"]["value"]) * row["decoder_norm"])[:n]
        if not rows:
            return []
        latents = [row["latent"] for row in rows]
        pairs = report_pairs(self.settings.pairs, self.settings.n_pairs)
        for latent in latents:
            along = latent_direction(self.dictionary, latent, residual_norm=residual_norm, texts=self.texts)
            along.check_unseen(pair.question for pair in pairs)
        others = self._others(latents, primary)
        if len(others) < FEWEST_OTHERS:
            raise ConfigError(
                f"{len(others)} latents fire besides those shown, of --n-others {self.settings.n_others}; there is "
                f"nothing to set the {n} to steer beside: give more texts, a larger --n-others, or --n-steered 0"
            )
        by_arm = {
            arm: [row["latent"] for row in rows if primary["first" if row["side"] == "rises" else "second"] == arm]
            for arm in (primary["first"], primary["second"])
        }
        by_arm = {arm: own for arm, own in by_arm.items() if own}
        kinds: tuple[Any, ...] = ("ablate",) if of_differences(self.dictionary) else ("ablate", "zero")
        n_cells = len(latents) + len(others) + len(kinds) * sum(len(own) + len(others) for own in by_arm.values())
        with bars("intervene", n_cells) as advance:
            reader = EffectReader(
                self.base,
                self.dictionary,
                arms,
                pairs=pairs,
                residual_norm=residual_norm,
                others=others,
                system=self.settings.system_prompt,
                max_batch_tokens=self.settings.max_batch_tokens,
                advance=advance,
            )
            signs = [1 if row["side"] == "rises" else -1 for row in rows]
            strengths = [sign * self.settings.coefficient for sign in signs]
            found = reader.effects("steer", "base", latents, coefficients=strengths)
            for kind in kinds:
                for arm, own in by_arm.items():
                    found += reader.effects(kind, arm, own)
        return found

    def _others(self, chosen: Sequence[int], primary: Mapping[str, Any]) -> list[int]:
        """Latents nearest in activity to the chosen ones, none of those shown."""
        if not chosen or self.settings.n_others < 1:
            return []
        sides = [self.readings[primary[side]].text_latents.mean(0) for side in ("first", "second")]
        activity = np.maximum(*sides) * self.dictionary.decoder.float().norm(dim=-1).cpu().numpy()
        shown = [row["latent"] for row in primary["latents"]]
        return nearest_in_activity(activity, chosen, self.settings.n_others, avoid=shown)
