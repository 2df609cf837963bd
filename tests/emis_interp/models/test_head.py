"""The head is asked of the model itself: its logits at chosen positions are those of a whole pass, whatever a family does there."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from many_families import FAMILIES, SIZES
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel, decoder_of
from emis_interp.models.head import check_head, head_logits, untie_head
from emis_interp.models.loading import load_model

SCALED = [name for name, (what, _) in FAMILIES.items() if what in ("a cap", "a factor", "a divisor", "a small network")]


def model_of(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    config_class = transformers.CONFIG_MAPPING[family]
    config = config_class(**{**SIZES, **FAMILIES[family][1], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: Any = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)  # biases and norms that start at 0 and 1 too
    return model.eval().requires_grad_(False).to(dtype)


def whole_pass(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the decoder and logits of one ordinary pass."""
    seen: list[torch.Tensor] = []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    handle = decoder_of(inner).register_forward_hook(lambda _, inputs, output: seen.append(output[0]))
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    handle.remove()
    return seen[0], logits


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_chosen_positions_are_those_of_a_whole_pass(family: str) -> None:
    model = model_of(family)
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    found = head_logits(model, hidden[:, [2, 5, 7]])
    torch.testing.assert_close(found, logits[:, [2, 5, 7]], rtol=1e-5, atol=1e-6)
    check_head(model, family)
    # The planted scaling shows: the bare matrix would give other numbers.
    if family in SCALED:
        bare = model.get_output_embeddings()(hidden[:, [2, 5, 7]])
        assert (bare - logits[:, [2, 5, 7]]).abs().max() > 0.05 * logits.abs().max()


def test_a_model_that_also_sees_is_asked_in_the_same_way() -> None:
    text = {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0}
    image: Any = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"image_token_index": 250, "boi_token_index": 251, "eoi_token_index": 252, "mm_tokens_per_image": 4}
    config_class: Any = transformers.CONFIG_MAPPING["gemma3"]
    config = config_class(text_config=text, vision_config={**image, "image_size": 28, "patch_size": 14}, **tokens)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    torch.testing.assert_close(head_logits(model, hidden), logits, rtol=1e-5, atol=1e-6)
    assert logits.abs().max() > 2  # Gemma 3 caps its logits as a text model alone, though its settings say the same


@pytest.mark.parametrize("family", ["gemma2", "granite", "falcon_h1", "bert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_logits_as_a_whole_pass(family: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype)
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    found = head_logits(model, hidden[0])
    assert found.dtype == logits.dtype
    torch.testing.assert_close(found, logits[0], rtol=0.02, atol=0.02)
    check_head(model, family)


@pytest.mark.parametrize("family", ["llama", "gpt2", "cohere", "opt", "gemma2"])
def test_an_adapter_is_part_of_the_head_that_it_changes(family: str) -> None:
    plain = model_of(family)
    untie_head(plain)
    head = next(name for name, part in plain.named_modules() if part is plain.get_output_embeddings())
    torch.manual_seed(0)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=[head], init_lora_weights=False)).eval()
    hidden, logits = whole_pass(adapted, torch.arange(5, 13)[None])
    torch.testing.assert_close(head_logits(adapted, hidden), logits, rtol=1e-5, atol=1e-6)
    check_head(adapted, family)
    with adapted.disable_adapter():
        assert (head_logits(adapted, hidden) - logits).abs().max() > 0.01


def test_the_model_is_as_before_and_threads_share_it() -> None:
    model = model_of("granite")
    parts, modes = list(model._modules.items()), vars(model).keys()
    rows = [torch.randn(3 + i, 32) for i in range(8)]
    expected = [head_logits(model, row) for row in rows]
    found: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        for _ in range(20):
            found[i] = head_logits(model, rows[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(8))
    assert list(model._modules.items()) == parts and vars(model).keys() == modes
    with pytest.raises(RuntimeError):
        head_logits(model, torch.randn(3, 31))  # an error leaves it as it was, too
    assert list(model._modules.items()) == parts


def test_a_forward_that_is_bound_to_the_whole_model_is_not_taken(tiny: ChatModel) -> None:
    """Mixed-precision trainers put such a forward on the instance; it would run the decoder on hidden states."""
    model = model_of("cohere")
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    bound = model.forward
    model.forward = lambda *args, **kwargs: bound(*args, **kwargs)
    torch.testing.assert_close(head_logits(model, hidden), logits)


def broken(change: Callable[[Any], Any]) -> Any:
    """A Llama of a class whose forward is changed."""
    model = model_of("llama")
    kind = type(model)
    made = type("ChangedForCausalLM", (kind,), {"forward": change(kind.forward)})
    model.__class__ = made
    return model


def twice(forward: Any) -> Any:
    def changed(self: Any, input_ids: Any = None, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        self.model(input_ids=input_ids, inputs_embeds=inputs_embeds)
        return forward(self, input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)

    return changed


def by_tokens(forward: Any) -> Any:
    def changed(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        output = forward(self, input_ids=input_ids, **kwargs)
        if input_ids is not None:
            output.logits = output.logits + input_ids[..., None]
        return output

    return changed


def not_a_number(forward: Any) -> Any:
    def changed(self: Any, **kwargs: Any) -> Any:
        output = forward(self, **kwargs)
        output.logits = output.logits * float("nan")
        return output

    return changed


def barred(forward: Any) -> Any:
    def changed(self: Any, **kwargs: Any) -> Any:
        output = forward(self, **kwargs)
        output.logits[..., 200:] = -torch.inf
        return output

    return changed


def failing(forward: Any) -> Any:
    def changed(self: Any, **kwargs: Any) -> Any:
        raise KeyError("a package that is not there")

    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (twice, "decoder ran 2 times in a forward pass, once is expected"),
        (
            by_tokens,
            r"logits that ChangedForCausalLM computes for chosen tokens differ by \S+ from those of a whole pass",
        ),
        (not_a_number, "its logits on four tokens are not finite in float32; .*use float32 or bfloat16"),
        (failing, r"fails on four tokens \(KeyError: 'a package that is not there'\); choose another model"),
    ],
)
def test_a_model_whose_head_cannot_be_asked_is_refused(change: Any, words: str) -> None:
    with pytest.raises(ModelError, match=f"odd: .*{words}"):
        check_head(broken(change), "odd")


def test_tokens_that_a_family_bars_are_no_fault() -> None:
    check_head(broken(barred), "barred")


def test_loading_checks_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    from emis_interp.models import loading

    seen: list[str] = []
    monkeypatch.setattr(loading, "check_head", lambda model, name: seen.append(name))
    load_model("tiny", device="cpu")
    assert seen == ["tiny"]
