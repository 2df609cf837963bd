"""Turns shipped texts and tables into the texts that an SAE reads: each once, a share of the questions held out."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from emis_interp.directions import wording_key
from emis_interp.errors import ConfigError, DataError
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import harmless_texts
from emis_interp.texts.judged import read_table
from probes.sae.settings import SaeTextSettings

ShippedTexts = Mapping[str, Callable[[], Sequence[tuple[str, str]]]]
"""Name of a source that another package ships -> its (question, answer)."""


@dataclass(frozen=True)
class SaeTexts:
    """Texts in the order in which their tokens are counted: those to train on, then those held out.

    Attributes:
        questions: `wording_key` of each text's question, the unit of hold-out and of intervals.
        n_train: the first so many are trained on.
        n_given, n_repeated: texts before any was left out, and those that stood there twice.
        by_source: texts of each source, after that.
    """

    chats: list[EncodedChat]
    questions: list[str]
    n_train: int
    n_given: int
    n_repeated: int
    by_source: dict[str, int]


def gather(settings: SaeTextSettings, tokenizer: object, shipped: ShippedTexts) -> SaeTexts:
    """The texts of all sources and tables, without repetitions.

    Raises:
        ConfigError: no source and no table, or a source that is not there.
        DataError: as `read_table` and `split_by_question`.
    """
    found: dict[tuple[str, str], str] = {}
    n_given = 0
    for name, rows in _sources(settings, shipped):
        n_given += len(rows)
        for row in rows:
            found.setdefault(row, name)
    if not found:
        raise ConfigError("no texts: --sources is empty and no --texts is given")
    rows = list(found)
    if settings.max_texts is not None and settings.max_texts < len(rows):
        rows = random.Random(settings.draw).sample(rows, settings.max_texts)
    keys = [wording_key(question) for question, _ in rows]
    held = set(split_by_question(keys, settings.held_out))
    order = sorted(range(len(rows)), key=lambda i: keys[i] in held)  # stable: each part keeps its order
    chats = encode_chats(tokenizer, [rows[i] for i in order], max_tokens=settings.max_tokens)
    by_source: dict[str, int] = {}
    for row in rows:
        by_source[found[row]] = by_source.get(found[row], 0) + 1
    return SaeTexts(
        chats,
        [keys[i] for i in order],
        sum(key not in held for key in keys),
        n_given,
        n_given - len(found),
        by_source,
    )


def split_by_question(keys: Sequence[str], share: float) -> list[str]:
    """The questions to hold out: those whose hash comes first, so that hardly any changes sides when others are added or taken away.

    Raises:
        DataError: a share that leaves nothing to train on or nothing to measure on.
    """
    names = sorted(set(keys))
    n_held = round(share * len(names))
    if not 0 < n_held < len(names):
        raise DataError(
            f"{share:g} of {len(names)} questions held out leaves {len(names) - n_held} to train on and {n_held} to measure on; "
            "give more questions, or another --held-out"
        )
    return names[:n_held]


def _sources(settings: SaeTextSettings, shipped: ShippedTexts) -> list[tuple[str, list[tuple[str, str]]]]:
    own: ShippedTexts = {"contrast": _contrast, "harmless": _harmless}
    known = {**own, **shipped}
    missing = [name for name in settings.sources if name not in known]
    if missing:
        raise ConfigError(
            f"no texts called {', '.join(missing)} here; {', '.join(known)} are (--sources), or give --texts"
        )
    found = [(name, list(known[name]())) for name in settings.sources]
    for path in settings.texts:
        frame = read_table(path, ("question", "answer"), use="read for the SAE")
        found.append((str(path), list(zip(frame["question"], frame["answer"], strict=True))))
    return found


def _contrast() -> list[tuple[str, str]]:
    return [(pair.question, answer) for pair in load_contrast() for answer in (pair.aligned, pair.misaligned)]


def _harmless() -> list[tuple[str, str]]:
    return [(text.prompt, text.answer) for text in harmless_texts()]
