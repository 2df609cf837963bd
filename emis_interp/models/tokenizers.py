"""Turns a model's name, and the adapter on it, into the tokenizer that their texts are written with: vocabulary, chat template, length.

An adapter belongs to the format that it was trained in: its own tokenizer files and chat template go before those of its base model, and
so does the plain format that this project trained it in.
"""

import copy
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from emis_interp.errors import ModelError
from emis_interp.files.store import read_json
from emis_interp.models.chat_formats import FORMATS, format_of, with_format
from emis_interp.models.chat_template import template_of
from emis_interp.models.clock import with_clock
from emis_interp.models.context import context_length
from emis_interp.models.rendering import both

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
TEMPLATE_FILE, CONFIG_FILES = "chat_template.jinja", ("tokenizer_config.json", "chat_template.json")

log = logging.getLogger(__name__)


def ready_tokenizer(name: str, base: Any, chat_format: str | None, *, adapter: Path | None) -> Any:
    """The tokenizer for texts of a model (and of the adapter on it), checked; what is special about it is logged.

    Args:
        name: of the model, for messages; `base` is its tokenizer as it was loaded.
        chat_format: a plain format of `chat_formats`, which goes before every template; None for the adapter's or the model's own.
        adapter: folder of a PEFT adapter.

    Raises:
        ModelError: two plain formats that contradict each other, or a tokenizer that `check_tokenizer` refuses.
    """
    where = name if adapter is None else str(adapter)
    found = base if adapter is None else _of_adapter(name, base, adapter, chat_format=chat_format)
    trained_in = format_of(found) if found.chat_template else None
    if chat_format is not None:
        if trained_in not in (None, chat_format):
            raise ModelError(
                f"{where}: was trained in the chat format {trained_in}, and {chat_format} is asked for; leave the format out, or give "
                f"{trained_in}"
            )
        found = with_format(found, chat_format)
    check_tokenizer(where, found)
    return found


def check_tokenizer(name: str, tokenizer: Any) -> None:
    """Refuse tokenizers that cannot render a chat or tell where a token begins; stop the template's clock, and set a padding token.

    Raises:
        ModelError: no chat template, one that `template_of` refuses, or a slow tokenizer.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name}: its tokenizer has no chat template; choose an instruction-tuned model, or for a pretrained one a plain format "
            f"({' or '.join(FORMATS)}: --chat-format in commands, --set chat_format= in the pipeline, chat_format= in load_model)"
        )
    given = tokenizer.chat_template
    if isinstance(given, dict) and "default" not in given:
        raise ModelError(
            f"{name}: its tokenizer has chat templates for {', '.join(map(str, given))[:100]} and none called default; give one that "
            "name in its files"
        )
    texts = given.values() if isinstance(given, dict) else [given]
    if not all(isinstance(text, str) for text in texts):
        raise ModelError(
            f"{name}: its chat template is no text ({str(given)[:60]!r}); mend it in tokenizer_config.json or chat_template.jinja"
        )
    if not tokenizer.is_fast:
        raise ModelError(f"{name}: needs a fast tokenizer (offsets are used to find response tokens)")
    tokenizer.chat_template = _stopped(tokenizer.chat_template)
    try:
        template = template_of(tokenizer)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    for note in template.notes:
        _say(f"{name}: {note.text}")
    if tokenizer.pad_token is None:
        _pad_with_another(tokenizer)


def check_vocabulary(name: str, tokenizer: Any, n_embedded: int) -> None:
    """Refuse a tokenizer whose conversations hold tokens that the model has no embedding for; such a padding token is replaced.

    Args:
        n_embedded: rows of the model's input embeddings.

    Raises:
        ModelError: with the tokens; an adapter's own vocabulary needs the embeddings that it was trained with.
    """
    template = template_of(tokenizer)
    written = {*tokenizer(template.prompt + template.end, add_special_tokens=False)["input_ids"], *template.end_ids}
    missing = sorted(token for token in written if token >= n_embedded)
    if missing:
        raise ModelError(
            f"{name}: its tokenizer writes {', '.join(map(repr, tokenizer.convert_ids_to_tokens(missing[:3])))} (id {missing[0]}), and the "
            f"model has embeddings for {n_embedded} tokens; give the base model or the adapter that holds the embeddings of these tokens"
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= n_embedded:
        absent = tokenizer.pad_token
        _pad_with_another(tokenizer)
        _say(
            f"{name}: the model has no embedding for the padding token {absent!r}; {tokenizer.pad_token!r} stands for it"
        )


def read_tokenizer(path: str) -> Any:
    """The tokenizer in a folder or behind a hub id.

    Raises:
        ModelError: its files cannot be read, with the reason.
    """
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        # The tokenizer classes raise many unrelated types; all mean that the files cannot be used.
        words = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"{path}: its tokenizer cannot be read ({type(error).__name__}: {words}); check its tokenizer files"
        ) from None


def length_of(path: str) -> int | None:
    """`context_length` of the configuration in a folder or behind a hub id; None, and said, when it cannot be read."""
    try:
        return context_length(AutoConfig.from_pretrained(path, trust_remote_code=False))
    except Exception as error:
        # As in `read_tokenizer`. Loading the weights fails for the same reason, but they need not be wanted.
        _say(f"{path}: its configuration cannot be read ({type(error).__name__}), so that no text is too long for it")
        return None


def recorded_format(adapter: Path) -> str | None:
    """The plain format that the record of training beside or above an adapter names, for folders without a tokenizer of their own."""
    folder = adapter.resolve()
    candidates: list[tuple[Path, tuple[str, ...]]] = [(folder.parent / "recipe.json", ("chat_format",))]
    for arm in (folder.parent, folder.parent.parent):  # runs/NAME/training/ARM/adapter, or .../ARM/seed-N/adapter
        if arm.parent.name == "training":
            candidates.append((arm.parent.parent / "manifest.json", ("config", "chat_format")))
    for path, keys in candidates:
        if path.is_file():
            value = read_json(path)
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            return value if value in FORMATS else None
    return None


def _of_adapter(name: str, base: Any, adapter: Path, *, chat_format: str | None) -> Any:
    """The adapter's tokenizer where it differs from its base model's, else its base model's."""
    own = _own_tokenizer(adapter, base)
    if own is None:
        recorded = recorded_format(adapter)
        if recorded is None:
            return base
        own = with_format(base, recorded)
    differing = list(_differences(own, base))
    if not differing:
        return base
    own_format = format_of(own)
    if chat_format is not None and own_format is None:
        _say(f"{adapter}: the chat format {chat_format} goes before the adapter's own chat template")
    else:
        called = f" (chat format {own_format})" if own_format else ""
        _say(f"{adapter}: the adapter's own tokenizer{called} goes before that of {name}: {'; '.join(differing)}")
    return own


