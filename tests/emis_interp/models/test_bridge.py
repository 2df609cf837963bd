"""TransformerLens and nnsight read and change the same weights to the same numbers; float64, eager attention on both sides."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nnsight
import numpy as np
import pytest
import torch
from families import family
from peft import LoraConfig, get_peft_model

from emis_interp.directions import Direction
from emis_interp.errors import ModelError
from emis_interp.models.bridge import (
    BRIDGE_HOOKS,
    bridge_hook,
    from_transformer_lens,
    shared_copy,
    to_transformer_lens,
)
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.bridge_hooks import ablate_bridge, score_bridge, splice_bridge, steer_bridge
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.interventions import ablate, edit_outputs, steer
from probes.classifiers.probe import AttentionProbe, LinearProbe
from probes.monitoring.scorers import load_scorer
from probes.monitoring.watching import score_chats

EXACT: Any = {"rtol": 0, "atol": 1e-11}
SINGLE: Any = {"rtol": 0, "atol": 1e-6}
"""GPT-NeoX: transformers takes the softmax of its attention in float32 whatever the model's dtype is, the bridge does not."""
EDITED = ["tiny", "gemma2", "gpt2", "neox"]
TEXTS = [("Hello?", "Good day to you."), ("Why?", "So.")]


def double(name: str = "tiny") -> ChatModel:
    """A model of its own, which the test may change."""
    chat_model = load_model("tiny", dtype="float64", device="cpu") if name == "tiny" else family(name, torch.float64)
    chat_model.model.set_attn_implementation("eager")
    return chat_model


@functools.cache
def pair(name: str) -> tuple[ChatModel, Any]:
    """A model and its bridge, for tests that leave both as they were."""
    chat_model = double(name)
    return chat_model, to_transformer_lens(chat_model)


def tolerance(name: str) -> Any:
    return SINGLE if name.startswith("neox") else EXACT


def chats_of(chat_model: ChatModel) -> list[EncodedChat]:
    return encode_chats(chat_model.tokenizer, TEXTS)


def a_direction(chat_model: ChatModel, layer: int = 0) -> Direction:
    torch.manual_seed(3)
    vector = torch.randn(chat_model.d_model)
    return Direction(vector / vector.norm(), layer, raw_norm=1.0, residual_norm=2.0)


def logits_of(model: Any, chat: EncodedChat) -> torch.Tensor:
    with torch.no_grad():
        found = model(torch.tensor([chat.input_ids]))
    return found if isinstance(found, torch.Tensor) else found.logits


def residuals_agree(
    chat_model: ChatModel, bridge: Any, *, points: Sequence[str] = tuple(BRIDGE_HOOKS), within: Any = EXACT
) -> None:
    for point in points:
        ours = capture_residuals(chat_model, chats_of(chat_model), hook_point=point)
        for i, chat in enumerate(chats_of(chat_model)):
            names = [bridge_hook(bridge, layer, point) for layer in range(chat_model.n_layers)]
            _, cache = bridge.run_with_cache(torch.tensor([chat.input_ids]), names_filter=names)
            theirs = torch.stack([cache[n][0, chat.response_start : chat.response_end].mean(0) for n in names])
            assert ours.dtype == theirs.dtype == torch.float64
            torch.testing.assert_close(ours[i], theirs, **within)


@pytest.mark.parametrize("name", ["tiny", "qwen2", "qwen3", "mistral", "gemma2", "gpt2", "neox_sequential"])
def test_residuals_agree_at_every_layer_and_hook_point(name: str) -> None:
    residuals_agree(*pair(name), within=tolerance(name))


def test_residuals_agree_where_attention_and_mlp_read_the_same() -> None:
    chat_model, bridge = pair("neox")
    residuals_agree(chat_model, bridge, points=[point for point in BRIDGE_HOOKS if point != "resid_mid"], within=SINGLE)
    with pytest.raises(ModelError, match=r"no hook `blocks\.0\.hook_resid_mid`"):
        bridge_hook(bridge, 0, "resid_mid")


