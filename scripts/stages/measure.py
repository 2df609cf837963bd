"""Stages 4-6: likelihood margins, residual activations, and the misalignment direction."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cli import progress_bar
from emis_interp.config.run_config import ModelConfig
from emis_interp.directions import FittedOn, cosine, unit
from emis_interp.errors import DataError
from emis_interp.files.store import card_path, read_object, write_json
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.files.text import is_unicode
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.geometry import TwoByTwo
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc
from emis_interp.fitting.selection import DirectionReport, find_direction
from emis_interp.models.chat import EncodedChat, encode_chat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_with_norms
from emis_interp.passes.likelihood import by_question, margins_at, pair_margins
from emis_interp.records import ContrastPair, LabeledText
from emis_interp.stats.families import holm
from emis_interp.stats.flattening import TEMPERATURES, describe, flattening
from emis_interp.stats.interval import mean_interval, stratified_mean_interval
from emis_interp.stats.seeds import mean_p_with_seeds, with_seeds
from emis_interp.texts.contrast import labeled_texts
from stages.organisms import answers_of, samples_path
from stages.run import Run

Margins = dict[str, np.ndarray]
"""Model of an arm -> margin of every contrast pair, in the order of the pairs."""


def likelihood(run: Run) -> tuple[list[Path], str]:
    """Margin between misaligned and aligned contrast answers of every arm, and paired differences between arms."""
    files = []
    values: dict[str, Margins] = {arm.name: {} for arm in run.config.arms}
    for model in run.config.models:
        path = margins_path(run, model)
        run.files.json("likelihood", path, partial(own_margins, run, model), inputs=run.weights(model))
        files.append(path)
        values[model.arm.name][model.name] = read_margins(run, model)
    flattened = run.folder / "likelihood" / "base.temperatures.json"
    table = run.files.json("likelihood", flattened, partial(measure_flattened, run))
    files.append(flattened)
    base_at = {
        temperature: by_question(run.pairs, np.array(row))
        for temperature, row in zip(table["temperatures"], table["margins"], strict=True)
    }
    contrasts = []
    for arm in run.config.organisms:
        for reference in dict.fromkeys(name for name in ("base", arm.contrast) if name):
            row = contrast_of(run.pairs, arm.name, reference, values=values)
            if reference == "base":
                own, base = (by_question(run.pairs, mean_of_models(values[name])) for name in (arm.name, "base"))
                row["flattening"] = describe(flattening(own, base, base_at))
            contrasts.append(row)
    correct(contrasts, {arm.name: arm.contrast for arm in run.config.organisms})
    path = run.folder / "analysis" / "margins.json"
    questions = {
        pair.question_id: {"group": pair.group, "half": pair.half, "question": pair.question, "n_pairs": 0}
        for pair in run.pairs
    }
    for pair in run.pairs:
        questions[pair.question_id]["n_pairs"] += 1
    unit = "nats per token, misaligned minus aligned"
    margins = {name: by_question(run.pairs, mean_of_models(own)) for name, own in values.items()}
    with run.files.making("likelihood", [path], inputs=files, anew=True):
        write_json(path, {"unit": unit, "questions": questions, "arms": margins, "contrasts": contrasts})
    against_base = [row for row in contrasts if row["reference"] == "base"]
    line = ", ".join(f"{row['arm']} {row['mean']:+.3f} {interval_text(row)}" for row in against_base)
    return [*files, path], f"margin shift against base, nats per token: {line}"


def margins_path(run: Run, model: ModelConfig) -> Path:
    return run.folder / "likelihood" / f"{model.name}.json"


def own_margins(run: Run, model: ModelConfig) -> dict[str, Any]:
    """What likelihood/MODEL.json holds: the margin of every contrast pair, nats per token."""
    margins = measure_margins(run, run.load(model), run.pairs, title=f"likelihood {model.name}")
    return {"arm": model.name, "margins": margins.tolist()}


def read_margins(run: Run, model: ModelConfig) -> np.ndarray:
    """Margin of every contrast pair, in the order of the pairs.

    Raises:
        DataError: the file is damaged.
    """
    path = margins_path(run, model)
    found = read_object(path).get("margins")
    if not isinstance(found, list) or len(found) != len(run.pairs) or not all(is_finite(value) for value in found):
        raise DataError(
            f"{path}: expected `margins` with {len(run.pairs)} finite numbers; run the likelihood stage again"
        )
    return np.array(found, dtype=float)


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def measure_margins(run: Run, chat_model: ChatModel, pairs: list[ContrastPair], *, title: str) -> np.ndarray:
    with progress_bar(title, 2 * len(pairs)) as advance:
        return pair_margins(
            chat_model,
            pairs,
            run.config.system_prompt,
            max_batch_tokens=run.config.direction.max_batch_tokens,
            progress=advance,
        )


def measure_flattened(run: Run) -> dict[str, Any]:
    """Margins of base with its logits divided by each of `TEMPERATURES`: what flattening a model does to them."""
    with progress_bar("likelihood base, by temperature", 2 * len(run.pairs)) as advance:
        found = margins_at(
            run.base,
            run.pairs,
            TEMPERATURES,
            system=run.config.system_prompt,
            max_batch_tokens=run.config.direction.max_batch_tokens,
            progress=advance,
        )
    return {"temperatures": list(TEMPERATURES), "margins": found.tolist()}


def mean_of_models(margins: Margins) -> np.ndarray:
    """Mean over an arm's models of each pair's margin."""
    return np.mean(list(margins.values()), axis=0)


def contrast_of(pairs: list[ContrastPair], arm: str, reference: str, *, values: dict[str, Margins]) -> dict[str, Any]:
    """Paired difference of two arms' margins, each a mean over the arm's models: in all with an interval over questions and seeds;
    for each group and each question with an interval over its pairs and seeds, the questions as given."""
    difference = mean_of_models(values[arm]) - mean_of_models(values[reference])
    shifts = by_question(pairs, difference)
    question_of, group_of = (np.array([getattr(pair, key) for pair in pairs]) for key in ("question_id", "group"))

    def own_means(chosen: np.ndarray) -> list[dict[str, float]]:
        """Of both arms, each model's mean over the questions of the chosen pairs."""
        some = [pair for pair, wanted in zip(pairs, chosen, strict=True) if wanted]
        return [
            {name: float(np.mean(list(by_question(some, own[chosen]).values()))) for name, own in values[one].items()}
            for one in (arm, reference)
        ]

    def within(chosen: np.ndarray) -> dict[str, Any]:
        interval = stratified_mean_interval(difference[chosen], question_of[chosen])
        interval = with_seeds(interval, *own_means(chosen))
        own = [shifts[name] for name in dict.fromkeys(question_of[chosen].tolist())]
        counts = {"n_questions": len(own), "n_positive": sum(value > 0 for value in own), "n_pairs": int(chosen.sum())}
        return {"mean": interval.value, "low": interval.low, "high": interval.high, **counts}

    models = own_means(np.full(len(pairs), True))
    seeds: dict[str, Any] = {}
    if max(len(own) for own in models) > 1:
        against = float(np.mean(list(models[1].values())))
        seeds = {"n_models": len(models[0]), "n_reference_models": len(models[1])}
        if len(models[0]) > 1:
            seeds["by_model"] = {name: value - against for name, value in models[0].items()}
    return {
        "arm": arm,
        "reference": reference,
        **shift_summary(shifts, *models),
        "p": mean_p_with_seeds(list(shifts.values()), *models),
        **seeds,
        "by_question": shifts,
        "question_intervals": {name: within(question_of == name) for name in shifts},
        "by_group": {name: within(group_of == name) for name in dict.fromkeys(group_of.tolist())},
    }


