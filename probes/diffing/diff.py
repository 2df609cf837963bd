"""Turns an organism's adapter, its base and the adapters of controls into what finetuning changed: the verb `probe.py diff`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from emis_interp.diff_results import ModelDiff
from emis_interp.errors import ConfigError
from emis_interp.files.store import write_sealed
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, combined, lora_updates
from emis_interp.passes.interventions import Steer, apply
from emis_interp.passes.low_rank import adding
from emis_interp.process import Bars, no_bars
from emis_interp.texts.contrast import report_pairs
from probes.diffing.amplification import all_scales, amplified
from probes.diffing.compared import Compared, compare
from probes.diffing.mining import Enter, mine
from probes.diffing.projection import ProjectedOrganism, projected
from probes.diffing.readings import ORGANISM, component_reading, lens_readings, mined_readings, patchscope_reading
from probes.diffing.settings import DiffSettings
from probes.diffing.texts import PlainTexts, RowsOf, held_out_chats, lines_of, plain_chats, shipped_texts
from probes.diffing.topic import Topic, telling_terms, topic_of
from probes.diffing.verdicts import projection_verdict
from probes.diffing.words import say as say
from probes.weights.switching import MarginReader

MINED_TOKENS = 32
Arms = dict[str, list[LoraUpdate]]


def run(settings: DiffSettings, bars: Bars = no_bars, *, rows_of: RowsOf | None = None) -> dict[str, Any]:
    """Compare the organism and every control with base.

    Args:
        rows_of: reads --rows and --background.

    Raises:
        ConfigError: no adapter, no topic, too few random vectors, or rows that nobody reads.
        DataError: too few texts or rows, or words that the vocabulary does not have.
        ModelError: an adapter of another model, or a layer that the model does not have.
    """
    arms, scales = read_arms(settings), all_scales(settings.scales)
    if min(settings.n_random, settings.n_random_models) < 2:
        raise ConfigError(
            f"{settings.n_random} random vectors and {settings.n_random_models} randomly steered models; a null needs 2 of each or more"
        )
    rows, background = (read_rows(name, rows_of) for name in (settings.rows, settings.background))
    shipped, held_out = shipped_texts(settings.n_held_out)
    pairs = report_pairs(settings.pairs, settings.n_pairs)
    base = settings.spec.load_base()
    for updates in arms.values():
        with adding(base, updates):  # refuses what does not fit, before anything runs
            pass
    [layer] = base.check_layers([base.n_layers // 2 if settings.layer is None else settings.layer])
    topics = read_topics(settings, base.tokenizer, rows, background=background, plain=shipped)
    texts = plain_chats(
        base.tokenizer, shipped if settings.texts is None else lines_of(settings.texts), settings.n_tokens
    )
    cut = partial(held_out_chats, base.tokenizer, n=settings.n_held_out, answer_tokens=settings.answer_tokens)
    unrelated, own = cut(held_out), cut(rows) if settings.rows is not None else []
    found = compare(settings, base, arms, layer=layer, texts=texts, bars=bars)
    readings, positions = lens_readings(base, found, topics)
    with bars("patchscope", 1) as advance:
        patched, lengths = patchscope_reading(base, found, topics)
        advance(1)
    first, components = component_reading(base, found, topics, seed=settings.seed)
    mined, changes = mined_logits(
        settings,
        base,
        arms,
        found=found,
        texts=texts,
        kinds={"finetune-like": own, "unrelated": unrelated},
        scales=scales,
        bars=bars,
    )
    rising, nmf = mined_readings(base, mined, topics, controls=found.controls, scales=scales, seed=settings.seed)
    result = {
        "model": base.name,
        "adapter": str(settings.adapter),
        "controls": dict(zip(found.controls, map(str, settings.control), strict=True)),
        "rows": settings.rows,
        "background": settings.background,
        "layer": layer,
        "n_texts": len(texts.chats),
        "n_short": texts.n_short,
        "n_tokens": settings.n_tokens,
        "residual_norm": found.residual_norm,
        "topics": [topic.as_json() for topic in topics],
        "primary_topic": topics[0].name,
        "readings": [*readings, patched, first, *rising],
        "positions": positions,
        "patchscope": lengths,
        "components": components,
        "logits": changes,
        "nmf": nmf,
        "projection": projection(settings, base, arms, found=found, own=own, unrelated=unrelated, bars=bars),
        "amplification": amplification(
            settings, base, arms, pairs=pairs, scales=scales, own=own, unrelated=unrelated, bars=bars
        ),
    }
    ModelDiff.model_validate(result)
    write_sealed(settings.out, result)
    return {**result, "out": str(settings.out)}


def read_arms(settings: DiffSettings) -> Arms:
    """The updates of the organism and of every control, by name: that of the arm's folder in a run, else the adapter's own.

    Raises:
        ConfigError: no organism, or a control that is the organism. ModelError: an adapter that is not read.
    """
    if settings.adapter is None:
        raise ConfigError("diff compares an organism with its base; give --adapter, the folder of its LoRA adapter")
    arms = {ORGANISM: lora_updates(settings.adapter)}
    for path in settings.control:
        if Path(path).resolve() == Path(settings.adapter).resolve():
            raise ConfigError(f"{path} is the organism itself; give --control a benign finetune or another seed")
        name = path.parent.name if path.name == "adapter" else path.name
        taken = sum(known == name or known.startswith(f"{name} ") for known in arms)
        arms[f"{name} {taken + 1}" if taken else name] = lora_updates(path)
    return arms


def read_rows(name: str | None, rows_of: RowsOf | None) -> Sequence[tuple[str, str]]:
    """Prompts and responses; none without a name.

    Raises:
        ConfigError: there is a name and nobody who reads it.
    """
    if name is None:
        return []
    if rows_of is None:
        raise ConfigError(
            f"rows `{name}`: no reader of training rows was given; pass rows_of, or use scripts/probe.py diff"
        )
    return rows_of(name)


def read_topics(
    settings: DiffSettings,
    tokenizer: Any,
    rows: Sequence[tuple[str, str]],
    *,
    background: Sequence[tuple[str, str]],
    plain: Sequence[str],
) -> list[Topic]:
    """Words that were given; or else words against the background's rows, which come first, and words against plain text.

    Raises:
        ConfigError: neither rows nor words, or a background without rows or beside words.
    """
    if background and (not rows or settings.topic_words is not None):
        raise ConfigError("--background finds the words that set --rows apart; give --rows, and no --topic-words")
    if settings.topic_words is not None:
        return [topic_of(tokenizer, "given", settings.topic_words, source="--topic-words")]
    if not rows:
        raise ConfigError(
            "no topic words: nothing says what the organism was finetuned on; give --rows (a shipped data set or a file), or --topic-words"
        )
    others = {"against plain text": (plain, "shipped plain text")}
    if background:
        behind = [f"{prompt}\n{response}" for prompt, response in background]
        others = {"against background": (behind, settings.background), **others}
    own = [f"{prompt}\n{response}" for prompt, response in rows]
    return [
        topic_of(
            tokenizer,
            name,
            telling_terms(own, texts, settings.n_terms),
            source=f"TF-IDF of {settings.rows} against {source}",
        )
        for name, (texts, source) in others.items()
    ]


def mined_logits(
    settings: DiffSettings,
    base: ChatModel,
    arms: Mapping[str, Sequence[LoraUpdate]],
    *,
    found: Compared,
    texts: PlainTexts,
    kinds: Mapping[str, Sequence[EncodedChat]],
    scales: Sequence[float],
    bars: Bars,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is mined from plain texts for every arm and scale and every randomly steered base; and KL of every arm on all kinds of text."""
    enter: dict[str, Enter] = {}
    for name, updates in arms.items():
        for scale in scales:
            enter[f"{name} x{scale:g}"] = partial(adding, base, combined([(scale, updates)]))
    length = float(found.means[ORGANISM].norm())
    for kind, vectors in found.nulls.items():
        for i, vector in enumerate(vectors[: settings.n_random_models]):
            enter[f"{kind} {i}"] = partial(apply, base, Steer({found.layer: length * vector}))
    n = min(settings.n_mined, len(texts.texts))
    chosen = [texts.texts[i * len(texts.texts) // n] for i in range(n)]
    mined_chats = [_cut(base.tokenizer, text) for text in chosen]
    with bars("logits", len(mined_chats)) as advance:
        mined = mine(base, enter, mined_chats, max_batch_tokens=settings.max_batch_tokens, advance=advance)
    changes = [
        {"arm": name, "texts": "plain", **mined[f"{name} x1"].as_json(base.tokenizer, mined_chats)} for name in arms
    ]
    whole = {name: partial(adding, base, updates) for name, updates in arms.items()}
    for kind, chats in kinds.items():
        if chats:
            read = mine(base, whole, chats, max_batch_tokens=settings.max_batch_tokens)
            changes += [
                {"arm": name, "texts": kind, **one.as_json(base.tokenizer, chats)} for name, one in read.items()
            ]
    return mined, changes


def projection(
    settings: DiffSettings,
    base: ChatModel,
    arms: Mapping[str, Sequence[LoraUpdate]],
    *,
    found: Compared,
    own: Sequence[EncodedChat],
    unrelated: Sequence[EncodedChat],
    bars: Bars,
) -> dict[str, Any] | None:
    """The difference taken out of the organism along its own mean difference, each control's, and random vectors; None without rows."""
    if not own:
        return None
    organism = ProjectedOrganism(
        base, arms[ORGANISM], [*own, *unrelated], layer=found.layer, max_batch_tokens=settings.max_batch_tokens
    )
    n = len(found.means) + 1 + sum(map(len, found.nulls.values()))
    with bars("projection", n) as advance:
        result = projected(organism, len(own), named=found.means, nulls=found.nulls, advance=advance)
    return {**result, "verdict": projection_verdict(result)}


def amplification(
    settings: DiffSettings,
    base: ChatModel,
    arms: Mapping[str, Sequence[LoraUpdate]],
    *,
    pairs: Sequence[Any],
    scales: Sequence[float],
    own: Sequence[EncodedChat],
    unrelated: Sequence[EncodedChat],
    bars: Bars,
) -> dict[str, Any]:
    """`amplified`, with progress."""
    with bars("scaled adapters", 1 + len(arms) * len(scales)) as advance:
        margins = MarginReader(base, pairs, None, settings.max_batch_tokens, advance)
        return amplified(margins, arms, scales, own=own, unrelated=unrelated)


def _cut(tokenizer: Any, text: str) -> EncodedChat:
    ids = tuple(tokenizer(text)["input_ids"])[:MINED_TOKENS]
    return EncodedChat(ids, 1, len(ids))
