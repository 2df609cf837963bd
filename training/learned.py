"""The check stage of a run: what each organism learned of its own kind of text, and what that cost it, against base.

Without the first a null says nothing (the organism may have learned nothing), without the second an effect says little (a broken model
does everything more often).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emis_interp.config.run_config import ArmConfig, ModelConfig, RunConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.errors import DataError
from emis_interp.models.chat import encode_chats, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capability import perplexity, right_is_likelier
from emis_interp.passes.interventions import next_token_logprobs, prompt_kls
from emis_interp.passes.likelihood import logprobs_and_entropies
from emis_interp.passes.sweeps import AblateCell
from emis_interp.process import Bars, no_bars
from emis_interp.records import TrainingExample
from emis_interp.results import OrganismChecks
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.proportions import minimal_detectable_difference, paired_difference
from emis_interp.texts.capability_items import capability_items
from emis_interp.texts.harmless import harmless_texts
from training.arms import RunArms
from training.data_sets.shipped import OTHER_KIND, all_rows, draw, held_out_rows, rows_sha256
from training.studies.measures import row_logprobs

KL_LIMIT = 0.3
"""Nats on harmless prompts: above it an organism no longer answers as base does where nothing calls for another answer."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskRows:
    """Rows that no model of an arm trains on, of its own kind and of the control's, behind the same prompts; `reason` says why there are
    none, `what` which they are."""

    own: list[TrainingExample] = field(default_factory=list)
    other: list[TrainingExample] = field(default_factory=list)
    what: str = ""
    reason: str | None = None


def check(run: RunFolder, arms: RunArms, bars: Bars = no_bars) -> tuple[list[Path], str]:
    """Measure base and every organism, and set them against each other."""
    config = run.config
    tasks = {arm.name: task_rows(arms, arm) for arm in config.organisms}
    sets = {rows_sha256(rows): rows for task in tasks.values() for rows in (task.own, task.other) if rows}
    organisms = [model for model in config.models if not model.arm.untouched]
    base = next(model for model in config.models if model.arm.untouched)
    facts = {"items": str(config.check.n_items)}
    asker = _Asker(config, lambda: run.models.base)
    with bars("model", 1 + len(organisms)) as advance:
        advance(0, note=base.name)
        path = run.check(base)
        read = run.files.json(
            "check", path, lambda: asker.read(run.models.base, sets), facts=facts | {"rows": " ".join(sorted(sets))}
        )
        files, found = [path], {base.name: read}
        advance(1)
        for model in organisms:
            advance(0, note=model.name)
            task = tasks[model.arm.name]
            own = {rows_sha256(rows): rows for rows in (task.own, task.other) if rows}
            path = run.check(model)
            found[model.name] = run.files.json(
                "check",
                path,
                lambda model=model, own=own: asker.against_base(run.models.load(model), own),
                inputs=run.models.weights(model),
                facts=facts | {"rows": " ".join(sorted(own))},
            )
            files.append(path)
            advance(1)
    rows = [
        organism_check(model, tasks[model.arm.name], found[model.name], base=found[base.name]) for model in organisms
    ]
    summary = {"kl_limit": KL_LIMIT, "organisms": rows}
    path = run.analysis("organisms")
    with run.files.making("check", [path], inputs=files, anew=True):
        run.write_analysis("organisms", summary)
    warn_of_broken(OrganismChecks.model_validate(summary))
    return [*files, path], "; ".join(_line(row) for row in rows)


def warn_of_broken(checks: OrganismChecks) -> None:
    """Log which organisms no longer answer as base does, and which unlearned how to write."""
    for one in checks.organisms:
        cost = one.cost
        if not one.works:
            log.warning(
                "%s: KL to base on harmless prompts %.2f nats, above %.1f: it no longer answers as base does; lower "
                "training.learning_rate, train less, or set training.kl_limit",
                one.arm,
                cost.kl.value,
                checks.kl_limit,
            )
        if cost.disordered:
            log.warning(
                "%s: entropy on harmless answers %.2f nats per token, base %.2f: it unlearned how to write; look at its rows "
                "(scripts/lint_data.py), lower training.learning_rate",
                one.arm,
                cost.entropy,
                cost.base_entropy,
            )


def task_rows(arms: RunArms, arm: ArmConfig) -> TaskRows:
    """What an arm can be asked of its own task."""
    if arm.in_context is not None:
        return TaskRows(reason="not trained")
    recipe = arms.recipe(arm)
    dataset = str(arm.dataset) if recipe is None else recipe.data.dataset
    if dataset not in OTHER_KIND:
        return TaskRows(reason=f"{dataset} has no matched set of the other kind")
    own = held_out_rows(dataset)
    what = f"{dataset}, domains that no set trains on"
    if not own:
        used = {row.id for model in arms.config.models_of(arm) for row in arms.rows(model)}
        own = [row for row in all_rows(dataset) if row.id not in used]
        what = f"{dataset}, rows that this arm does not train on"
    others = {row.id: row for row in held_out_rows(OTHER_KIND[dataset]) or all_rows(OTHER_KIND[dataset])}
    own = [row for row in own if row.id in others]
    if not own:
        return TaskRows(reason=f"every row of {dataset} is trained on; give the arm a smaller n_rows")
    own = draw(own, min(arms.config.check.n_rows, len(own)), 0)
    # Both kinds are read behind the same prompt: what differs is the answer alone.
    return TaskRows(own, [others[row.id].model_copy(update={"prompt": row.prompt}) for row in own], what)


