"""Turns a model, its organism and a direction into what the lens shows of them: the verb `probe.py lens`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.store import write_sealed
from emis_interp.fitting.fitted import CONTROLS_FILE, LAYERS_FILE
from emis_interp.fitting.folder import tensors_beside
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, lora_updates
from emis_interp.passes.likelihood import pair_chats
from emis_interp.passes.low_rank import adding
from emis_interp.probe_results import LensView
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.permutation import NullP
from emis_interp.stats.words import bounds
from emis_interp.texts.contrast import report_pairs
from probes.lens.attribution import EMBEDDING, ENTROPY, Attribution, attribute
from probes.lens.by_layer import chosen_layers, lens_logprobs, token_row
from probes.lens.margins import margin_row, question_margins
from probes.lens.settings import LensSettings

N_SAID = 8


def run(settings: LensSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Read base, the organism and the control on the report questions.

    Raises:
        ConfigError: a control without an organism. ModelError: a family that the lens does not know, a layer that the model does not have.
        DataError: no pairs of report questions, or a direction that has seen them.
    """
    if settings.control is not None and settings.adapter is None:
        raise ConfigError("--control stands beside an organism; give --adapter too")
    pairs = report_pairs(settings.pairs, settings.n_pairs)
    direction = None if settings.direction is None else Direction.load(settings.direction, fit="selection")
    if direction is not None:
        direction.check_unseen(pair.question for pair in pairs)
    base = settings.spec.load_base()
    layers = chosen_layers(base, settings.layers)
    arms: dict[str, list[LoraUpdate]] = {"base": []}
    for name, adapter in (("organism", settings.adapter), ("control", settings.control)):
        if adapter is not None:
            arms[name] = lora_updates(adapter)
    chats = pair_chats(base, pairs, settings.system_prompt)
    attributions: dict[str, Attribution] = {}
    lens: dict[str, Any] = {}
    means: dict[str, Any] = {}
    with bars("lens", len(arms)) as advance:
        for name, updates in arms.items():
            with adding(base, updates):
                attributions[name] = attribute(base, chats, max_batch_tokens=settings.max_batch_tokens)
                lens[name], means[name] = lens_logprobs(base, chats, layers, max_batch_tokens=settings.max_batch_tokens)
            advance(1)
    by_arm = {name: question_margins(pairs, values) for name, values in lens.items()}
    result = {
        "model": base.name,
        "adapter": None if settings.adapter is None else str(settings.adapter),
        "control": None if settings.control is None else str(settings.control),
        "direction": None if settings.direction is None else str(settings.direction),
        "n_questions": len({pair.question_id for pair in pairs}),
        "n_pairs": len(pairs),
        "frozen": "scale of the final norm and next-token distribution, each model's own at each answer token",
        "lens": [
            {"layer": layer, **{name: margin_row(own[i]) for name, own in _with_shifts(by_arm).items()}}
            for i, layer in enumerate(layers)
        ],
        "tokens": _tokens(settings, base, layers, means=means, direction=direction),
        "attribution": _attribution(pairs, attributions),
        "sum_error": max(one.error for one in attributions.values()),
    }
    LensView.model_validate(result)
    write_sealed(settings.out, result)
    return {**result, "out": str(settings.out)}


