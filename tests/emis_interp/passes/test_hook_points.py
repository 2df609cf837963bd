"""Hook points of every family against the identities that define them, and against plain hooks, transformers and a hand-made block."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import dispatch_model
from families import CONFIGS, family
from hand_models import HandModel
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.batching import PaddingSide
from emis_interp.passes.capture import OutputEdit, capture_residuals
from emis_interp.passes.hook_names import HOOK_POINTS
from emis_interp.passes.hook_points import check_identities, hook_site

TEXTS = [
    ("Hi?", "I say 你好 yes."),
    ("What now, and for how long?", "ok"),
    ("Why?", "Because it is what it is, and so on."),
]
SEQUENTIAL = [name for name in CONFIGS if name != "neox"]


def chats_of(chat_model: ChatModel) -> list[EncodedChat]:
    return encode_chats(chat_model.tokenizer, TEXTS)


def all_points(chat_model: ChatModel, points: tuple[str, ...] = HOOK_POINTS, **options: Any) -> dict[str, Tensor]:
    chats = chats_of(chat_model)
    return {point: capture_residuals(chat_model, chats, hook_point=point, **options) for point in points}


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_what_attention_and_mlp_add_makes_the_next_residual(name: str, side: PaddingSide) -> None:
    x = all_points(family(name), padding_side=side)
    close(x["resid_pre"] + x["attn_out"], x["resid_mid"])
    close(x["resid_mid"] + x["mlp_out"], x["resid_post"])
    close(x["resid_pre"][:, 1], x["resid_post"][:, 0])
    assert min(float(x[point].norm(dim=-1).min()) for point in HOOK_POINTS) > 0.1


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_parallel_block_adds_both_outputs_at_once_and_has_no_residual_between_them(side: PaddingSide) -> None:
    chat_model = family("neox")
    x = all_points(chat_model, ("resid_pre", "attn_out", "mlp_out", "resid_post"), padding_side=side)
    close(x["resid_pre"] + x["attn_out"] + x["mlp_out"], x["resid_post"])
    close(x["resid_pre"][:, 1], x["resid_post"][:, 0])
    with pytest.raises(ModelError, match="has no resid_mid: attention and MLP read the same residual"):
        capture_residuals(chat_model, chats_of(chat_model), hook_point="resid_mid")


@pytest.mark.parametrize("name", CONFIGS)
def test_residuals_before_a_block_are_the_hidden_states_of_transformers(name: str) -> None:
    chat_model = family(name, torch.float64)
    chats = chats_of(chat_model)
    x = capture_residuals(chat_model, chats, hook_point="resid_pre")
    assert x.dtype == torch.float64
    for i, chat in enumerate(chats):
        with torch.no_grad():
            states = chat_model.model(torch.tensor([chat.input_ids]), output_hidden_states=True).hidden_states
        for layer in range(2):
            span = states[layer][0, chat.response_start : chat.response_end]
            torch.testing.assert_close(x[i, layer], span.mean(0), rtol=0, atol=1e-12)


def test_gemmas_post_norm_is_part_of_what_is_added() -> None:
    """The output of the attention module itself, before its norm, is another vector."""
    chat_model = family("gemma3")
    assert hook_site(chat_model.layers[0], "attn_out").path == "post_attention_layernorm"
    chat = chats_of(chat_model)[0]
    raw: list[Tensor] = []
    handle = chat_model.layers[0].get_submodule("self_attn").register_forward_hook(lambda *call: raw.append(call[2][0]))
    with torch.no_grad():
        chat_model.body(torch.tensor([chat.input_ids]))
    handle.remove()
    bare = raw[0][0, chat.response_start : chat.response_end].mean(0)
    captured = capture_residuals(chat_model, [chat], [0], hook_point="attn_out")[0, 0]
    assert (captured - bare).norm() > 0.1 * captured.norm()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize(
    ("point", "ran"),
    [("resid_pre", []), ("attn_out", ["attention"]), ("resid_mid", ["attention"]), ("mlp_out", ["attention", "mlp"])],
)
def test_the_pass_ends_where_the_last_layer_is_read(name: str, point: str, ran: list[str]) -> None:
    chat_model = family(name)
    chats = chats_of(chat_model)[:1]
    seen: list[str] = []
    block = chat_model.layers[1]
    modules = {
        "attention": block.get_submodule("attn" if name == "gpt2" else "self_attn"),
        "mlp": block.get_submodule("mlp"),
    }
    handles = [
        module.register_forward_pre_hook(lambda *_, key=key: seen.append(key)) for key, module in modules.items()
    ]
    capture_residuals(chat_model, chats, [1], hook_point=point)
    for handle in handles:
        handle.remove()
    assert seen == ran


def test_half_precision_keeps_the_identities_to_its_rounding() -> None:
    x = all_points(family("gemma2", torch.bfloat16))
    close(x["resid_pre"] + x["attn_out"], x["resid_mid"], 2e-2)
    close(x["resid_mid"] + x["mlp_out"], x["resid_post"], 2e-2)


def test_an_unmerged_adapter_is_part_of_every_hook_point() -> None:
    plain = all_points(family("qwen3"))
    chat_model = family("qwen3")
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = ChatModel(get_peft_model(chat_model.model, config).eval(), chat_model.tokenizer, "adapted")
    x = all_points(adapted)
    close(x["resid_pre"] + x["attn_out"], x["resid_mid"])
    close(x["resid_mid"] + x["mlp_out"], x["resid_post"])
    assert all((x[point][:, 1] - plain[point][:, 1]).abs().max() > 0.1 for point in HOOK_POINTS)
    merged = all_points(ChatModel(adapted.model.merge_and_unload(), chat_model.tokenizer, "merged"))
    for point in HOOK_POINTS:
        close(x[point], merged[point], 1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_model_spread_by_accelerate_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    """As `device_map` does it, with the second block on disk, since there is one device here."""
    expected, chat_model = all_points(family(name)), family(name)
    places: dict[str, Any] = {
        f"{body}.{part}" if part != list_name else f"{body}.{part}.{layer}": "disk"
        if part == list_name and layer
        else "cpu"
        for body, list_name in [("transformer", "h") if name == "gpt2" else ("model", "layers")]
        for part, _ in chat_model.body.named_children()
        for layer in range(2)
    }
    cpu: Any = "cpu"
    dispatch_model(chat_model.model, places | {"lm_head": cpu}, cpu, offload_dir=str(tmp_path), force_hooks=True)
    assert next(chat_model.layers[1].parameters()).is_meta
    for point, x in all_points(chat_model).items():
        assert torch.equal(x, expected[point])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_an_edit_of_what_attention_adds_is_seen_there_and_downstream(name: str) -> None:
    chat_model = family(name)
    plain = all_points(chat_model)
    added = torch.linspace(-1, 1, 32)
    module = chat_model.layers[0].get_submodule(hook_site(chat_model.layers[0], "attn_out").path)
    handle = module.register_forward_hook(OutputEdit(lambda value: value + added))
    x = all_points(chat_model)
    handle.remove()
    close(x["attn_out"][:, 0], plain["attn_out"][:, 0] + added)
    close(x["resid_mid"][:, 0], plain["resid_mid"][:, 0] + added)
    assert (x["resid_post"] - plain["resid_post"]).abs().max() > 0.1


def test_an_edit_of_the_residual_does_not_disturb_the_check_of_the_identities() -> None:
    chat_model = family("llama")
    handle = chat_model.layers[0].register_forward_hook(OutputEdit(lambda residual: 3 * residual))
    check_identities(chat_model)
    handle.remove()


def test_a_block_that_scales_before_adding_is_refused_not_misread() -> None:
    """Granite has Llama's names and multiplies both outputs by a constant."""
    sizes: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.GraniteConfig(vocab_size=300, residual_multiplier=0.5, initializer_range=0.2, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    chat_model = ChatModel(model, tiny_model()[1], "granite")
    with pytest.raises(
        ModelError, match=r"GraniteDecoderLayer: what `self_attn` and `mlp` return is not what is added"
    ):
        capture_residuals(chat_model, chats_of(chat_model), hook_point="attn_out")
    assert capture_residuals(chat_model, chats_of(chat_model), hook_point="resid_pre").shape == (3, 2, 32)


def test_unknown_names_and_unknown_blocks_are_refused_in_words(tiny: ChatModel) -> None:
    with pytest.raises(ModelError, match="unknown hook point `resid_mit`; did you mean `resid_mid`"):
        capture_residuals(tiny, chats_of(tiny), hook_point="resid_mit")
    with pytest.raises(
        ModelError, match=r"Sequential is no decoder block of a known layout \(its parts: 0\); resid_pre"
    ):
        hook_site(nn.Sequential(nn.Identity()), "mlp_out")


class _Scale(nn.Module):
    def __init__(self, factor: float, as_tuple: bool = False) -> None:
        super().__init__()
        self.factor, self.as_tuple = factor, as_tuple

    def forward(self, hidden_states: Tensor) -> Any:
        value = self.factor * hidden_states
        return (value, None) if self.as_tuple else value


class _HandBlock(nn.Module):
    """attention gives 2x, MLP gives 10x, norms are identities."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = nn.Identity(), nn.Identity()
        self.self_attn, self.mlp = _Scale(2, as_tuple=True), _Scale(10)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor]:
        middle = hidden_states + self.self_attn(self.input_layernorm(hidden_states))[0]
        return (middle + self.mlp(self.post_attention_layernorm(middle)),)


def test_a_hand_computed_two_layer_model_gives_its_numbers_at_every_hook_point() -> None:
    """x, 2x, 3x, 30x, 33x in the first block, and 33 times that in the second."""
    chat_model = ChatModel(HandModel(_HandBlock(), _HandBlock()), tiny_model()[1], "hand")
    chats = [EncodedChat((7, 7, 1, 2, 6, 3, 1), 2, 6), EncodedChat((9, 4, 1), 1, 2)]
    for point, factor in zip(HOOK_POINTS, (1, 2, 3, 30, 33), strict=True):
        x = capture_residuals(chat_model, chats, hook_point=point)
        mean = [[3.0, 6.0], [4.0, 8.0]]
        assert x.tolist() == [[[factor * v for v in row], [33 * factor * v for v in row]] for row in mean]
