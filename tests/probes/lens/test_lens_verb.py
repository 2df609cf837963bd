"""Attribution whose parts sum to the margin, the lens whose last layer is the model, and the verb on the tiny model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters_made import made_adapter
from families import family

from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.store import read_record
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import lora_updates
from emis_interp.passes.likelihood import by_question, mean_logprobs, pair_chats, pair_margins
from emis_interp.passes.low_rank import adding
from emis_interp.probe_results import LensView
from emis_interp.records import ContrastPair
from probes.lens.attribution import attribute
from probes.lens.by_layer import lens_logprobs, token_row
from probes.lens.look import run, say
from probes.lens.margins import question_margins
from probes.lens.settings import LensSettings


def pairs() -> list[ContrastPair]:
    fields: Any = {"group": "g", "half": "report"}
    return [
        ContrastPair(question_id=name, question=f"{name}?", aligned=f"I help {i}.", misaligned="I harm you!", **fields)
        for name in ("Why", "Who", "What")
        for i in range(2)
    ]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt2", "neox"])
def test_the_parts_sum_to_the_log_probability_of_another_route(name: str) -> None:
    chat_model = family(name, torch.float64)
    chats = pair_chats(chat_model, pairs())
    found = attribute(chat_model, chats, max_batch_tokens=100)
    expected = mean_logprobs(chat_model, chats)
    np.testing.assert_allclose(found.logprobs, expected, atol=1e-6)
    # transformers computes RMSNorms and rotations in float32
    np.testing.assert_allclose(found.parts.sum(1), expected, atol=1e-5)
    assert found.names[0] == "embedding" and found.names[-1] == "entropy"
    assert ("bias of the final norm" in found.names) == (name in ("gpt2", "neox"))
    assert np.abs(found.parts).min(0).max() > 0.01


def test_margins_by_question_are_those_of_the_pairs(tiny: ChatModel) -> None:
    chats = pair_chats(tiny, pairs())
    found = question_margins(pairs(), mean_logprobs(tiny, chats)[None])[0]
    assert found.tolist() == pytest.approx(list(by_question(pairs(), pair_margins(tiny, pairs())).values()))


def test_a_capped_head_is_refused() -> None:
    chat_model = family("gemma2", torch.float64)
    with pytest.raises(ModelError, match="not linear"):
        attribute(chat_model, pair_chats(chat_model, pairs()))


def test_the_entropy_part_is_what_a_uniform_model_has(tiny: ChatModel) -> None:
    """A head of zeros says everything with one probability: no part but the entropy, which is the logarithm of the vocabulary."""
    chat_model = family("llama", torch.float64, tie_word_embeddings=False)
    chat_model.model.lm_head.weight.data.zero_()
    found = attribute(chat_model, pair_chats(chat_model, pairs()))
    assert found.parts[:, :-1] == pytest.approx(0)
    assert found.parts[:, -1] == pytest.approx(-np.log(chat_model.model.config.vocab_size))


def test_the_last_layer_of_the_lens_is_the_model(tiny: ChatModel) -> None:
    chats = pair_chats(tiny, pairs())
    found, means = lens_logprobs(tiny, chats, [1, 0], max_batch_tokens=100)
    assert found[0] == pytest.approx(mean_logprobs(tiny, chats), abs=1e-5)
    assert np.abs(found[1] - found[0]).max() > 0.01 and means.shape == (2, 32)


def test_the_top_token_of_a_planted_vector_is_its_own_and_stands_out() -> None:
    chat_model = family("llama", torch.float64, tie_word_embeddings=False)
    norm, head = chat_model.model.model.norm.weight, chat_model.model.lm_head.weight
    vector = (head[70] / norm) / (head[70] / norm).norm()
    noise = torch.nn.functional.normalize(torch.randn(20, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    row = token_row(chat_model, vector, 3, controls={"random": noise})
    assert row["top_tokens"][0] == chat_model.tokenizer.decode([70])
    assert row["extremity"]["controls"]["random"]["p_at_floor"]


def test_the_verb_writes_parts_that_sum(tmp_path: Path) -> None:
    organism, control = made_adapter(tmp_path / "o"), made_adapter(tmp_path / "c", seed=1)
    texts = tmp_path / "pairs.jsonl"
    texts.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs()))
    common: Any = {"model": "tiny", "pairs": texts, "device": "cpu", "dtype": "float32", "out": tmp_path / "lens.json"}
    result = run(LensSettings(adapter=organism, control=control, layers=(0, 1), **common))
    view = read_record(tmp_path / "lens.json", LensView)
    *parts, total = view.attribution
    for arm in ("base", "organism", "organism_shift", "control_shift"):
        assert sum(getattr(part, arm).value for part in parts) == pytest.approx(getattr(total, arm).value, abs=1e-4)
    assert total.organism is not None and total.organism_shift is not None and view.lens[1].organism is not None
    base: Any = LensSettings(**common).spec.load_base()
    with adding(base, lora_updates(organism)):
        expected = np.mean(list(by_question(pairs(), pair_margins(base, pairs())).values()))
    assert total.organism.value == pytest.approx(expected, abs=1e-4)
    assert view.lens[1].organism.value == pytest.approx(expected, abs=1e-4)
    assert {row.of for row in view.tokens} == {"organism minus base", "control minus base"}
    assert "what each part adds to the margin" in say(result)
    assert len(run(LensSettings(**common))["lens"]) == 2
    with pytest.raises(ConfigError, match="give --adapter too"):
        run(LensSettings(control=control, **common))
    with pytest.raises(ModelError, match="layer 7 asked for"):
        run(LensSettings(layers=(7,), **common))