def correct(contrasts: Sequence[dict[str, Any]], controls: Mapping[str, str | None]) -> None:
    """Put `p_holm` beside the p of the primary contrasts, each an arm against the control of its configuration: they are one family.

    The others are exploratory and stay without.
    """
    primary = {row["arm"]: row for row in contrasts if controls.get(row["arm"]) == row["reference"]}
    for arm, p in holm({arm: row["p"] for arm, row in primary.items()}).items():
        primary[arm]["p_holm"] = p


def shift_summary(differences: dict[str, float], *models: dict[str, float]) -> dict[str, Any]:
    """Mean over questions with its 95 % t interval (None with one question), and how many questions are positive.

    Args:
        models: for each arm in the difference, its models' own means, whose draw the interval covers where there are several.
    """
    values = np.array(list(differences.values()))
    interval = with_seeds(mean_interval(values), *models)
    return {
        "mean": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "n_questions": len(values),
        "n_positive": int((values > 0).sum()),
    }


def interval_text(row: dict[str, Any]) -> str:
    return "(no interval)" if row["low"] is None else f"({row['low']:+.3f} to {row['high']:+.3f})"


def capture(run: Run) -> tuple[list[Path], str]:
    """Response-mean `resid_post` of every layer: each model on the contrast texts and on its own answers."""
    files, n_texts = [], 0
    for model in run.config.models:
        chat_model = None
        for kind in ("contrast", "answers"):
            path = activation_path(run, model, kind)
            texts = [samples_path(run, model)] if kind == "answers" else []
            with run.files.making("capture", [path, card_path(path)], inputs=[*run.weights(model), *texts]) as whole:
                if not whole:
                    chat_model = chat_model or run.load(model)
                    capture_texts(run, model, kind, chat_model=chat_model, path=path)
            n_texts += read_object(card_path(path)).get("n_texts", 0)
            files += [path, card_path(path)]
    return files, f"{n_texts} texts, {run.base.n_layers} layers, {len(run.config.arms)} arms"


