"""Turns the contrast pairs of a run into the work of the stages that read its models: likelihood, choices, capture, intervene, probe."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.models.chat import EncodedChat, encode_chats, encode_prompt
from emis_interp.passes.choices import PROMPT, wordings
from emis_interp.planning.shape import ModelShape
from emis_interp.planning.work import (
    StageWork,
    Tokenizers,
    Work,
    loading,
    next_tokens,
    once_each,
    padded,
    reading,
    scoring,
)
from emis_interp.records import ContrastPair
from emis_interp.stats.flattening import TEMPERATURES
from emis_interp.texts.choices import load_choices
from emis_interp.texts.contrast import at_most, labeled_texts
from emis_interp.texts.harmless import harmless_prompts, harmless_texts
from probes.classifiers.fit import DEPTHS
from probes.classifiers.unrelated import unrelated_pairs, unrelated_texts
from probes.stages.intervene import DRAW_PAIRS, KINDS

CELLS_TOGETHER = 8
"""`sweeps.text_logprobs`: cells that share a pass."""


def chats_of(pairs: Sequence[ContrastPair], tokenizer: Any, system: str | None) -> list[EncodedChat]:
    return encode_chats(tokenizer, [(text.question, text.answer) for text in labeled_texts(pairs)], system)


def likelihood_work(config: RunConfig, pairs: Sequence[ContrastPair], tokenizers: Tokenizers) -> StageWork:
    """The margins of every model, and base's once more at every temperature."""
    limit, work = config.direction.max_batch_tokens, Work()
    margins = once_each(tokenizers, lambda own: scoring(chats_of(pairs, own, config.system_prompt), limit))
    for model in config.models:
        one = margins(model)
        work += one + loading(model)
        if model.arm.untouched:
            work += one + Work(softmaxes=(len(TEMPERATURES) - 1) * one.scored)
    return StageWork("likelihood", work, held=2)


def choices_work(config: RunConfig, tokenizers: Tokenizers) -> StageWork:
    """Both orders of every item, under every model."""
    items, work = load_choices(), Work()
    orders = [
        text for item in items for text in wordings(PROMPT, item.misaligned, item.aligned, situation=item.situation)
    ]

    def asked(tokenizer: Any) -> Work:
        prompts = [encode_prompt(tokenizer, text, config.system_prompt) for text in orders]
        return next_tokens(prompts, config.direction.max_batch_tokens)

    choices = once_each(tokenizers, asked)
    for model in config.models:
        work += choices(model) + loading(model)
    return StageWork("choices", work, held=2)


def capture_work(
    config: RunConfig,
    pairs: Sequence[ContrastPair],
    tokenizers: Tokenizers,
    *,
    answers: Sequence[int],
    shape: ModelShape,
) -> StageWork:
    """Every model on the contrast texts and on its own answers.

    Args:
        answers: tokens of each of a model's answers with its question, at most.
    """
    limit, work = config.direction.max_batch_tokens, Work()

    def texts(tokenizer: Any) -> Work:
        chats = chats_of(pairs, tokenizer, config.system_prompt)
        n_bytes = 4 * shape.n_layers * (shape.d_model + 1) * (len(chats) + len(answers))
        return reading(chats, limit) + Work(read=padded(answers, limit), disk=n_bytes)

    read = once_each(tokenizers, texts)
    for model in config.models:
        work += read(model) + loading(model)
    return StageWork("capture", work, held=2)


def direction_work() -> StageWork:
    return StageWork("direction", Work(), left_out="everything: it reads no model, and takes seconds")


def intervene_work(
    config: RunConfig, pairs: Sequence[ContrastPair], tokenizers: Tokenizers, *, cell: Callable[..., Work]
) -> StageWork:
    """Every cell's margins, costs and answers, and beside those of the direction itself its control directions.

    Args:
        cell: (tokenizer, steered=...) -> the work of asking and judging one cell.
    """
    limit, system, work = config.direction.max_batch_tokens, config.system_prompt, Work()
    half = [pair for pair in pairs if pair.half == "report"]
    wanted = config.intervention.ablate_arms
    base = next(model for model in config.models if model.arm.untouched)
    ablated = [config.models_of(arm)[0] for arm in config.organisms if wanted is None or arm.name in wanted]

    def two_cells(tokenizer: Any, *, steered: bool) -> Work:
        """Along the direction, with its control directions, and along a random one."""
        prompts = [encode_prompt(tokenizer, text, system) for text in harmless_prompts()]
        one = (
            scoring(chats_of(half, tokenizer, system), limit)
            + next_tokens(prompts)
            + next_tokens(prompts)
            + cell(tokenizer, steered=steered)
        )
        few, n_cells = (
            chats_of(at_most(half, DRAW_PAIRS), tokenizer, system),
            1 + len(KINDS) * config.intervention.random_draws,
        )
        both = one + one + scoring(few, limit)
        for first in range(0, n_cells, CELLS_TOGETHER):
            both += scoring(few, limit, min(CELLS_TOGETHER, n_cells - first))
        return both

    steering, ablating = (once_each(tokenizers, partial(two_cells, steered=one)) for one in (True, False))
    for _ in config.intervention.coefficients:
        work += steering(base)
    for model in ablated:
        work += ablating(model) + loading(model)
    left_out = "" if config.intervention.engine == "hf" else "the speed of the server"
    return StageWork("intervene", work, held=2, left_out=left_out)


def probe_work(
    config: RunConfig,
    tokenizers: Tokenizers,
    *,
    answers: Sequence[int],
    benign: Sequence[tuple[str, str]],
) -> StageWork:
    """Unrelated and benign texts under base, harmless texts and a model's own answers under every model.

    Passes end at the layer of the probe, which is taken for the mean of those that it is chosen from.

    Args:
        benign: question and answer of what makes the threshold.
    """
    limit, system, work = config.direction.max_batch_tokens, config.system_prompt, Work()
    base = next(model for model in config.models if model.arm.untouched)
    unrelated = [(text.question, text.answer) for text in unrelated_texts(unrelated_pairs())]
    all_of = reading(encode_chats(tokenizers(base), unrelated, system), 2048).read * max(DEPTHS)
    watched = reading(encode_chats(tokenizers(base), benign[: config.probe.n_benign], system), limit).read
    harmless = [(text.prompt, text.answer) for text in harmless_texts()]
    own = once_each(tokenizers, lambda one: reading(encode_chats(one, harmless, system), limit).read)
    for model in config.models:
        watched += own(model) + padded(answers, limit)
        work += loading(model)
    work += Work(read=all_of + watched * sum(DEPTHS) / len(DEPTHS))
    return StageWork("probe", work, held=2, left_out="fits of probes on shuffled labels, spectra of adapters")