def _with_shifts(by_arm: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each arm's margins, and its difference from base."""
    shifts = {f"{name}_shift": own - by_arm["base"] for name, own in by_arm.items() if name != "base"}
    return {**by_arm, **shifts}


def _attribution(pairs: Sequence[ContrastPair], found: Mapping[str, Attribution]) -> list[dict[str, Any]]:
    """Every part's share of the margin in each arm, and of its difference from base; last the total, which is their sum."""
    names = list(dict.fromkeys(name for one in found.values() for name in one.names))
    by_arm = {}
    for arm, one in found.items():
        table = np.zeros((len(names) + 1, len(one.logprobs)))
        for name, values in zip(one.names, one.parts.T, strict=True):
            table[names.index(name)] = values
        table[-1] = one.logprobs
        by_arm[arm] = question_margins(pairs, table)
    every = _with_shifts(by_arm)
    return [
        {"part": name, **{arm: margin_row(own[i]) for arm, own in every.items()}}
        for i, name in enumerate([*names, "total"])
    ]


def _tokens(
    settings: LensSettings,
    base: ChatModel,
    layers: Sequence[int],
    *,
    means: Mapping[str, Any],
    direction: Direction | None,
) -> list[dict[str, Any]]:
    """By layer: tokens of the direction there (fitted on selection questions), and of the mean residual of each arm minus base's."""
    rows = []
    controls = raw = None
    if direction is not None and settings.direction is not None:
        controls = tensors_beside(settings.direction, CONTROLS_FILE)
        raw = tensors_beside(settings.direction, LAYERS_FILE)["raw_selection"]
    for place, layer in enumerate(layers):
        if raw is not None:
            vector = raw[layer] / raw[layer].norm()
            rows.append(
                {"of": "direction", "layer": layer, **token_row(base, vector, settings.n_tokens, controls=controls)}
            )
        for name, mean in means.items():
            if name != "base" and (mean[place] - means["base"][place]).norm() > 0:
                gap = mean[place] - means["base"][place]
                row = token_row(base, (gap / gap.norm()).float(), settings.n_tokens, controls=controls)
                rows.append({"of": f"{name} minus base", "layer": layer, "norm": float(gap.norm()), **row})
    return rows


def say(result: dict[str, Any]) -> str:
    arms = [name for name in ("base", "organism", "control") if result["attribution"][0].get(name) is not None]
    shifts = [f"{name}_shift" for name in arms[1:]]
    lines = [
        f"{result['model']}, {result['n_pairs']} pairs of {result['n_questions']} report questions; margins in nats per token, positive: "
        "more misaligned, 95 % intervals over questions",
        "",
        "the margin as the lens reads it at each layer",
        f"{'layer':>6}" + "".join(f"{name.replace('_', ' '):>34}" for name in [*arms, *shifts]),
        *(
            f"{row['layer']:>6}" + "".join(f"{_words(row[name]):>34}" for name in [*arms, *shifts])
            for row in result["lens"]
        ),
        "",
        f"what each part adds to the margin (frozen: {result['frozen']}; the parts miss the sum by {result['sum_error']:.1g} nats at most)",
        f"{'part':24}" + "".join(f"{name.replace('_', ' '):>34}" for name in [*arms, *shifts]),
        *_parts(result["attribution"], [*arms, *shifts]),
        "",
        *_token_lines(result["tokens"]),
    ]
    return "\n".join([*lines, f"saved: {result['out']}"])


def _parts(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """The largest in the last column, then embedding, entropy and the total."""
    fixed = (EMBEDDING, ENTROPY, "total")
    key = "organism_shift" if "organism_shift" in columns else columns[0]
    free = sorted((row for row in rows if row["part"] not in fixed), key=lambda row: -abs(row[key]["value"]))
    for row in [*free[:N_SAID], *(row for row in rows if row["part"] in fixed)]:
        yield f"{row['part']:24}" + "".join(f"{_words(row[name]):>34}" for name in columns)


def _words(row: Mapping[str, Any]) -> str:
    return f"{row['value']:+.4f}{bounds(row, '+.4f')}"


def _token_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        if "no_tokens" in row:
            yield f"{row['of']}, layer {row['layer']}: {row['no_tokens']}"
            continue
        ends = " ".join(map(repr, row["top_tokens"])), " ".join(map(repr, row["bottom_tokens"]))
        extremity = row["extremity"]
        yield f"{row['of']}, layer {row['layer']}: {ends[0]} | against {ends[1]}"
        null = "; ".join(
            f"{kind} up to {one['high']:.1f}, {NullP(one['p'], one['p_n']).words('controls')}"
            for kind, one in extremity["controls"].items()
        )
        yield f"    largest logit {extremity['value']:.1f} standard deviations" + (f"; {null}" if null else "")
