"""The capture stage of a run: response-mean `resid_post` of every layer, each model on the contrast texts and on its own answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.config.run_models import LastModel
from emis_interp.files.store import card_path, read_object
from emis_interp.files.tensors import save_tensors
from emis_interp.files.text import is_unicode
from emis_interp.models.chat import EncodedChat, encode_chat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_with_norms
from emis_interp.process import Bars, each, no_bars
from emis_interp.records import Completion, ContrastPair
from emis_interp.texts.contrast import labeled_texts

KINDS = ("contrast", "answers")


def capture(
    run: RunFolder, answers: Callable[[ModelConfig], Sequence[Completion]], bars: Bars = no_bars
) -> tuple[list[Path], str]:
    """Capture every model on both kinds of texts.

    Args:
        answers: a model's own, as they were sampled.
    """
    files, n_texts, loaded = [], 0, LastModel(run.models)
    for model in each(bars, "model", run.config.models):
        for kind in KINDS:
            path = run.activations(model, kind)
            read = [run.samples(model)] if kind == "answers" else []
            with run.files.making(
                "capture", [path, card_path(path)], inputs=[*run.models.weights(model), *read]
            ) as whole:
                if not whole:
                    chat_model = loaded.get(model)
                    system = run.config.system_prompt
                    if kind == "contrast":
                        chats = contrast_chats(run.pairs, chat_model.tokenizer, system)
                    else:
                        chats = answer_chats(answers(model), chat_model.tokenizer)
                    capture_texts(
                        chat_model,
                        chats,
                        path,
                        arm=model.name,
                        kind=kind,
                        max_batch_tokens=run.config.direction.max_batch_tokens,
                        bars=bars,
                    )
            n_texts += read_object(card_path(path)).get("n_texts", 0)
            files += [path, card_path(path)]
    return files, f"{n_texts} texts, {run.models.base.n_layers} layers, {len(run.config.arms)} arms"


def capture_texts(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    path: Path,
    *,
    arm: str,
    kind: str,
    max_batch_tokens: int,
    bars: Bars = no_bars,
) -> None:
    """Save what one model has of one kind of texts, with its card."""
    with bars(f"capture {arm} {kind}", len(chats)) as advance:
        x, norms = capture_with_norms(chat_model, chats, max_batch_tokens=max_batch_tokens, progress=advance)
    card = {
        "arm": arm,
        "texts": kind,
        "n_texts": len(chats),
        "position": "response_mean",
        "hook_point": "resid_post",
    }
    save_tensors(path, {"x": x, "token_norm": norms}, card)


def contrast_chats(pairs: Sequence[ContrastPair], tokenizer: Any, system: str | None) -> list[EncodedChat]:
    """The contrast texts, the same for every model but for what its tokenizer puts before them."""
    return encode_chats(tokenizer, [(text.question, text.answer) for text in labeled_texts(pairs)], system)


def answer_chats(answers: Sequence[Completion], tokenizer: Any) -> list[EncodedChat]:
    """A model's own answers as they were sampled; those without a response token (empty, or no Unicode) are left out."""
    return [
        encode_chat(tokenizer, row.question, row.answer, system=row.system, as_sampled=True) for row in spoken(answers)
    ]


def spoken(answers: Sequence[Completion]) -> list[Completion]:
    """Those with a response token: not empty, and Unicode."""
    return [row for row in answers if row.answer.strip() and is_unicode(row.answer)]
