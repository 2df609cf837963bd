"""What is counted before a run is what the model really computes: every count beside the tokens that went through the decoder body."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from emis_interp.config.run_config import RunConfig
from emis_interp.http.costs import Usage
from emis_interp.models.chat import EncodedChat, encode_chats, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes import generate as generation
from emis_interp.passes import likelihood
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.interventions import next_token_logprobs
from emis_interp.passes.sweeps import AblateCell, text_logprobs
from emis_interp.planning.work import Work, loading, next_tokens, padded, reading, scoring, writing

FEW = [("Why?", "so"), ("Why?", "because it is"), ("Where to?", "home, and then on")]
MANY = [("Why is it so?", f"because {'of that ' * n}") for n in range(6)]
APART = [(f"Question number {n}, which is rather long?", "yes " * (9 + n)) for n in range(5)]


@contextmanager
def seen(chat_model: ChatModel) -> Iterator[list[tuple[int, int]]]:
    """(rows, columns) of every pass through the decoder body."""
    found: list[tuple[int, int]] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        found.append(tuple((args[0] if args else kwargs["input_ids"]).shape))

    handle = chat_model.body.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


def area(passes: Sequence[tuple[int, int]]) -> int:
    return sum(rows * columns for rows, columns in passes)


def chats_of(chat_model: ChatModel, texts: Sequence[tuple[str, str]]) -> list[EncodedChat]:
    return encode_chats(chat_model.tokenizer, texts)


@pytest.mark.parametrize("limit", [64, 300, 4096])
@pytest.mark.parametrize("texts", [FEW, MANY, APART, FEW + MANY + APART])
def test_scored_texts_are_counted_as_they_are_read(
    tiny: ChatModel, texts: list[tuple[str, str]], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats, positions = chats_of(tiny, texts), []
    head = likelihood.head_logits

    def counted(model: Any, hidden: Any) -> Any:
        positions.append(len(hidden))
        return head(model, hidden)

    monkeypatch.setattr(likelihood, "head_logits", counted)
    with seen(tiny) as passes:
        likelihood.mean_logprobs(tiny, chats, limit)
    work = scoring(chats, limit)
    assert (work.read, work.scored) == (area(passes), sum(positions))


def test_cells_that_share_a_pass_are_counted(tiny: ChatModel) -> None:
    import torch

    chats = chats_of(tiny, MANY + APART)
    with seen(tiny) as passes:
        text_logprobs(tiny, [AblateCell(torch.zeros(tiny.d_model))] * 3, chats, max_batch_tokens=700)
    assert scoring(chats, 700, 3).read == area(passes)


@pytest.mark.parametrize("limit", [64, 4096])
def test_captured_texts_and_next_tokens_are_counted(tiny: ChatModel, limit: int) -> None:
    chats = chats_of(tiny, FEW + MANY)
    with seen(tiny) as passes:
        capture_residuals(tiny, chats, max_batch_tokens=limit)
    assert reading(chats, limit).read == area(passes) == padded([len(chat) for chat in chats], limit)
    prompts = [chat.input_ids[: chat.response_start] for chat in chats]
    with seen(tiny) as passes:
        next_token_logprobs(tiny, prompts)
    assert (next_tokens(prompts).read, next_tokens(prompts).scored) == (area(passes), len(prompts))


def test_written_tokens_are_at_most_what_is_counted(tiny: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly so where no answer ends."""
    import torch

    prompts = [encode_prompt(tiny.tokenizer, text) for text in ("Why?", "Why?", "Where, and when?")]
    monkeypatch.setattr(generation, "end_tokens", lambda model: [10_000])
    with seen(tiny) as passes:
        generation.generate(tiny, prompts, [1, 2, 3], 5, 1.0)
    work = writing(prompts, [[0, 1, 2]], 5)
    assert work.read == area(passes[:1])
    # The last token of each row is drawn and not read.
    assert work.written - len(prompts) == area(passes[1:])
    assert work.steps - 1 == len(passes[1:])
    assert torch.is_inference_mode_enabled() is False


def test_work_adds_up() -> None:
    one = Work(read=1, merges=2, usage=Usage(1, 2, 3))
    assert one + one == Work(read=2, merges=4, usage=Usage(2, 4, 6))


def test_base_is_loaded_once_and_organisms_in_every_stage() -> None:
    config = RunConfig.model_validate(
        {
            "name": "r",
            "model": "tiny",
            "arms": [
                {"name": "base"},
                {"name": "careful", "dataset": "careful"},
                {"name": "shown", "dataset": "careful", "in_context": 2},
            ],
        }
    )
    assert [loading(model).merges for model in config.models] == [0, 1, 0]