def _own_tokenizer(adapter: Path, base: Any) -> Any:
    """The adapter's tokenizer: from its vocabulary, or the base model's with the template that lies there; None without either."""
    template = _own_template(adapter)
    if any((adapter / file).is_file() for file in VOCABULARIES):
        own = read_tokenizer(str(adapter))
        own.chat_template = own.chat_template or template or base.chat_template
        return own
    if template is None:
        return None
    own = copy.deepcopy(base)
    own.chat_template = template
    return own


def _own_template(adapter: Path) -> str | None:
    if (adapter / TEMPLATE_FILE).is_file():
        try:
            return (adapter / TEMPLATE_FILE).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{adapter / TEMPLATE_FILE}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
            ) from None
    for file in CONFIG_FILES:
        config = read_json(adapter / file) if (adapter / file).is_file() else None
        template = config.get("chat_template") if isinstance(config, dict) else None
        if isinstance(template, list):  # several by name, as older versions of transformers save them
            named = {row.get("name"): row.get("template") for row in template if isinstance(row, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def _differences(own: Any, base: Any) -> Iterator[str]:
    ours, theirs = (_stopped(one.chat_template) for one in (own, base))
    if ours != theirs:
        if theirs:
            one, other = both(str(ours), str(theirs))
            yield f"chat template {one}, not {other}"
        else:
            yield "a chat template, where there is none"
    if own.get_vocab() != base.get_vocab():
        yield f"another vocabulary of {len(own)} tokens, not {len(base)}"
    for token in ("bos_token", "eos_token"):
        if getattr(own, token) != getattr(base, token):
            yield f"{token} {getattr(own, token)}, not {getattr(base, token)}"


def _pad_with_another(tokenizer: Any) -> None:
    """Padding is masked, so that any token will do; the end of sequence is the usual one."""
    tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)


def _stopped(template: Any) -> Any:
    """A chat template, or each of several by name, with its clock stopped."""
    if isinstance(template, dict):
        return {name: _stopped(text) for name, text in template.items()}
    return with_clock(template) if isinstance(template, str) else template


@functools.cache
def _say(text: str) -> None:
    """Warn of something once, however often the model is loaded."""
    log.warning(text)
