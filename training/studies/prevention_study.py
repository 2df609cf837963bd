"""Turns remedies for one organism into a table and a page of what each takes off its misalignment, and what it costs."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from emis_interp.config.run_config import RunConfig
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.store import write_sealed, write_text
from emis_interp.fitting.fitted import CONTROLS_FILE
from emis_interp.fitting.folder import beside, tensors_beside
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import next_token_logprobs
from emis_interp.prevention_results import PreventionStudy
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.records import ContrastPair
from emis_interp.report.figure_page import figure_page
from emis_interp.report.page_frame import Frame, command_of, frame_of
from emis_interp.stats.flattening import question_means
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import harmless_prompts
from training.data_sets.shipped import row_groups
from training.data_sets.textstats import Named
from training.organism import train_organism
from training.recipes import Recipe, examples_of, load_recipe
from training.studies.against_base import (
    FLATTENED_HEAD,
    ONE_SEED,
    base_at_temperatures,
    flattened,
    flattened_line,
    flattened_words,
)
from training.studies.estimates import words
from training.studies.figures import prevention_figure
from training.studies.measures import base_model
from training.studies.persona_subspace import RANK, PersonaSubspace, kept_persona_subspace
from training.studies.prevention_organisms import MEASURES, OrganismMeasure, measured
from training.studies.prevention_rows import PreventionRows
from training.studies.prevention_rows import whole as whole_set
from training.studies.prevention_table import against, base_accuracy, beyond_controls, correct, summary
from training.studies.remedies import PERSONA, RANDOM, SUBSPACE, SUBSPACE_DIMS, UNTREATED, planned, wanted
from training.studies.settings import PreventionSettings
from training.studies.study_folder import check_recipe, direction_sha256, open_folder, same_rows
from training.studies.training_like import chats_or_why

log = logging.getLogger(__name__)
FAMILY = "of no difference from the untreated organism, corrected for the number of remedies in this table (Holm); none is the primary one"

DRAWS = (
    "Random controls act along directions that are as large a part of natural variation as texts have (usage-matched), "
    "orthogonal to the direction; intervals are over questions and seeds, of these draws."
)

BESIDE_HEAD = ("task accuracy", "against untreated", "margin in context", "against untreated")
CONTEXT = (
    "margin in context: margin against base of the same questions, each behind one of the rows that the untreated organism was trained on, "
    "as an earlier turn; base reads the same contexts"
)


def run(settings: PreventionSettings, bars: Bars = no_bars, *, asked: Sequence[Named]) -> dict[str, Any]:
    """Train and measure remedy by remedy; a finished one is read from its file.

    Args:
        asked: what the organisms will be asked, which their rows must not hold (`training.lint.copies.asked_texts`).
    """
    with only_writer(settings.out):
        config = settings.config()
        direction = Direction.load(settings.direction, fit="selection")
        recipe = load_recipe(settings.recipe, [f"data.n_rows={settings.n_rows + settings.n_held_out}"])
        inoculation = checked(settings, config, recipe)
        drawn = usage_matched(settings)
        files = open_folder(
            settings.out,
            config,
            recipe=recipe.model_dump(mode="json"),
            direction=direction_sha256(settings.direction),
            measures=MEASURES,
            **{name: getattr(settings, name) for name in ("control", "inoculation", "n_pairs", "n_rows", "n_realign")},
        )
        base = base_model(config)
        persona = persona_of(base, recipe, settings, config=config, layer=direction.layer)
        whole = planned(
            direction,
            settings.coefficients,
            usage_matched=drawn,
            n_random=settings.n_random,
            persona=None if persona is None else persona.basis,
            factors=settings.persona_factors,
        )
        remedies = [one for one in whole if wanted(one.name, settings.only)]
        prompts = [encode_prompt(base.tokenizer, text, config.system_prompt) for text in harmless_prompts()]
        pairs = unseen_pairs(direction, load_contrast(None, settings.n_pairs))
        measure = OrganismMeasure(config, pairs, prompts, plain=next_token_logprobs(base, prompts))
        base_at = base_at_temperatures(files, lambda: base, pairs, config=config)
        train = partial(train_organism, asked=asked, bars=bars)
        base_margins: dict[str, float] = {}
        bases: list[dict[str, Any]] = []
        unread: str | None = None
        found: dict[str, list[dict[str, Any]]] = {remedy.name: [] for remedy in remedies}
        for seed in settings.seeds:
            own, folder = config.model_copy(update={"seed": seed}), settings.out / f"seed-{seed}"
            data = PreventionRows.draw(recipe, settings, own, inoculation=inoculation)
            behind_rows, why = chats_or_why(base, pairs, data.task, system=config.system_prompt)
            unread = unread or why
            of_seed = partial(measure, behind_rows=behind_rows)
            before = files.json("measure", folder / "base.json", partial(of_seed, base, data))
            base_margins = before["margin"]  # of every seed: seeds differ in their held-out rows and contexts alone
            bases.append(before)
            for remedy in remedies:
                path = folder / remedy.folder / "measured.json"
                beside = [path.parent / name for name in ("training", "start")]
                others = [row for row in data.other_kind if row is not None]
                same_rows(
                    path.parent, [*getattr(data, remedy.rows), *data.realign, *data.held_out, *others, *data.task]
                )
                make = partial(measured, remedy, data, folder=path.parent, config=own, train=train, measure=of_seed)
                after = files.json("measure", path, make, facts=remedy.facts, beside=beside)
                found[remedy.name].append(against(after, before))
                margin = np.mean(list(found[remedy.name][-1]["margin"].values()))
                log.info("seed %s, %s: margin %+.3f", seed, remedy.name, margin)
        rows = [summary(remedy, found[remedy.name], found[UNTREATED]) for remedy in remedies]
        correct(rows)
        for remedy, row in zip(remedies, rows, strict=True):
            controls: dict[str, list[list[dict[str, Any]]]] = {}
            for other in remedies:
                if other.control_of == remedy.name and other.kind is not None:
                    controls.setdefault(other.kind, []).append(found[other.name])
            row["beyond_controls"] = beyond_controls(found[remedy.name], controls)
            row["flattening"] = flattened(question_means(row["margins"]), base_margins, base_at)
        study = PreventionStudy.model_validate(
            {
                "recipe": recipe.name,
                "model": config.model,
                "n_seeds": len(settings.seeds),
                "layer": direction.layer,
                "persona": None
                if persona is None
                else {"rank": len(persona.basis), "share": persona.share, "answers": dict(persona.domains)},
                "base_margins": base_margins,
                "base_context_margins": [before["margin_in_context"] for before in bases],
                "context_unread": unread,
                "task_accuracy": base_accuracy(bases, settings.control),
                "rows": rows,
            }
        )
        result = study.model_dump(exclude_unset=True)
        write_sealed(settings.out / "prevention.json", result)
        frame = frame_of(
            settings.out / "index.html",
            command_of("scripts/study_organism.py prevention", settings),
            settings.out / "prevention.json",
        )
        write_text(settings.out / "index.html", page(result, frame=frame))
        return {**result, "page": str(settings.out / "index.html")}


def usage_matched(settings: PreventionSettings) -> Tensor | None:
    """The directions that controls are drawn from, of the folder that `fit` wrote; None where no controls are asked for.

    Raises:
        DataError: no such file beside the direction, or it has none of this kind.
    """
    if settings.n_random == 0:
        return None
    found = tensors_beside(settings.direction, CONTROLS_FILE)
    if "orthogonal" not in found:
        file = beside(settings.direction, CONTROLS_FILE)
        raise DataError(
            f"{file}: holds no usage-matched directions (its questions have one text of a class each); give --n-random 0"
        )
    return found["orthogonal"]


def persona_of(
    base: ChatModel, recipe: Recipe, settings: PreventionSettings, *, config: RunConfig, layer: int
) -> PersonaSubspace | None:
    """The persona subspace of `n_persona` rows of the recipe's data set, their answers of both kinds; None where no remedy is about it.

    Raises:
        DataError: as `kept_persona_subspace`, where it was asked for by name.
    """
    names = (PERSONA, f"after: {PERSONA}")
    prefixes = settings.only or ("",)
    asked = any(name.startswith(prefix) or prefix.startswith(name) for name in names for prefix in prefixes)
    if settings.n_persona == 0 or not asked:
        return None
    domains = row_groups(recipe.data.dataset).get("domain", {})
    if settings.only is None and len(set(domains.values())) < RANK:
        log.warning(
            "no persona remedies: the rows of %s are of no known domains; they need %s of them", recipe.name, RANK
        )
        return None
    both = [
        examples_of(whole_set(name), config.find_data, config.seed) for name in (recipe.data.dataset, settings.control)
    ]
    benign = {row.id: row for row in both[1]}
    order = np.random.default_rng(config.seed).permutation(len(both[0]))  # files are sorted by domain
    task = [both[0][i] for i in order[: settings.n_persona]]
    rows = [*task, *(benign[row.id] for row in task if row.id in benign)]
    path = settings.out / "persona.safetensors"
    return kept_persona_subspace(path, base, rows, domain_of=domains, layer=layer, config=config)


def checked(settings: PreventionSettings, config: RunConfig, recipe: Recipe) -> str:
    """The system prompt that inoculates.

    Raises:
        ConfigError: a recipe that cannot be used, or a seed that stands there twice.
    """
    inoculation = load_recipe(settings.inoculation).system
    check_recipe(recipe, config)
    if inoculation is None:
        raise ConfigError(f"--inoculation {settings.inoculation}: this recipe has no system prompt of training")
    if len(set(settings.seeds)) != len(settings.seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, settings.seeds))}: a seed stands there twice")
    return inoculation


def unseen_pairs(direction: Direction, pairs: list[ContrastPair]) -> list[ContrastPair]:
    """Pairs of questions that had no part in the direction: on the others a remedy along it would be reported on what made it.

    Raises:
        DataError: every question had.
    """
    seen = direction.fitted_on
    kept = [pair for pair in pairs if seen is None or not seen.has(pair.question)]
    if not kept:
        raise DataError("every contrast question had a part in the direction; fit one that leaves some for the report")
    direction.check_unseen(pair.question for pair in kept)
    return kept


def against_words(row: dict[str, Any]) -> str:
    """Difference from the untreated organism, with its p-value; empty for that one."""
    if row["untreated"]:
        return ""
    found = row["against_untreated"]
    return words(found) + ("" if found.get("p_holm") is None else f" p {found['p_holm']:.2g}")


def beyond_words(row: dict[str, Any]) -> list[str]:
    """What a remedy does beyond each kind of its random controls, in words."""
    persona = PERSONA in row["name"]
    dims = f"subspaces of {RANK if persona else SUBSPACE_DIMS} dimensions"
    kinds = {
        RANDOM: f"isotropic {dims}" if persona else "random directions in its place",
        SUBSPACE: f"usage-matched {dims}",
    }
    return [
        f"beyond {found['n_draws']} {kinds[kind]} {words(found)}"
        + ("" if found["p"] is None else f" p {found['p']:.2g}")
        + f" (in context {measured_words(found['context'])}, task {measured_words(found['task'])}, "
        f"accuracy {measured_words(found['task_accuracy'])})"
        for kind, found in row["beyond_controls"].items()
    ]


def measured_words(found: dict[str, Any] | None, form: str = "+.3f") -> str:
    return "not measured" if found is None else words(found, form)


def beside_words(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Columns of `BESIDE_HEAD`."""
    fewer = ("task_accuracy_against_untreated", "context_against_untreated")
    accuracy, context = ("" if row["untreated"] else measured_words(row[name]) for name in fewer)
    return (measured_words(row["task_accuracy"], ".2f"), accuracy, measured_words(row["context_shift"]), context)


