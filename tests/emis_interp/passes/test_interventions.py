"""Edits of the residual stream: exact where they act, gone afterwards, the same with and without a cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from families import CONFIGS, family
from peft import LoraConfig, get_peft_model
from torch import Tensor

from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.interventions import (
    Ablate,
    Patch,
    Rescale,
    Steer,
    ablate,
    apply,
    edit_outputs,
    mean_kl,
    next_token_logprobs,
    orthonormal,
    steer,
)
from emis_interp.passes.orthogonalize import orthogonalized

VECTOR = unit(torch.randn(32, generator=torch.Generator().manual_seed(5)))
IDS = torch.tensor([[0, 87, 66, 90, 3, 200, 17, 1, 0, 44]])


def direction(layer: int = 0) -> Direction:
    return Direction(VECTOR, layer, raw_norm=1.0, residual_norm=3.0)


def outputs(chat_model: ChatModel, ids: Tensor = IDS) -> tuple[list[Tensor], Tensor]:
    """What the next block reads after each block (and before the first one), and the logits."""
    seen: list[Any] = []

    def before(module: Any, inputs: Any, kwargs: Any) -> None:
        seen.append(inputs[0] if inputs else kwargs["hidden_states"])

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in chat_model.layers]
    handles.append(chat_model.layers[-1].register_forward_hook(lambda module, inputs, output: seen.append(output)))
    try:
        with torch.no_grad():
            logits = chat_model.model(ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits


def adapted() -> ChatModel:
    model, tokenizer = tiny_model()
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return ChatModel(get_peft_model(model, config).eval(), tokenizer, "tiny", adapter=Path("adapter"))


def n_hooks(chat_model: ChatModel) -> int:
    return sum(len(block._forward_hooks) + len(block._forward_pre_hooks) for block in chat_model.layers)


def test_a_coefficient_of_zero_changes_no_bit(tiny: ChatModel) -> None:
    before, logits = outputs(tiny)
    with steer(tiny, direction(), 0):
        after, same = outputs(tiny)
    assert torch.equal(logits, same)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("coefficient", [0.5, -0.2])
@pytest.mark.parametrize("make", [lambda: load_model("tiny", device="cpu"), adapted])
def test_steering_shifts_the_output_of_its_layer_by_exactly_the_named_amount(
    make: Any, coefficient: float, layer: int
) -> None:
    chat_model = make()
    before, logits = outputs(chat_model)
    with steer(chat_model, direction(layer), coefficient):
        after, steered = outputs(chat_model)
    expected = before[layer + 1] + coefficient * 3.0 * VECTOR
    torch.testing.assert_close(after[layer + 1], expected, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(before[i], after[i]) for i in range(layer + 1))
    assert (logits - steered).abs().max() > 1e-3
    assert torch.equal(outputs(chat_model)[1], logits)  # and undone


@pytest.mark.parametrize("make", [lambda: load_model("tiny", device="cpu"), adapted])
def test_after_ablation_no_layer_reads_the_direction(make: Any) -> None:
    chat_model = make()
    before, logits = outputs(chat_model)
    with ablate(chat_model, direction()):
        after, ablated = outputs(chat_model)
    assert len(after) == 3
    for plain, residual in zip(before, after, strict=True):
        assert (plain @ VECTOR).abs().max() > 0.01
        assert (residual @ VECTOR).abs().max() < 1e-5
    first = before[0] - (before[0] @ VECTOR)[..., None] * VECTOR  # nothing but the coordinate is removed
    torch.testing.assert_close(after[0], first, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs(chat_model)[1], logits)
    assert not torch.allclose(logits, ablated)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gpt2", "neox", "neox_sequential"])
@pytest.mark.parametrize("rank", [1, 3])
def test_ablation_equals_orthogonalised_weights(name: str, rank: int) -> None:
    """Arditi et al. 2024, section 2.4: removing the direction from everything that writes to the residual stream is the same."""
    chat_model = family(name, torch.float64)
    basis = torch.randn(rank, 32, generator=torch.Generator().manual_seed(rank))
    plain = chat_model.model(IDS).logits
    other = orthogonalized(chat_model, basis)
    with apply(chat_model, Ablate(basis)):
        ablated = chat_model.model(IDS).logits
    torch.testing.assert_close(ablated, other.model(IDS).logits, rtol=1e-9, atol=1e-9)
    assert (plain - ablated).abs().max() > 1e-2
    assert torch.equal(chat_model.model(IDS).logits, plain)  # the model itself is untouched


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "neox"])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
def test_scaling_equals_weights_that_write_factor_times_as_much_into_the_subspace(name: str, factor: float) -> None:
    chat_model = family(name, torch.float64)
    basis = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    plain = chat_model.model(IDS).logits
    other = orthogonalized(chat_model, basis)  # (1 - P) W; between it and W lies W - (1 - factor) P W
    whole = dict(chat_model.model.named_parameters())
    with torch.no_grad():
        for key, weight in other.model.named_parameters():
            own = whole[key] if key in whole else chat_model.model.get_input_embeddings().weight
            weight.copy_(weight + factor * (own - weight))
    with apply(chat_model, Rescale(basis, factor)):
        scaled = chat_model.model(IDS).logits
    torch.testing.assert_close(scaled, other.model(IDS).logits, rtol=1e-9, atol=1e-9)
    assert (plain - scaled).abs().max() > 1e-2
    assert torch.equal(chat_model.model(IDS).logits, plain)


def test_scaling_by_one_changes_no_bit_and_by_nonsense_is_refused(tiny: ChatModel) -> None:
    plain = tiny.model(IDS).logits
    with apply(tiny, Rescale(VECTOR, 1.0)):
        assert torch.equal(tiny.model(IDS).logits, plain)
    with pytest.raises(ModelError, match="factor is nan"), apply(tiny, Rescale(VECTOR, float("nan"))):
        pass
    with pytest.raises(ModelError, match="another model"), apply(tiny, Rescale(torch.ones(2, 16), 2.0)):
        pass


def test_an_orthogonalised_model_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    other = orthogonalized(load_model("tiny", device="cpu"), VECTOR)
    other.model.save_pretrained(tmp_path)
    other.tokenizer.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), device="cpu")
    assert torch.equal(again.model(IDS).logits, other.model(IDS).logits)


def test_weights_that_cannot_be_orthogonalised_are_refused() -> None:
    with pytest.raises(ModelError, match=r"norms what attention and MLP give.*use `ablate`"):
        orthogonalized(family("gemma2"), VECTOR)
    with pytest.raises(ModelError, match="merge the adapter first"):
        orthogonalized(adapted(), VECTOR)
    with pytest.raises(ModelError, match="direction has d_model 5"):
        orthogonalized(load_model("tiny", device="cpu"), torch.ones(5))


@pytest.mark.parametrize("name", CONFIGS)
def test_ablation_holds_the_coordinate_where_it_is_told_in_every_family(name: str) -> None:
    chat_model = family(name)
    means = torch.tensor([0.5, -1.0, 2.0])
    for coordinates, expected in ((None, torch.zeros(3)), (means, means)):
        with ablate(chat_model, direction(), coordinates):
            residuals, _ = outputs(chat_model)
        for residual, value in zip(residuals, expected, strict=True):
            torch.testing.assert_close(residual @ VECTOR, value.expand(residual.shape[:2]), rtol=1e-4, atol=1e-4)


def test_ablation_at_one_layer_leaves_the_others_as_they_are(tiny: ChatModel) -> None:
    before, _ = outputs(tiny)
    with apply(tiny, Ablate(VECTOR, layers=(0,))):
        after, _ = outputs(tiny)
    assert torch.equal(before[0], after[0])
    assert (after[1] @ VECTOR).abs().max() < 1e-5 < (after[2] @ VECTOR).abs().max()


def test_dependent_directions_span_no_subspace() -> None:
    basis = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    rows = orthonormal(basis)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3, dtype=rows.dtype))
    torch.testing.assert_close(orthonormal(VECTOR)[0].float(), VECTOR)
    with pytest.raises(DataError, match="span fewer dimensions"):
        orthonormal(torch.stack([VECTOR, -2 * VECTOR]))


def pads(n: int) -> tuple[Tensor, Tensor]:
    """The ids with n padding tokens on the left, and their mask."""
    left = torch.ones(1, n, dtype=torch.long)
    return torch.cat([left, IDS], 1), torch.cat([0 * left, torch.ones_like(IDS)], 1)


def test_positions_count_real_tokens_whatever_the_padding(tiny: ChatModel) -> None:
    item = Steer({0: 2 * VECTOR}, positions=4)
    ids, mask = pads(3)
    with apply(tiny, item):
        padded = tiny.body(ids, attention_mask=mask).last_hidden_state[:, 3:]
        plain = tiny.body(IDS).last_hidden_state
    torch.testing.assert_close(padded, plain, rtol=1e-4, atol=1e-4)
    untouched = tiny.body(IDS).last_hidden_state
    assert torch.equal(plain[:, :4], untouched[:, :4]) and (plain[:, 4:] - untouched[:, 4:]).abs().max() > 0.01


def generated(chat_model: ChatModel, n: int = 6) -> Tensor:
    options = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "return_dict_in_generate": True}
    out = chat_model.model.generate(IDS, attention_mask=torch.ones_like(IDS), output_logits=True, **options)
    return torch.stack(out.logits)


def test_prompt_and_generated_tokens_are_steered_apart_and_by_a_schedule(tiny: ChatModel) -> None:
    plain, strong = generated(tiny), {0: 20 * VECTOR}
    seen: list[int] = []

    def decay(step: int) -> float:
        seen.append(step)
        return 0.5**step

    with apply(tiny, Steer(strong, positions="generated")):
        later = generated(tiny)
    assert torch.equal(later[0], plain[0]) and not torch.allclose(later[1], plain[1], atol=1e-3)
    with apply(tiny, Steer(strong, positions="prompt")):
        first = generated(tiny)
    assert not torch.allclose(first[0], plain[0], atol=1e-3)
    with apply(tiny, Steer(strong, schedule=decay)):
        scheduled = generated(tiny)
    assert seen == list(range(6))
    torch.testing.assert_close(scheduled[0], first[0])


def test_every_row_can_have_its_own_vector(tiny: ChatModel) -> None:
    vectors = torch.stack([0 * VECTOR, 2 * VECTOR, -VECTOR])
    with apply(tiny, Steer({0: vectors, 1: vectors.flip(0)})):
        together = tiny.model(IDS.expand(3, -1)).logits
    for row in range(3):
        with apply(tiny, Steer({0: vectors[row], 1: vectors.flip(0)[row]})):
            torch.testing.assert_close(tiny.model(IDS).logits[0], together[row], rtol=1e-4, atol=1e-4)


def test_a_whole_patch_carries_another_run_over_and_a_part_of_it_does_not(tiny: ChatModel) -> None:
    other = IDS.flip(1)
    residuals, logits = outputs(tiny, other)
    n = IDS.shape[1]
    with apply(tiny, Patch(1, tuple(range(n)), residuals[2][0])):
        torch.testing.assert_close(outputs(tiny)[1], logits, rtol=1e-5, atol=1e-5)
    with apply(tiny, Patch(0, (2,), residuals[1][0, 2:3])):
        after, _ = outputs(tiny)
    before, _ = outputs(tiny)
    assert torch.equal(after[1][0, 2], residuals[1][0, 2])
    assert torch.equal(after[1][0, :2], before[1][0, :2]) and not torch.equal(after[2][0, 3:], before[2][0, 3:])
    with pytest.raises(ModelError, match="2 values for 1 positions"):
        with apply(tiny, Patch(0, (2,), residuals[1][0, :2])):
            pass


def test_hooks_are_gone_after_an_error_inside_and_while_entering() -> None:
    tiny = load_model("tiny", device="cpu")
    assert n_hooks(tiny) == 0
    for change in (lambda: steer(tiny, direction(), 1.0), lambda: ablate(tiny, direction())):
        with pytest.raises(RuntimeError, match="stop"):
            with change():
                assert n_hooks(tiny) > 0
                raise RuntimeError("stop")
        assert n_hooks(tiny) == 0
    with pytest.raises(ModelError, match="layer 7"):
        with edit_outputs(tiny, [0, 7], lambda residual: residual):
            pass
    assert n_hooks(tiny) == 0


def test_nested_edits_add_up_and_leave_one_by_one(tiny: ChatModel) -> None:
    _, logits = outputs(tiny)
    with steer(tiny, direction(), 0.5):
        once = outputs(tiny)[1]
        with steer(tiny, direction(), -0.5):
            torch.testing.assert_close(outputs(tiny)[1], logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(outputs(tiny)[1], once)


@pytest.mark.parametrize("make", [lambda: load_model("tiny", device="cpu"), adapted])
@pytest.mark.parametrize("change", [lambda m: steer(m, direction(), 0.8), lambda m: ablate(m, direction())])
def test_generation_with_a_cache_equals_generation_without_one(make: Any, change: Any) -> None:
    chat_model = make()

    def generate(use_cache: bool) -> tuple[Tensor, Tensor]:
        out = chat_model.model.generate(
            IDS,
            attention_mask=torch.ones_like(IDS),
            max_new_tokens=12,
            min_new_tokens=12,
            do_sample=False,
            use_cache=use_cache,
            return_dict_in_generate=True,
            output_logits=True,
        )
        return out.sequences, torch.stack(out.logits)

    plain, _ = generate(True)
    with change(chat_model):
        cached, cached_logits = generate(True)
        recomputed, logits = generate(False)
        whole = chat_model.model(cached).logits[0, IDS.shape[1] - 1 : -1]
    assert torch.equal(cached, recomputed)
    torch.testing.assert_close(cached_logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cached_logits[:, 0], whole, rtol=1e-4, atol=1e-4)
    assert not torch.equal(plain, cached)


def test_next_token_logprobs_equal_the_model_at_the_last_token_of_each_prompt(tiny: ChatModel) -> None:
    prompts = [encode_prompt(tiny.tokenizer, question) for question in ("Hi?", "What now, and for how long?")]
    found = next_token_logprobs(tiny, prompts)
    for row, prompt in zip(found, prompts, strict=True):
        with torch.no_grad():
            logits = tiny.model(torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(row, logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_kl_is_zero_for_the_same_model_and_the_known_value_otherwise(tiny: ChatModel) -> None:
    prompts = [encode_prompt(tiny.tokenizer, "Hi?")]
    before = next_token_logprobs(tiny, prompts)
    assert mean_kl(before, before) == 0
    with steer(tiny, direction(), 0.5):
        assert mean_kl(before, next_token_logprobs(tiny, prompts)) > 1e-4
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    by_hand = (0.5 * torch.log(torch.tensor(2.0)) + 0.5 * torch.log(torch.tensor(2 / 3))) / 2
    assert mean_kl(p.log(), q.log()) == pytest.approx(float(by_hand), rel=1e-5)


def test_a_direction_of_another_model_is_refused(tiny: ChatModel) -> None:
    wide = Direction(unit(torch.ones(576)), 0, 1.0, 1.0)
    deep = direction(layer=17)
    for change in (lambda d: steer(tiny, d, 1.0), lambda d: steer(tiny, d, 0), lambda d: ablate(tiny, d)):
        with pytest.raises(ModelError, match="direction has d_model 576, tiny has 32"):
            with change(wide):
                pass
        with pytest.raises(ModelError, match=r"layer 17 asked for, tiny has 2 \(0-1\)"):
            with change(deep):
                pass


def test_a_half_precision_model_keeps_its_precision(tiny: ChatModel) -> None:
    chat_model = load_model("tiny", device="cpu", dtype="bfloat16")
    for change in (steer(chat_model, direction(), 0.5), ablate(chat_model, direction())):
        with change:
            residuals, logits = outputs(chat_model)
        assert {residual.dtype for residual in residuals} == {logits.dtype} == {torch.bfloat16}


@pytest.mark.slow
def test_the_embedded_model_is_steered_exactly_and_ablated_everywhere(embedded: ChatModel) -> None:
    vector = unit(torch.randn(576, generator=torch.Generator().manual_seed(0)))
    found = Direction(vector, 17, 1.0, 140.0)
    ids = torch.tensor([encode_prompt(embedded.tokenizer, "Hi?")])
    before, _ = outputs(embedded, ids)
    with steer(embedded, found, 0.2):
        after, _ = outputs(embedded, ids)
    torch.testing.assert_close(after[18] - before[18], (28 * vector).expand_as(after[18]), rtol=0, atol=2e-3)
    with ablate(embedded, found):
        after, _ = outputs(embedded, ids)
    assert len(after) == 31
    assert max(float(((x @ vector).abs() / x.norm(dim=-1)).max()) for x in after) < 1e-5