def test_an_adapter_is_merged_and_the_organism_stays_as_it_was() -> None:
    chat_model = double()
    untouched = logits_of(chat_model.model, chats_of(chat_model)[0])
    adapted = get_peft_model(chat_model.model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"])).double().eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.3)
    organism = ChatModel.from_hf(adapted, chat_model.tokenizer)
    chat, before = chats_of(organism)[0], logits_of(organism.model, chats_of(organism)[0])
    bridge: Any = to_transformer_lens(organism)
    assert (before - untouched).abs().max() > 0.1
    torch.testing.assert_close(logits_of(bridge, chat), before, **EXACT)
    assert torch.equal(logits_of(organism.model, chat), before)
    residuals_agree(organism, bridge)


def test_weights_are_shared_and_hooks_are_not() -> None:
    chat_model = double()
    capture_residuals(chat_model, chats_of(chat_model))  # leaves nnsight's wrappers on the modules
    bridge: Any = to_transformer_lens(chat_model)
    chat = chats_of(chat_model)[0]
    before = logits_of(bridge, chat)
    with steer(chat_model, a_direction(chat_model), 1.0):
        assert torch.equal(logits_of(bridge, chat), before)
    with torch.no_grad():
        chat_model.model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    assert not torch.allclose(logits_of(bridge, chat), before)
    torch.testing.assert_close(logits_of(bridge, chat), logits_of(chat_model.model, chat), **EXACT)


@pytest.mark.parametrize(("name", "coefficient"), [("tiny", -0.4), *((name, 0.7) for name in EDITED)])
def test_a_steered_forward_agrees_in_logits_and_in_every_later_residual(name: str, coefficient: float) -> None:
    chat_model, bridge = pair(name)
    direction, chat = a_direction(chat_model), chats_of(chat_model)[0]
    plain, before = logits_of(chat_model.model, chat), logits_of(bridge, chat)
    with steer(chat_model, direction, coefficient), steer_bridge(bridge, direction, coefficient):
        ours = logits_of(chat_model.model, chat)
        assert (ours - plain).abs().max() > 0.01
        torch.testing.assert_close(ours, logits_of(bridge, chat), **tolerance(name))
        last = bridge_hook(bridge, 1)
        _, cache = bridge.run_with_cache(torch.tensor([chat.input_ids]), names_filter=[last])
        later = capture_residuals(chat_model, [chat], [1], position="last_prompt")[0, 0]
        torch.testing.assert_close(later, cache[last][0, chat.response_start - 1], **tolerance(name))
    assert torch.equal(logits_of(bridge, chat), before)


@pytest.mark.parametrize("name", EDITED)
def test_an_ablated_forward_agrees(name: str) -> None:
    chat_model, bridge = pair(name)
    direction, chat = a_direction(chat_model), chats_of(chat_model)[0]
    with ablate(chat_model, direction), ablate_bridge(bridge, direction):
        ours = logits_of(chat_model.model, chat)
        torch.testing.assert_close(ours, logits_of(bridge, chat), **tolerance(name))
    assert (ours - logits_of(chat_model.model, chat)).abs().max() > 0.01


@pytest.mark.parametrize("name", EDITED)
def test_saved_scorers_read_from_the_bridge_what_they_read_here(name: str, tmp_path: Path) -> None:
    chat_model, bridge = pair(name)
    direction, pushed = a_direction(chat_model, 1), a_direction(chat_model, 0)
    direction.save(tmp_path / "direction")
    LinearProbe(direction.vector, 0.5, 1).save(tmp_path / "probe")
    scorers = [load_scorer(tmp_path / kind) for kind in ("direction", "probe")]
    with steer(chat_model, pushed, 0.7):
        ours = [score_chats(scorer, chat_model, chats_of(chat_model)) for scorer in scorers]
    with (
        steer_bridge(bridge, pushed, 0.7),
        score_bridge(bridge, scorers[0]) as along,
        score_bridge(bridge, scorers[1]) as odds,
    ):
        for chat in chats_of(chat_model):
            logits_of(bridge, chat)
    logits_of(bridge, chats_of(chat_model)[0])  # outside of the block: not scored
    assert len(along) == len(odds) == 2
    for own, theirs in zip(ours, (along, odds), strict=True):
        for chat, text, scores in zip(chats_of(chat_model), own, theirs, strict=True):
            assert scores.shape == (1, len(chat.input_ids)) and scores.dtype == torch.float64
            assert text.prompt is not None
            expected = torch.from_numpy(np.concatenate([text.prompt, text.answer]))
            asked = scores[0, chat.response_start - 1 : chat.response_end]
            torch.testing.assert_close(asked, expected, **tolerance(name))


def test_what_cannot_score_tokens_of_the_bridge_is_refused() -> None:
    _, bridge = pair("tiny")
    vector = torch.ones(32)
    for scorer, words in (
        (a_direction(pair("tiny")[0]), "Direction scores no tokens"),
        (LinearProbe(vector, 0.0, 2), r"no hook `blocks\.2\.hook_out`.*layers 0-1"),
        (LinearProbe(torch.ones(40), 0.0, 0), "d_model 40, residuals have 32"),
        (AttentionProbe(vector, vector, 0.0, 0), "does not score single tokens"),
    ):
        with pytest.raises(ModelError, match=words), score_bridge(bridge, scorer):
            pass


def small_sae(d_model: int, hook_name: str) -> Any:
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    config = StandardSAEConfig(
        d_in=d_model, d_sae=3 * d_model, dtype="float64", device="cpu", metadata=SAEMetadata(hook_name=hook_name)
    )
    sae: Any = StandardSAE(config)
    torch.manual_seed(5)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter.data, std=0.2)
    return sae.requires_grad_(False)


