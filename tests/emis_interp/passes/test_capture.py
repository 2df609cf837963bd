"""nnsight capture against second routes: hidden states of transformers, plain hooks, a hand-computed model, TransformerLens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CONFIGS, family
from hand_models import HandModel
from peft import LoraConfig, get_peft_model
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.batching import PaddingSide
from emis_interp.passes.capture import capture_residuals, capture_response_tokens, capture_with_norms
from emis_interp.passes.interventions import Ablate, ablate, apply, steer
from emis_interp.passes.positions import TokenSets

TEXTS = [
    ("Hi?", "I say 你好 yes."),
    ("What now, and for how long?", "ok"),
    ("Why?", "Because it is what it is, and so on."),
]


def chats_of(chat_model: ChatModel) -> list[EncodedChat]:
    return encode_chats(chat_model.tokenizer, TEXTS)


def hooked(chat_model: ChatModel, chats: Sequence[EncodedChat], first: int | None = None) -> Tensor:
    """The same pooled activations by plain forward hooks, one unpadded text at a time; `first` = tokens before the answer to skip to."""
    found = torch.zeros(len(chats), chat_model.n_layers, chat_model.d_model)
    for i, chat in enumerate(chats):
        outputs: dict[int, Tensor] = {}

        handles = [block.register_forward_hook(_keep(outputs, layer)) for layer, block in enumerate(chat_model.layers)]
        try:
            with torch.no_grad():
                chat_model.body(
                    input_ids=torch.tensor([chat.input_ids]),
                    attention_mask=torch.ones(1, len(chat), dtype=torch.long),
                    position_ids=torch.arange(len(chat))[None],
                    use_cache=False,
                )
        finally:
            for handle in handles:
                handle.remove()
        for layer, output in outputs.items():
            span = (
                output[0, chat.response_start : chat.response_end]
                if first is None
                else output[0, [chat.response_start + first]]
            )
            found[i, layer] = span.float().mean(0)
    return found


def _keep(outputs: dict[int, Tensor], layer: int) -> Any:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        outputs[layer] = output[0] if isinstance(output, tuple) else output

    return hook


def with_adapter(folder: Path) -> Path:
    """A LoRA adapter of the tiny model that changes every layer."""
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(tiny_model()[0], config).save_pretrained(str(folder))
    return folder


def test_capture_equals_the_hidden_states_of_transformers(tiny: ChatModel) -> None:
    """The last layer is left to the hooks: transformers applies the final norm to its last hidden state."""
    chats = chats_of(tiny)
    captured = capture_residuals(tiny, chats)
    for i, chat in enumerate(chats):
        with torch.no_grad():
            states = tiny.model(torch.tensor([chat.input_ids]), output_hidden_states=True).hidden_states
        expected = states[1][0, chat.response_start : chat.response_end].mean(0)
        torch.testing.assert_close(captured[i, 0], expected)
        torch.testing.assert_close(tiny.body.norm(hooked_tokens(tiny, chat)), states[2][0])


def hooked_tokens(chat_model: ChatModel, chat: EncodedChat) -> Tensor:
    kept = []
    handle = chat_model.layers[-1].register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
    with torch.no_grad():
        chat_model.body(torch.tensor([chat.input_ids]))
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["tiny", *CONFIGS])
def test_capture_equals_plain_hooks_on_unpadded_texts_in_every_family(name: str, side: PaddingSide) -> None:
    chat_model = load_model("tiny", device="cpu") if name == "tiny" else family(name)
    chats = chats_of(chat_model)
    captured = capture_residuals(chat_model, chats, padding_side=side)
    assert captured.shape == (3, 2, 32)
    assert captured.dtype == torch.float32
    torch.testing.assert_close(captured, hooked(chat_model, chats), rtol=1e-5, atol=2e-5)


def test_left_and_right_padding_agree(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    for position in ("response_mean", "last_prompt", "response_last", "all_tokens", TokenSets(((0, 3), (5,), (7, 1)))):
        left = capture_residuals(tiny, chats, position=position, padding_side="left")
        right = capture_residuals(tiny, chats, position=position, padding_side="right")
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_the_last_prompt_position_is_the_token_before_the_answer(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    captured = capture_residuals(tiny, chats, position="last_prompt")
    torch.testing.assert_close(captured, hooked(tiny, chats, first=-1), rtol=1e-5, atol=1e-5)
    other = encode_chats(tiny.tokenizer, [(question, "something else") for question, _ in TEXTS])
    torch.testing.assert_close(captured, capture_residuals(tiny, other, position="last_prompt"), rtol=1e-5, atol=1e-5)


def test_explicit_tokens_rules_and_names_read_the_same_tokens(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    for name, rule in {
        "last_prompt": lambda chat: [chat.response_start - 1],
        "response_last": lambda chat: [chat.response_end - 1],
        "response_mean": lambda chat: range(chat.response_start, chat.response_end),
        "all_tokens": lambda chat: range(len(chat)),
    }.items():
        named = capture_residuals(tiny, chats, position=name)
        assert torch.equal(named, capture_residuals(tiny, chats, position=rule))
        sets = TokenSets(tuple(tuple(rule(chat)) for chat in chats))
        assert torch.equal(named, capture_residuals(tiny, chats, position=sets))
    torch.testing.assert_close(
        capture_residuals(tiny, chats, position="response_last"),
        torch.stack([torch.stack([capture_response_tokens(tiny, [chat], k)[0][-1] for k in (0, 1)]) for chat in chats]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_tokens_that_are_not_there_are_refused_with_the_text(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    n = len(chats[1])
    with pytest.raises(DataError, match=rf"text 1: token {n} asked for, the text has {n} \(0-{n - 1}\)"):
        capture_residuals(tiny, chats, position=TokenSets(((0,), (0, n), (0,))))
    with pytest.raises(DataError, match="text 0: token -1 asked for"):
        capture_residuals(tiny, chats, position=lambda chat: [-1])
    with pytest.raises(DataError, match="text 2: no token to read"):
        capture_residuals(tiny, chats, position=TokenSets(((0,), (0,), ())))
    with pytest.raises(DataError, match="2 token sets for 3 texts"):
        capture_residuals(tiny, chats, position=TokenSets(((0,), (0,))))
    with pytest.raises(DataError, match="no layers to capture"):
        capture_residuals(tiny, chats, layers=[])


def test_single_tokens_of_an_answer_average_to_its_pooled_residual(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    tokens = capture_response_tokens(tiny, chats, 1, max_batch_tokens=64)
    assert [len(rows) for rows in tokens] == [chat.response_end - chat.response_start for chat in chats]
    pooled = capture_residuals(tiny, chats, [1])[:, 0]
    torch.testing.assert_close(torch.stack([rows.mean(0) for rows in tokens]), pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 100, 200, 10_000])
def test_the_batch_size_does_not_matter_and_the_order_is_kept(tiny: ChatModel, budget: int) -> None:
    chats = chats_of(tiny)
    seen: list[int] = []
    captured = capture_residuals(tiny, chats, max_batch_tokens=budget, progress=seen.append)
    torch.testing.assert_close(captured, hooked(tiny, chats), rtol=1e-5, atol=1e-5)
    assert sum(seen) == 3


def test_chosen_layers_come_in_the_order_asked_for(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    every = capture_residuals(tiny, chats)
    torch.testing.assert_close(capture_residuals(tiny, chats, layers=[1, 0, 1]), every[:, [1, 0, 1]])
    torch.testing.assert_close(capture_residuals(tiny, chats, layers=[0]), every[:, :1])


def test_capture_stops_after_the_last_layer_asked_for(tiny: ChatModel) -> None:
    ran: list[Any] = []
    handles = [
        block.register_forward_pre_hook(lambda module, inputs, layer=layer: ran.append(layer))
        for layer, block in enumerate(tiny.layers)
    ]
    try:
        capture_residuals(tiny, chats_of(tiny)[:1], layers=[0])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0]


def test_capture_reads_through_a_loaded_and_a_merged_adapter(tiny: ChatModel, tmp_path: Path) -> None:
    folder = with_adapter(tmp_path / "adapter")
    loaded = load_model("tiny", folder, device="cpu")
    merged = load_model("tiny", folder, device="cpu", merge=True)
    chats = chats_of(tiny)
    captured = capture_residuals(loaded, chats)
    torch.testing.assert_close(captured, hooked(loaded, chats), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(captured, capture_residuals(merged, chats), rtol=1e-4, atol=1e-4)
    assert (captured - capture_residuals(tiny, chats)).abs().max() > 0.1


class _AddingBlock(torch.nn.Module):
    """Adds a constant, and returns a tensor or, as older transformers do, a tuple."""

    def __init__(self, amount: float, as_tuple: bool) -> None:
        super().__init__()
        self.amount, self.as_tuple = amount, as_tuple

    def forward(self, hidden_states: Tensor) -> Any:
        result = hidden_states + self.amount
        return (result, None) if self.as_tuple else result


@pytest.mark.parametrize("as_tuple", [True, False])
def test_tuples_and_tensors_give_the_hand_computed_means(as_tuple: bool) -> None:
    blocks = _AddingBlock(1, as_tuple), _AddingBlock(10, as_tuple)
    chat_model = ChatModel(HandModel(*blocks), tiny_model()[1], "adding")
    chats = [EncodedChat((7, 7, 10, 20, 60, 30, 1), 2, 6), EncodedChat((9, 4, 1), 1, 2)]
    x = capture_residuals(chat_model, chats)
    assert x.tolist() == [[[31, 61], [41, 71]], [[5, 9], [15, 19]]]
    x = capture_residuals(chat_model, chats, position="last_prompt")
    assert x.tolist() == [[[8, 15], [18, 25]], [[10, 19], [20, 29]]]
    direction = Direction(torch.tensor([1.0, 0.0]), layer=0, raw_norm=1.0, residual_norm=5.0)
    with steer(chat_model, direction, 2.0):
        assert capture_residuals(chat_model, chats)[1].tolist() == [[15, 9], [25, 19]]
    with apply(chat_model, Ablate(direction.vector, layers=(0, 1))):
        assert capture_residuals(chat_model, chats)[1].tolist() == [[0, 9], [0, 19]]
    with pytest.raises(ModelError, match="_AddingBlock is no decoder block of a known layout"):
        with ablate(chat_model, direction):
            pass


@pytest.mark.parametrize("captured_before", [True, False])
def test_capture_sees_what_an_intervention_leaves_for_the_next_layer(captured_before: bool) -> None:
    """nnsight itself sees a block's output before PyTorch's hooks edit it, whatever was wrapped first."""
    tiny = load_model("tiny", device="cpu")
    chats = chats_of(tiny)
    plain = hooked(tiny, chats)
    if captured_before:
        capture_residuals(tiny, chats)
    vector = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(0)), dim=0)
    direction = Direction(vector, layer=0, raw_norm=1.0, residual_norm=3.0)
    with steer(tiny, direction, 0.5):
        steered = capture_residuals(tiny, chats)
        torch.testing.assert_close(steered, hooked(tiny, chats), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(steered[:, 0] - plain[:, 0], (1.5 * vector).expand(3, -1), rtol=1e-4, atol=1e-5)
    assert (steered[:, 1] - plain[:, 1] - 1.5 * vector).abs().max() > 0.1
    with ablate(tiny, direction):
        assert direction.project(capture_residuals(tiny, chats)).abs().max() < 1e-5
    torch.testing.assert_close(capture_residuals(tiny, chats), plain, rtol=1e-5, atol=1e-5)


def test_a_half_precision_model_still_pools_in_float32() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="bfloat16")
    chats = chats_of(chat_model)
    captured = capture_residuals(chat_model, chats[:1])
    torch.testing.assert_close(captured, hooked(chat_model, chats[:1]), rtol=1e-5, atol=1e-5)
    assert (captured != captured.bfloat16().float()).any()


def test_wrong_requests_are_refused_in_words(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    with pytest.raises(DataError, match="no texts"):
        capture_residuals(tiny, [])
    with pytest.raises(DataError, match="unknown position `last_promt`; did you mean `last_prompt`"):
        capture_residuals(tiny, chats, position="last_promt")
    with pytest.raises(ModelError, match=r"layer 2 asked for, tiny has 2 \(0-1\)"):
        capture_residuals(tiny, chats, layers=[2])


@pytest.mark.slow
def test_transformer_lens_agrees_in_float64(tmp_path: Path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    model, tokenizer = tiny_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), dtype=torch.float64, device="cpu")
    chat_model = load_model(str(tmp_path), dtype="float64", device="cpu")
    chat_model.model.set_attn_implementation("eager")  # the bridge's; its softmax is in float32
    chats = chats_of(chat_model)
    names = {
        "resid_pre": "hook_in",
        "attn_out": "attn.hook_out",
        "resid_mid": "hook_resid_mid",
        "mlp_out": "mlp.hook_out",
        "resid_post": "hook_out",
    }
    captured = {point: capture_residuals(chat_model, chats, hook_point=point) for point in names}
    for i, chat in enumerate(chats):
        _, cache = bridge.run_with_cache(torch.tensor([chat.input_ids]))
        for layer in range(2):
            for point, name in names.items():
                expected = cache[f"blocks.{layer}.{name}"][0, chat.response_start : chat.response_end].mean(0)
                assert expected.dtype == captured[point].dtype == torch.float64
                torch.testing.assert_close(captured[point][i, layer], expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_the_embedded_model_agrees_with_plain_hooks_in_every_layer(embedded: ChatModel) -> None:
    chats = chats_of(embedded)
    expected = hooked(embedded, chats)
    captured = capture_residuals(embedded, chats, padding_side="left")
    relative = (captured - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert captured.shape == (3, 30, 576)
    assert relative.max() < 1e-4


def test_token_norms_are_means_of_single_tokens_and_longer_than_the_mean_vector(tiny: ChatModel) -> None:
    chats = encode_chats(tiny.tokenizer, [("Hello?", "Good day to you."), ("Why?", "So.")])
    pooled, norms = capture_with_norms(tiny, chats)
    states = tiny.model(torch.tensor([chats[0].input_ids]), output_hidden_states=True).hidden_states
    answer = states[1][0, chats[0].response_start : chats[0].response_end]
    assert norms[0, 0].item() == pytest.approx(answer.norm(dim=-1).mean().item(), rel=1e-5)
    assert (norms >= pooled.norm(dim=-1) - 1e-5).all()
