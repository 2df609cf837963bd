"""Hook points of every family against the stream's identities, transformers, TransformerLens, adapters and interventions."""

from pathlib import Path

import pytest
import torch
from families import FAMILIES, family
from peft import LoraConfig, get_peft_model
from torch import Tensor

from emis_interp.batching import PaddingSide
from emis_interp.capture import capture_residuals
from emis_interp.chat import EncodedChat, encode_chats
from emis_interp.directions import Direction
from emis_interp.errors import DataError, ModelError
from emis_interp.hook_points import HOOK_POINTS, HookPoint
from emis_interp.interventions import ablate, edit_outputs, steer
from emis_interp.models import ChatModel, load_model, tiny_model

TEXTS = [("Hi?", "I say 你好 yes."), ("What now, and for how long?", "ok"), ("Why?", "Because it is what it is.")]
PARALLEL = ("neox",)


def chats_of(chat_model: ChatModel) -> list[EncodedChat]:
    return encode_chats(chat_model.tokenizer, TEXTS)


def read(chat_model: ChatModel, hook_point: HookPoint, side: PaddingSide = "right") -> Tensor:
    return capture_residuals(chat_model, chats_of(chat_model), hook_point=hook_point, padding_side=side)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_attention_and_mlp_add_leads_from_one_hook_point_to_the_next(name: str, side: PaddingSide) -> None:
    chat_model = family(name)
    pre, post, attention, mlp = (
        read(chat_model, point, side) for point in ("resid_pre", "resid_post", "attn_out", "mlp_out")
    )
    close(pre + attention + mlp, post)
    close(pre[:, 1], post[:, 0])
    assert min(attention.abs().max(), mlp.abs().max()) > 0.05, "nothing was added, so nothing was tested"
    if name not in PARALLEL:
        mid = read(chat_model, "resid_mid", side)
        close(pre + attention, mid)
        close(mid + mlp, post)


@pytest.mark.parametrize("name", FAMILIES)
def test_residuals_are_the_hidden_states_of_transformers(name: str) -> None:
    chat_model = family(name)
    pre, post = read(chat_model, "resid_pre"), read(chat_model, "resid_post")
    for i, chat in enumerate(chats_of(chat_model)):
        with torch.no_grad():
            states = chat_model.model(torch.tensor([chat.input_ids]), output_hidden_states=True).hidden_states
        answer = [state[0, chat.response_start : chat.response_end].mean(0) for state in states]
        close(pre[i], torch.stack(answer[:2]))
        close(post[i, 0], answer[1])  # transformers norms the last one


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_that_is_silenced_adds_nothing(name: str) -> None:
    """A route to attn_out from the weights: with its last projection at zero the block adds the MLP alone."""
    chat_model = family(name)
    for part, parameter in chat_model.layers[0].named_parameters():
        if any(last in part for last in ("o_proj", "attn.c_proj", "attention.dense")):
            parameter.data.zero_()
    assert read(chat_model, "attn_out")[:, 0].abs().max() == 0
    pre, post = read(chat_model, "resid_pre")[:, 0], read(chat_model, "resid_post")[:, 0]
    close(pre + read(chat_model, "mlp_out")[:, 0], post)


def test_parallel_blocks_have_no_resid_mid() -> None:
    with pytest.raises(ModelError, match="run in parallel, so there is no resid_mid"):
        read(family("neox"), "resid_mid")


def test_unknown_hook_points_and_families_are_refused_in_words(tiny: ChatModel) -> None:
    with pytest.raises(DataError, match="unknown hook point `resid_prae`; did you mean `resid_pre`"):
        capture_residuals(tiny, chats_of(tiny), hook_point="resid_prae")
    strange = load_model("tiny", device="cpu")
    for block in strange.layers:
        block.__class__ = type("StrangeLayer", (type(block),), {})
    read(strange, "resid_pre")
    with pytest.raises(ModelError, match="`attn_out` is not known for blocks of type StrangeLayer"):
        read(strange, "attn_out")


def test_hook_points_read_through_a_loaded_and_a_merged_adapter(tiny: ChatModel, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(tiny_model()[0], config).save_pretrained(str(tmp_path))
    loaded = load_model("tiny", tmp_path, device="cpu")
    merged = load_model("tiny", tmp_path, device="cpu", merge=True)
    for point in HOOK_POINTS:
        torch.testing.assert_close(read(loaded, point), read(merged, point), rtol=1e-4, atol=1e-4)
    for point in ("resid_mid", "attn_out", "mlp_out"):
        assert (read(loaded, point) - read(tiny, point)).abs().max() > 0.1
    close(read(loaded, "resid_pre") + read(loaded, "attn_out"), read(loaded, "resid_mid"))


@pytest.mark.parametrize("name", ["gemma2", "neox", "gpt2"])
def test_every_hook_point_sees_an_intervention(name: str) -> None:
    chat_model = family(name)
    vector = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(0)), dim=0)
    direction = Direction(vector, layer=0, raw_norm=1.0, residual_norm=3.0)
    plain = read(chat_model, "resid_post")
    with steer(chat_model, direction, 0.5):
        pre, post = read(chat_model, "resid_pre"), read(chat_model, "resid_post")
        close(post[:, 0], plain[:, 0] + 1.5 * vector)
        close(pre[:, 1], post[:, 0])
        close(pre[:, 1] + read(chat_model, "attn_out")[:, 1] + read(chat_model, "mlp_out")[:, 1], post[:, 1])
    with ablate(chat_model, direction):
        for point in ("resid_pre", "resid_post"):
            assert (read(chat_model, point) @ vector).abs().max() < 1e-5
    with edit_outputs(chat_model, [1], lambda residual: residual * 2):
        close(read(chat_model, "resid_post")[:, 1], 2 * plain[:, 1])
    close(read(chat_model, "resid_post"), plain)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_agrees_with_float32_to_its_precision(name: str) -> None:
    exact, rounded = family(name), family(name, torch.bfloat16)
    for point in ("resid_post", "attn_out", "mlp_out"):
        captured = read(rounded, point)
        assert captured.dtype == torch.float32
        similarity = torch.cosine_similarity(captured, read(exact, point), dim=-1)
        assert similarity.min() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "neox"])
def test_transformer_lens_agrees_in_float64_at_every_hook_point(name: str, tmp_path: Path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    chat_model = family(name, torch.float64)
    chat_model.model.save_pretrained(tmp_path)
    chat_model.tokenizer.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), dtype=torch.float64, device="cpu")
    names = {"resid_pre": "hook_in", "resid_post": "hook_out", "attn_out": "attn.hook_out", "mlp_out": "mlp.hook_out"}
    chats = chats_of(chat_model)
    for point, theirs in names.items():
        captured = capture_residuals(chat_model, chats, hook_point=point)
        for i, chat in enumerate(chats):
            _, cache = bridge.run_with_cache(torch.tensor([chat.input_ids]))
            for layer in range(2):
                expected = cache[f"blocks.{layer}.{theirs}"][0, chat.response_start : chat.response_end].mean(0)
                # Pooling is in float32: agreement to its rounding.
                torch.testing.assert_close(captured[i, layer].double(), expected, rtol=2e-6, atol=2e-6)