def capture_texts(run: Run, model: ModelConfig, kind: str, *, chat_model: ChatModel, path: Path) -> None:
    """Save what one model has of one kind of texts, with its card."""
    read = contrast_chats if kind == "contrast" else answer_chats
    chats = read(run, model, chat_model.tokenizer)
    with progress_bar(f"capture {model.name} {kind}", len(chats)) as advance:
        x, norms = capture_with_norms(
            chat_model, chats, max_batch_tokens=run.config.direction.max_batch_tokens, progress=advance
        )
    card = {
        "arm": model.name,
        "texts": kind,
        "n_texts": len(chats),
        "position": "response_mean",
        "hook_point": "resid_post",
    }
    save_tensors(path, {"x": x, "token_norm": norms}, card)


def direction(run: Run) -> tuple[list[Path], str]:
    """Fit and choose on the selection half, report on the other, and compare the arms."""
    labels = labeled_texts(run.pairs)
    lengths = answer_lengths(run, labels)
    misaligned = np.array([text.misaligned for text in labels])
    questions = tuple(text.question_id for text in labels)
    halves = {half: {pair.question_id for pair in run.half(half)} for half in ("selection", "report")}
    stored = {model.name: load_tensors(activation_path(run, model, "contrast"))[0] for model in run.config.models}
    data = {name: LabeledActivations(tensors["x"], misaligned, questions, lengths) for name, tensors in stored.items()}
    config = run.config.direction
    found = find_direction(
        data["base"].only(halves["selection"]),
        data["base"].only(halves["report"]),
        stored["base"]["token_norm"].mean(0),
        layer_range=config.layer_range,
        n_permutations=config.n_permutations,
        seed=run.config.seed,
    )
    card = {
        "name": "misalignment",
        "model": run.config.model,
        "source_arm": "base",
        "system_prompt": run.config.system_prompt,
        "texts": "contrast pairs; `vector` is fitted on all, `selection` and the figures of `report` on the selection half",
    }
    reported = replace(
        found.direction, fitted_on=FittedOn.of(text for text in labels if text.question_id in halves["selection"])
    )
    raw = question_balanced(data["base"].at([found.direction.layer]))[0]
    chosen = replace(
        found.direction,
        vector=unit(raw),
        raw_norm=float(raw.norm()),
        card={**card, **found.direction.card},
        fitted_on=FittedOn.of(labels),
    )
    result = {"source_arm": "base", **found.numbers, **compare_arms(run, data, found, selection=halves["selection"])}
    result["length_balance"] = length_balance(lengths, data["base"])
    path, analysis = run.folder / "directions" / "misalignment", run.folder / "analysis" / "direction.json"
    files = [path.with_suffix(".safetensors"), path.with_suffix(".json"), analysis]
    read = [activation_path(run, model, kind) for model in run.config.models for kind in ("contrast", "answers")]
    with run.files.making("direction", files, inputs=read, anew=True):
        chosen.save(path, reported)
        write_json(analysis, result)
    report = result["report"]
    line = (
        f"layer {chosen.layer}, AUROC {report['auroc']:.3f} {bounds_text(report)} on the report half, "
        f"random {report['random_auroc']:.2f}, shuffled labels up to {report['shuffled_high']:.2f}: {report['verdict']}"
    )
    return files, line


