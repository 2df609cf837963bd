"""Plants numbers that are none in weights, and looks that every reader of a model stops with the text, the layer and the weight named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from emis_interp.directions import Direction
from emis_interp.errors import DataError, ModelError
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.models.chat import encode_chat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import first_broken
from emis_interp.models.head import check_head
from emis_interp.models.loading import load_model
from emis_interp.passes.capture import capture_residuals, capture_response_tokens
from emis_interp.passes.generate import generate
from emis_interp.passes.interventions import next_token_logprobs, steer
from emis_interp.passes.likelihood import logprobs_and_entropies, logprobs_and_residuals, margins_at, mean_logprobs
from emis_interp.passes.running_means import capture_means
from emis_interp.records import ContrastPair
from probes.lens.attribution import attribute
from probes.lens.by_layer import lens_logprobs
from probes.lens.patching import PatchCell, patched
from probes.sae.splicing import answer_losses

TEXTS = [("How are you?", "Fine."), ("And now?", "Worse, zebra."), ("Who?", "You.")]
PAIRS = [
    ContrastPair(question_id=question, group="g", half="report", question=question, aligned=answer, misaligned="No.")
    for question, answer in TEXTS
]


@pytest.fixture
def model() -> Iterator[ChatModel]:
    """A tiny model of this test's own: what is planted stays in it."""
    yield load_model("tiny", device="cpu")


def chats(model: ChatModel) -> list[Any]:
    return [encode_chat(model.tokenizer, question, answer) for question, answer in TEXTS]


def rare_token(model: ChatModel) -> int:
    """A token of the second text's answer that stands in no other text."""
    others = {token for i in (0, 2) for token in chats(model)[i].input_ids}
    second = chats(model)[1]
    return next(t for t in second.input_ids[second.response_start : second.response_end] if t not in others)


def in_embedding(model: ChatModel) -> None:
    """NaN in what one token is read as: the other texts are fine."""
    table = torch.nn.Embedding.from_pretrained(model.model.get_input_embeddings().weight.detach().clone())
    table.weight[rare_token(model)] = float("nan")
    model.model.set_input_embeddings(table)


def in_layer(model: ChatModel) -> None:
    """An infinite weight in the last layer: every text breaks there, not before."""
    model.layers[-1].get_parameter("mlp.down_proj.weight")[3, 5] = float("inf")


READERS: dict[str, Callable[[ChatModel], Any]] = {
    "capture": lambda model: capture_residuals(model, chats(model)),
    "capture of tokens": lambda model: capture_response_tokens(model, chats(model), 1),
    "likelihood": lambda model: mean_logprobs(model, chats(model)),
    "likelihood with entropies": lambda model: logprobs_and_entropies(model, chats(model)),
    "likelihood with residuals": lambda model: logprobs_and_residuals(model, chats(model), 0),
    "margins at temperatures": lambda model: margins_at(model, PAIRS, [1.0, 1.2]),
    "next token": lambda model: next_token_logprobs(model, [list(chat.input_ids) for chat in chats(model)]),
    "sampling": lambda model: generate(model, [list(chat.input_ids) for chat in chats(model)], [0, 1, 2], 3, 1.0),
    "greedy sampling": lambda model: generate(model, [list(chat.input_ids) for chat in chats(model)], [0, 1, 2], 3, 0.0),
    "means of groups": lambda model: capture_means(model, [("g", chat) for chat in chats(model)]),
    "the lens": lambda model: lens_logprobs(model, chats(model), [0, model.n_layers - 1]),
    "attribution": lambda model: attribute(model, chats(model)),
    "patching": lambda model: patched(model, chats(model), [PatchCell(0, "resid_post", "all")], reader=[], giver=[]),
    "splicing": lambda model: answer_losses(model, chats(model), 0, conditions={"clean": None}, special={0}),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_token_that_is_read_as_nan_stops_every_reader_with_its_text(model: ChatModel, name: str) -> None:
    READERS[name](model)
    in_embedding(model)
    with pytest.raises(
        ModelError,
        match=r"(text|prompt) (1|2) .*is not finite .*the embedding is the first that gives NaN; its weight weight",
    ) as found:
        READERS[name](model)
    assert "zebra" in str(found.value) and "\n" not in str(found.value)
    assert name == "margins at temperatures" or " 1 " in str(found.value)  # texts of pairs are two for each


@pytest.mark.parametrize("name", READERS)
def test_an_infinite_weight_is_named_with_its_layer(model: ChatModel, name: str) -> None:
    in_layer(model)
    last = model.n_layers - 1
    with pytest.raises(
        ModelError,
        match=rf"layer {last} is the first that gives (NaN|infinity); its weight mlp\.down_proj\.weight holds 1",
    ):
        READERS[name](model)


def test_what_stands_in_for_a_residual_and_is_none_is_named_with_its_condition(model: ChatModel) -> None:
    def nan(rows: torch.Tensor) -> torch.Tensor:
        return torch.full_like(rows, float("nan"))

    words = r"the cross-entropy under `broken` of text \d is not finite .*so it is the intervention"
    with pytest.raises(ModelError, match=words):
        answer_losses(model, chats(model), 0, conditions={"clean": None, "broken": nan}, special={0})


def test_what_breaks_behind_the_last_layer_is_said(model: ChatModel) -> None:
    model.model.lm_head = torch.nn.Linear(model.d_model, model.model.config.vocab_size, bias=False)
    model.model.lm_head.weight.requires_grad_(False)[:] = float("nan")
    with pytest.raises(
        ModelError, match=r"every layer is finite, so it is what follows them; its weight lm_head\.weight holds"
    ):
        mean_logprobs(model, chats(model))


def test_a_coefficient_without_bounds_is_not_blamed_on_the_weights(model: ChatModel) -> None:
    direction = Direction(torch.eye(model.d_model)[0], 0, 1.0, 1.0, "response_mean", {"model": "tiny"})
    words = r"log-probability of text \d is not finite .*layer 0 is the first that gives (infinity|NaN); use"
    with steer(model, direction, 1e39), pytest.raises(ModelError, match=words):
        mean_logprobs(model, chats(model))
    assert mean_logprobs(model, chats(model)).all()


def test_a_model_that_is_broken_from_the_start_is_refused_with_its_weight(model: ChatModel) -> None:
    in_layer(model)
    with pytest.raises(ModelError, match=r"not finite in float32; its weight .*down_proj\.weight holds 1 such"):
        check_head(model.model, "mine")


def test_a_whole_model_is_finite_everywhere(model: ChatModel) -> None:
    assert first_broken(model, chats(model)[0].input_ids).startswith(
        "every layer is finite when the text is read alone"
    )


def test_no_file_of_tensors_holds_a_number_that_is_none(tmp_path: Path) -> None:
    x = torch.zeros(4, 2, 3)
    x[2, 1, 0] = float("nan")
    with pytest.raises(
        DataError, match=r"x\.safetensors: not written, x holds NaN, first at row 2, 1, 0 \(1 of 24 numbers\)"
    ):
        save_tensors(tmp_path / "x.safetensors", {"x": x}, {})
    assert not list(tmp_path.iterdir())
    from safetensors.torch import save_file

    from emis_interp.files.store import file_sha256, write_json

    save_file({"x": x, "n": torch.arange(3)}, tmp_path / "x.safetensors")
    write_json(tmp_path / "x.json", {"sha256": file_sha256(tmp_path / "x.safetensors")})
    with pytest.raises(DataError, match=r"x\.safetensors: x holds NaN, first at row 2, 1, 0"):
        load_tensors(tmp_path / "x.safetensors")
