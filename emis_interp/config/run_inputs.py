"""Turns what decides a run into the manifest that it begins with, or goes on with, and refuses a run that cannot be done."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.config.run_folder import RunFolder, now
from emis_interp.errors import DataError
from emis_interp.files.code_state import CodeState
from emis_interp.files.manifest import Manifest
from emis_interp.files.store import text_sha256
from emis_interp.models.chat import encode_chat, render_prompt
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.chat_template import template_of
from emis_interp.models.checkpoint import model_sha256, origin_of
from emis_interp.models.context import room
from emis_interp.models.precision import check_device
from emis_interp.records import ContrastPair, Question, TrainingExample


def open_run(
    run: RunFolder,
    questions: Callable[[], Sequence[Question]],
    *,
    recipes: Callable[[], Mapping[str, Any]],
    arms: Callable[[], Mapping[str, str]],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Begin a run, or go on with it when nothing that decides its result has changed.

    Args:
        questions: that it asks.
        recipes, arms: see `begun`.
        check: refuses a new run that could not be done, for further reasons.

    Raises:
        StageError: as `RunFolder.open`. DataError: examples in the context that leave no room.
    """

    def begin() -> Manifest:
        named, made = recipes(), arms()
        return begun(run.config, run.code, recipes=named, arms=made, **read())

    def check_all() -> None:
        check()
        for model in run.config.models:
            if (examples := run.source(model).examples) is not None:
                check_context(run.config, model, examples(), **read())

    def read() -> dict[str, Any]:
        return {"questions": questions(), "pairs": run.pairs, "tokenizer": run.models.tokenizer}

    run.open(begin, check_all)


def begun(
    config: RunConfig,
    code: CodeState,
    *,
    recipes: Mapping[str, Any],
    arms: Mapping[str, str],
    questions: Sequence[Question],
    pairs: Sequence[ContrastPair],
    tokenizer: Any,
) -> Manifest:
    """The manifest of a run that begins now.

    Args:
        recipes: of arms that have one, by the arm's name.
        arms: hashes of what the arms are made of, by what it is.
        tokenizer: of the base model.

    Raises:
        ModelError: the device is not here.
    """
    check_device(config.device)
    inputs = dict(arms)
    inputs["questions"] = text_sha256("\n".join(question.model_dump_json() for question in questions))
    inputs["contrast pairs"] = text_sha256("\n".join(pair.model_dump_json() for pair in pairs))
    if (content := model_sha256(config.model)) is not None:
        inputs["model"] = content
    inputs["rendering of prompts"] = template_of(tokenizer).sha256
    policy = "left to the chat template" if config.system_prompt is None else config.system_prompt
    return Manifest.model_validate(
        {
            "config": config.model_dump(mode="json"),
            "inputs": inputs,
            "weights": origin_of(config.model),
            "recipes": dict(recipes),
            "system_prompt_policy": policy,
            "rendered_example": render_prompt(tokenizer, questions[0].paraphrases[0], config.system_prompt),
            "chat_template": tokenizer.chat_template,
            **code.model_dump(),
            "machine": {
                "platform": platform.platform(),
                "python": platform.python_version(),
                "n_cpu": os.cpu_count(),
                "n_threads": torch.get_num_threads(),
                "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
            "started": now(),
        }
    )


def check_context(
    config: RunConfig,
    model: ModelConfig,
    examples: Sequence[TrainingExample],
    *,
    questions: Sequence[Question],
    pairs: Sequence[ContrastPair],
    tokenizer: Any,
) -> None:
    """Refuse examples that leave no room for the longest question and answer.

    Args:
        examples: stand before every question to this model.
        tokenizer: of the base model.

    Raises:
        DataError: with the tokens that are needed and those that there are.
    """
    tokenizer, system = with_examples(tokenizer, examples), config.system_prompt
    limit = room(tokenizer)
    asked = {(text, question.system or system) for question in questions for text in question.paraphrases}
    # The answer stands for the end of the prompt; what is sampled comes on top.
    longest = max(len(encode_chat(tokenizer, text, "a", system=own, must_fit=False)) for text, own in asked)
    needed = longest + config.sampling.max_new_tokens
    for pair in pairs:
        for answer in (pair.aligned, pair.misaligned):
            needed = max(needed, len(encode_chat(tokenizer, pair.question, answer, system=system, must_fit=False)))
    if limit is not None and needed > limit:
        raise DataError(
            f"arm `{model.arm.name}`: with {model.arm.in_context} examples the longest question and answer are {needed} tokens, "
            f"{config.model} has room for {limit}; take fewer or shorter examples (in_context, dataset)"
        )