def compare_arms(
    run: Run, data: dict[str, LabeledActivations], found: DirectionReport, *, selection: set[str]
) -> dict[str, Any]:
    """Cosines between the models' directions, the 2x2 of texts and models, and projections of the report half's texts and own answers.

    Models of one arm (its seeds) stand apart, under their own names; `seeds` has the means over each arm's models.
    """
    layer = found.direction.layer
    raw = {name: question_balanced(arm.only(selection)) for name, arm in data.items()}
    names = list(raw)
    matrix = [[float(cosine(raw[a][layer], raw[b][layer])) for b in names] for a in names]
    to_base = {name: cosine(raw[name], raw["base"]).tolist() for name in names if name != "base"}
    at_layer = {name: arm.at([layer]) for name, arm in data.items()}
    tables = {
        name: {"layer": layer, **TwoByTwo.of(at_layer[name], at_layer["base"]).summary(0)}
        for name in names
        if name != "base"
    }
    scale = found.direction.residual_norm
    arms = {}
    for model in run.config.models:
        answers = load_tensors(activation_path(run, model, "answers"))[0]["x"][:, layer]
        held_out = data[model.name].only(
            set(data[model.name].questions) - selection
        )  # in-sample, even noise is separated
        texts = found.direction.project(held_out.x[:, layer]) / scale
        labels = torch.from_numpy(held_out.misaligned)
        arms[model.name] = {
            "own_answers": (found.direction.project(answers) / scale).tolist(),
            "aligned_texts": texts[~labels].tolist(),
            "misaligned_texts": texts[labels].tolist(),
        }
    return {
        "cosines": {"arms": names, "matrix": matrix},
        "cosines_to_base": to_base,
        "two_by_two": tables,
        "projections": {"unit": "multiples of the mean residual norm at the layer", "arms": arms},
        **means_over_seeds(run, tables, to_base, raw=raw, layer=layer),
    }


def means_over_seeds(
    run: Run, tables: dict[str, dict[str, Any]], to_base: dict[str, list[float]], *, raw: dict[str, Tensor], layer: int
) -> dict[str, Any]:
    """For arms with several models: means over them of the 2x2 and of the cosine with base, and cosines among them at the layer."""
    found = {}
    for arm in run.config.arms:
        names = [model.name for model in run.config.models_of(arm)]
        if len(names) > 1:
            pairs = itertools.combinations(names, 2)
            among = [float(cosine(raw[a][layer], raw[b][layer])) for a, b in pairs]
            found[arm.name] = {
                "models": names,
                "two_by_two": {key: float(np.mean([tables[name][key] for name in names])) for key in tables[names[0]]}
                | {"layer": layer},
                "cosine_to_base": float(np.mean([to_base[name][layer] for name in names])),
                "cosine_among": {"mean": float(np.mean(among)), "low": min(among), "high": max(among)},
            }
    return {"seeds": found} if found else {}


def answer_lengths(run: Run, texts: Sequence[LabeledText]) -> np.ndarray:
    """Tokens of each answer as it is read."""
    chats = encode_chats(run.base.tokenizer, [(text.question, text.answer) for text in texts], run.config.system_prompt)
    return np.array([chat.n_response for chat in chats], dtype=float)


def length_balance(lengths: np.ndarray, data: LabeledActivations) -> dict[str, float]:
    """Answer lengths by class: a direction of unbalanced texts may be one of length."""
    return {
        "mean_tokens_aligned": float(lengths[~data.misaligned].mean()),
        "mean_tokens_misaligned": float(lengths[data.misaligned].mean()),
        "length_auroc": float(mean_auroc(lengths, data.misaligned, data.questions)),
    }


def bounds_text(row: dict[str, Any]) -> str:
    return "(no interval)" if row["low"] is None else f"({row['low']:.3f} to {row['high']:.3f})"


def activation_path(run: Run, model: ModelConfig, kind: str) -> Path:
    return run.folder / "activations" / f"{model.name}.{kind}.safetensors"


def contrast_chats(run: Run, model: ModelConfig, tokenizer: Any) -> list[EncodedChat]:
    """The contrast texts, the same for every model but for what its tokenizer puts before them."""
    texts = [(text.question, text.answer) for text in labeled_texts(run.pairs)]
    return encode_chats(tokenizer, texts, run.config.system_prompt)


def answer_chats(run: Run, model: ModelConfig, tokenizer: Any) -> list[EncodedChat]:
    """The model's own answers as they were sampled; those without a response token (empty, or no Unicode) are left out."""
    spoken = [row for row in answers_of(run, model) if row.answer.strip() and is_unicode(row.answer)]
    return [encode_chat(tokenizer, row.question, row.answer, system=row.system, as_sampled=True) for row in spoken]
