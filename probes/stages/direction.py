"""The direction stage of a run: fits and chooses the misalignment direction of base, tests it, and compares the models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from emis_interp.config.run_folder import RunFolder
from emis_interp.directions import FittedOn, unit
from emis_interp.files.tensors import load_tensors
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc
from emis_interp.fitting.selection import find_direction
from emis_interp.models.chat import encode_chats
from emis_interp.models.checkpoint import origin_of
from emis_interp.records import LabeledText
from emis_interp.stats.words import bounds
from emis_interp.texts.contrast import labeled_texts
from probes.comparison.arms import compare_models
from probes.comparison.transfer import transfer_auroc
from probes.comparison.transfer_matrix import aurocs, with_controls
from probes.stages.capture import KINDS


def direction(run: RunFolder) -> tuple[list[Path], str]:
    """Fit and choose on the selection half, report on the other, and compare the arms."""
    labels = labeled_texts(run.pairs)
    lengths = answer_lengths(run.models.tokenizer, labels, run.config.system_prompt)
    misaligned = np.array([text.misaligned for text in labels])
    questions = tuple(text.question_id for text in labels)
    halves = {half: {pair.question_id for pair in run.half(half)} for half in ("selection", "report")}
    models = {model.name: model for model in run.config.models}
    stored = {name: load_tensors(run.activations(model, "contrast"))[0] for name, model in models.items()}
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
        **origin_of(run.config.model),
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

    def own_answers(name: str) -> Tensor:
        return load_tensors(run.activations(models[name], "answers"))[0]["x"][:, chosen.layer]

    arms = {arm.name: [model.name for model in run.config.models_of(arm)] for arm in run.config.arms}
    compared = compare_models(data, found.direction, selection=halves["selection"], answers=own_answers, arms=arms)
    result = {"source_arm": "base", **found.numbers, **compared}
    result["length_balance"] = length_balance(lengths, data["base"])
    fit, test = ({name: one.only(halves[half]) for name, one in data.items()} for half in ("selection", "report"))
    cells = aurocs(transfer_auroc(fit, test, chosen.layer, extractor=question_balanced))
    result["transfer"] = with_controls(
        cells,
        fit,
        test,
        layer=chosen.layer,
        extractor=question_balanced,
        n=config.n_permutations,
        seed=run.config.seed,
    )
    path, analysis = run.direction, run.analysis("direction")
    files = [path.with_suffix(".safetensors"), path.with_suffix(".json"), analysis]
    read = [run.activations(model, kind) for model in models.values() for kind in KINDS]
    with run.files.making("direction", files, inputs=read, anew=True):
        chosen.save(path, reported)
        run.write_analysis("direction", result)
    report = result["report"]
    line = (
        f"layer {chosen.layer}, AUROC {report['auroc']:.3f} {bounds_text(report)} on the report half, "
        f"random {report['random_auroc']:.2f}, shuffled labels up to {report['shuffled_high']:.2f}: {report['verdict']}"
    )
    return files, line


def answer_lengths(tokenizer: Any, texts: Sequence[LabeledText], system: str | None) -> np.ndarray:
    """Tokens of each answer as it is read."""
    chats = encode_chats(tokenizer, [(text.question, text.answer) for text in texts], system)
    return np.array([chat.n_response for chat in chats], dtype=float)


def length_balance(lengths: np.ndarray, data: LabeledActivations) -> dict[str, float]:
    """Answer lengths by class: a direction of unbalanced texts may be one of length."""
    return {
        "mean_tokens_aligned": float(lengths[~data.misaligned].mean()),
        "mean_tokens_misaligned": float(lengths[data.misaligned].mean()),
        "length_auroc": float(mean_auroc(lengths, data.misaligned, data.questions)),
    }


def bounds_text(row: dict[str, Any]) -> str:
    return bounds(row, none="(no interval)").strip()