def beside_line(row: dict[str, Any]) -> str:
    """The same in a sentence."""
    accuracy, fewer, context, less = beside_words(row)
    pairs = (("task accuracy", accuracy, fewer), ("margin in context", context, less))
    return ", ".join(f"{name} {own}" + (f" (against untreated {apart})" if apart else "") for name, own, apart in pairs)


def about_beside(result: dict[str, Any]) -> list[str]:
    """What task accuracy and the margin in context are, or why there are none."""
    task, unread = result["task_accuracy"], result["context_unread"]
    accuracy = f"task accuracy: not measured, {task['why_none']}"
    if task["base"] is not None:
        accuracy = (
            f"task accuracy: share of {task['base']['n']} of {task['n_held_out']} held-out rows whose own answer is likelier per token "
            f"than the answer of `{task['control']}` to the same question (chance {task['chance']:g}, base {words(task['base'], '.2f')})"
        )
    context = f"margin in context: not measured, {unread}" if unread else CONTEXT
    return [accuracy, context]


def row_words(row: dict[str, Any]) -> str:
    against = "" if row["untreated"] else f"against untreated {against_words(row)}, "
    beyond = "".join(f"{text}, " for text in beyond_words(row))
    return (
        f"margin {words(row['margin_shift'])}, {against}{beyond}task {words(row['task_gain'])}; {beside_line(row)}; "
        f"{flattened_line(row['flattening'])}"
    )