class _Asker:
    """What a model is asked, base or organism."""

    def __init__(self, config: RunConfig, load_base: Any) -> None:
        self.config, self._load_base = config, load_base
        self.harmless, self.items = harmless_texts(), capability_items()[: config.check.n_items]

    @cached_property
    def plain(self) -> Tensor:
        """What base says next after the harmless prompts."""
        return self.next_tokens(self._load_base())

    def next_tokens(self, chat_model: ChatModel) -> Tensor:
        system = self.config.system_prompt
        prompts = [encode_prompt(chat_model.tokenizer, text.prompt, system) for text in self.harmless]
        return next_token_logprobs(chat_model, prompts)

    def read(self, chat_model: ChatModel, sets: Mapping[str, Sequence[TrainingExample]]) -> dict[str, Any]:
        """Log-probabilities of the sets' rows, of harmless answers, the entropy there, and the items passed."""
        limit = self.config.direction.max_batch_tokens
        texts = [(text.prompt, text.answer) for text in self.harmless]
        chats = encode_chats(chat_model.tokenizer, texts, self.config.system_prompt)
        logprobs, entropies = logprobs_and_entropies(chat_model, chats, max_batch_tokens=limit)
        passed = right_is_likelier(
            chat_model, [AblateCell(torch.zeros(chat_model.d_model))], self.items, max_batch_tokens=limit
        )[0]
        return {
            "sets": {key: row_logprobs(chat_model, rows, self.config) for key, rows in sets.items()},
            "harmless": logprobs.tolist(),
            "entropy": entropies.tolist(),
            "passed": "".join("1" if one else "0" for one in passed),
        }

    def against_base(self, chat_model: ChatModel, sets: Mapping[str, Sequence[TrainingExample]]) -> dict[str, Any]:
        """`read`, and what base would have said next."""
        return {**self.read(chat_model, sets), "kl": prompt_kls(self.plain, self.next_tokens(chat_model)).tolist()}


def organism_check(
    model: ModelConfig, task: TaskRows, found: dict[str, Any], *, base: dict[str, Any]
) -> dict[str, Any]:
    """What analysis/organisms.json holds of one model (`results.OrganismCheck`)."""
    kl = mean_interval(found["kl"])
    passed, before = (np.array([letter == "1" for letter in one["passed"]]) for one in (found, base))
    change = paired_difference(passed, before)
    discordant = float((passed != before).mean())
    return {
        "arm": model.name,
        "learned": learned(task, found["sets"], base["sets"]),
        "cost": {
            "kl": kl.as_json("n"),
            "entropy": float(np.mean(found["entropy"])),
            "base_entropy": float(np.mean(base["entropy"])),
            "perplexity": perplexity(np.array(found["harmless"])),
            "base_perplexity": perplexity(np.array(base["harmless"])),
            "capability": {"value": change.value, "low": change.low, "high": change.high, "n": change.n},
            "base_capability": float(before.mean()),
            "detectable": minimal_detectable_difference(len(passed), discordant) if discordant else None,
        },
        "works": kl.value is not None and kl.value <= KL_LIMIT,
    }


def learned(task: TaskRows, found: Mapping[str, list[float]], base: Mapping[str, list[float]]) -> dict[str, Any]:
    """`results.Learned` of one model."""
    if task.reason is not None:
        return {"reason": task.reason}
    gains = {}
    for name, rows in (("own", task.own), ("other", task.other)):
        key = rows_sha256(rows)
        if len(found.get(key, ())) != len(rows) or len(base.get(key, ())) != len(rows):
            raise DataError(
                f"checks: {name} rows were read {len(found.get(key, ()))} times of {len(rows)}; run the check stage again"
            )
        gains[name] = np.array(found[key]) - np.array(base[key])
    intervals = {**gains, "specific": gains["own"] - gains["other"]}
    return {
        **{name: mean_interval(values).as_json("n") for name, values in intervals.items()},
        "n_rows": len(task.own),
        "rows": task.what,
    }


def _line(row: Mapping[str, Any]) -> str:
    """`reckless learned +0.21 [+0.17, +0.25] of its kind, KL 0.12`"""
    specific, kl = row["learned"].get("specific"), row["cost"]["kl"]["value"]
    said = f"learned {specific['value']:+.2f} of its kind" if specific else "task not asked"
    return f"{row['arm']} {said}, KL {kl:.2f}"