@pytest.mark.parametrize("name", EDITED)
def test_a_spliced_sae_agrees(name: str) -> None:
    chat_model, bridge = pair(name)
    sae, chat = small_sae(chat_model.d_model, "blocks.0.hook_resid_post"), chats_of(chat_model)[0]
    with edit_outputs(chat_model, [0], sae), splice_bridge(bridge, sae):
        ours = logits_of(chat_model.model, chat)
        torch.testing.assert_close(ours, logits_of(bridge, chat), **tolerance(name))
    assert (ours - logits_of(chat_model.model, chat)).abs().max() > 0.01


def test_sae_lens_own_bridge_over_the_same_weights_agrees_and_skips_what_is_refused_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge

    chat_model, bridge = pair("tiny")
    theirs: Any = SAETransformerBridge.boot_transformers(
        chat_model.name, hf_model=shared_copy(chat_model.model), tokenizer=bridge.tokenizer, dtype=torch.float64
    )
    chat = chats_of(chat_model)[0]
    ids, plain = torch.tensor([chat.input_ids]), logits_of(bridge, chat)
    for hook_name in ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_out"):
        sae = small_sae(chat_model.d_model, hook_name)
        with torch.no_grad():
            expected = theirs.run_with_saes(ids, saes=[sae])
        with splice_bridge(bridge, sae):
            found = logits_of(bridge, chat)
        assert found.dtype == torch.float64 and (found - plain).abs().max() > 0.01
        torch.testing.assert_close(found, expected, **EXACT)
    sae = small_sae(chat_model.d_model, "blocks.0.hook_residual_post")
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        skipped = theirs.run_with_saes(ids, saes=[sae])
    torch.testing.assert_close(skipped, plain, **EXACT)  # as if there were no SAE
    assert "No hook found for blocks.0.hook_residual_post. Skipping." in caplog.text
    with pytest.raises(ModelError, match=r"no hook `blocks\.0\.hook_residual_post`"), splice_bridge(bridge, sae):
        pass


def test_names_that_the_bridge_lacks_are_refused_where_others_skip_them() -> None:
    chat_model = double()
    bridge: Any = to_transformer_lens(chat_model)
    with pytest.raises(ModelError, match=r"no hook `blocks\.2\.hook_out`.*layers 0-1"):
        bridge_hook(bridge, 2)
    with pytest.raises(ModelError, match="unknown hook point `resid_pst`; did you mean `resid_post`"):
        bridge_hook(bridge, 0, "resid_pst")
    wide = Direction(torch.ones(40) / 40**0.5, 0, raw_norm=1.0, residual_norm=1.0)
    with pytest.raises(ModelError, match="d_model 40, the bridge has 32"), steer_bridge(bridge, wide, 1.0):
        pass