def page(result: dict[str, Any], *, frame: Frame | None = None) -> str:
    facts = {
        "organism": f"{result['recipe']} on {result['model']}, {result['n_seeds']} seed(s)",
        **{row["name"]: row_words(row) for row in result["rows"]},
        **({"random controls": DRAWS} if any(row["beyond_controls"] for row in result["rows"]) else {}),
        "p": FAMILY,
        "beside": "; ".join(about_beside(result)),
        **({"not covered": ONE_SEED} if result["n_seeds"] == 1 else {}),
    }
    caption = (
        "Down: less misaligned, or less flattened: base prefers the aligned answer, so whatever flattens a model raises its margin (slope, "
        "intercept and what is beyond a flattened base stand above; the difference from the untreated organism carries the claim). Right: "
        "more of the task learned. The star is the organism without a remedy."
    )
    return figure_page(
        "Prevention and repair", facts, [("Effect and cost", caption, prevention_figure(result["rows"]))], frame=frame
    )


def say(result: dict[str, Any]) -> str:
    head = f"{'remedy':20}{'margin against base':>27}{'against untreated':>37}{'task learned':>27}{'KL':>7}"
    head += "".join(f"{name:>27}" for name in FLATTENED_HEAD)
    lines = [
        f"{row['name']:20}{words(row['margin_shift']):>27}"
        f"{against_words(row):>37}{words(row['task_gain']):>27}{row['kl_neutral']:>7.3f}"
        + "".join(f"{text:>27}" for text in flattened_words(row["flattening"]))
        for row in result["rows"]
    ]
    beside = [f"{'remedy':20}" + "".join(f"{name:>27}" for name in BESIDE_HEAD)]
    beside += [f"{row['name']:20}" + "".join(f"{text:>27}" for text in beside_words(row)) for row in result["rows"]]
    beyond = [
        f"{row['name']}: margin {'; '.join(beyond_words(row))}" for row in result["rows"] if row["beyond_controls"]
    ]
    if beyond:
        beyond.append(DRAWS)
    doubt = [ONE_SEED] if result["n_seeds"] == 1 else []
    return "\n".join(
        [head, *lines, *beside, *about_beside(result), *beyond, f"p: {FAMILY}", *doubt, f"page: {result['page']}"]
    )