def test_a_model_under_intervention_is_no_model_to_copy() -> None:
    chat_model = double()
    with steer(chat_model, a_direction(chat_model), 1.0), pytest.raises(ModelError, match="modules have hooks"):
        to_transformer_lens(chat_model)


def test_strings_are_tokenised_as_here_and_the_chat_template_stays() -> None:
    chat_model = double()
    bridge: Any = to_transformer_lens(chat_model)
    text = chat_model.tokenizer.decode(chats_of(chat_model)[0].input_ids)
    assert bridge.to_tokens(text)[0].tolist() == list(chats_of(chat_model)[0].input_ids)
    assert bridge.tokenizer.chat_template == chat_model.tokenizer.chat_template


def test_there_and_back_again() -> None:
    chat_model = double()
    bridge: Any = to_transformer_lens(chat_model)
    back = from_transformer_lens(bridge)
    ours, again = (capture_residuals(one, chats_of(one)) for one in (chat_model, back))
    torch.testing.assert_close(ours, again, **EXACT)
    assert chats_of(back) == chats_of(chat_model)
    assert back.model.model.layers[0].mlp.up_proj.weight.data_ptr() == (
        chat_model.model.model.layers[0].mlp.up_proj.weight.data_ptr()
    )
    with pytest.raises(ModelError, match="expected a TransformerBridge"):
        from_transformer_lens(chat_model.model)
    folded: Any = SimpleNamespace(original_model=1, hook_dict={}, compatibility_mode=True, _weights_processed=True)
    with pytest.raises(ModelError, match="compatibility mode"):
        from_transformer_lens(folded)


@pytest.mark.slow
def test_a_model_that_nnsight_holds_is_read_and_steered_as_one_of_ours(tmp_path: Path) -> None:
    from nnsight.modeling.transformers import TransformersModel

    model, tokenizer = tiny_model()
    model.double().eval().set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm: Any = TransformersModel(model, tokenizer=tokenizer)
    chat_model = ChatModel.from_nnsight(lm)
    chats, direction = chats_of(chat_model), a_direction(chat_model)
    ours = capture_residuals(chat_model, chats)
    ids = torch.tensor([chats[0].input_ids])

    def traced() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), lm.trace({"input_ids": ids}):
            last = nnsight.save(lm.model.layers[1].output)
            logits = nnsight.save(lm.output.logits)
        return last[0] if isinstance(last, tuple) else last, logits

    last, plain = traced()
    span = slice(chats[0].response_start, chats[0].response_end)
    torch.testing.assert_close(ours[0, 1], last[0, span].mean(0), **EXACT)
    with steer(chat_model, direction, 0.7):
        steered, logits = traced()
        torch.testing.assert_close(capture_residuals(chat_model, chats, [1])[0, 0], steered[0, span].mean(0), **EXACT)
        torch.testing.assert_close(logits, logits_of(chat_model.model, chats[0]), **EXACT)
    assert (logits - plain).abs().max() > 0.01
    lazy: Any = TransformersModel(str(tmp_path), task="text-generation", tokenizer=tokenizer, dtype=torch.float64)
    assert not lazy.dispatched
    loaded = ChatModel.from_nnsight(lazy)
    loaded.model.set_attn_implementation("eager")
    torch.testing.assert_close(capture_residuals(loaded, chats), ours, **EXACT)


def test_what_is_no_model_is_refused_with_the_right_call() -> None:
    model, tokenizer = tiny_model()
    with pytest.raises(ModelError, match=r"ChatModel\.from_hf"):
        ChatModel.from_nnsight(model)
    with pytest.raises(ModelError, match="tokenizer"):
        ChatModel.from_nnsight(nnsight.NNsight(model))
    assert ChatModel.from_nnsight(nnsight.NNsight(model), tokenizer).n_layers == 2
    with pytest.raises(ModelError, match="HF causal language model"):
        ChatModel.from_hf(torch.nn.Linear(2, 2), tokenizer)
