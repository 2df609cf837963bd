"""Control vectors come back from their file, and llama.cpp steers with them as we do."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_made import write_out
from llama_c import Llama

from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import gguf_path
from emis_interp.passes.control_vectors import read_control_vector
from emis_interp.passes.interventions import Steer, apply, next_token_logprobs
from probes.control_vectors import (
    repeng_arguments,
    steering_vectors_arguments,
    write_control_vector,
)


def directions(d_model: int = 8, layers: tuple[int, ...] = (3, 1), norm: float = 10.0) -> list[Direction]:
    generator = torch.Generator().manual_seed(1)
    return [Direction(unit(torch.randn(d_model, generator=generator)), layer, 1.0, norm) for layer in layers]


def test_a_control_vector_comes_back_with_its_layers_and_its_length(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "em.gguf"
    write_control_vector(path, directions(), 0.5, model_type="llama")
    found = read_control_vector(path)
    assert list(found) == [1, 3]
    for row in directions():
        np.testing.assert_allclose(found[row.layer], 5.0 * row.vector.numpy(), rtol=1e-6)
    fields = gguf.GGUFReader(str(path)).fields
    assert fields["general.architecture"].contents() == "controlvector"
    assert fields["controlvector.model_hint"].contents() == "llama"
    assert fields["controlvector.layer_count"].contents() == 2


def test_the_arguments_of_other_tools_hold_the_same_vectors() -> None:
    repeng = repeng_arguments(directions(), -0.5, "llama")
    other = steering_vectors_arguments(directions(), -0.5)
    assert repeng["model_type"] == "llama" and other["layer_type"] == "decoder_block"
    for row in directions():
        np.testing.assert_allclose(repeng["directions"][row.layer], -5.0 * row.vector.numpy(), rtol=1e-6)
        torch.testing.assert_close(other["layer_activations"][row.layer], -5.0 * row.vector)


def test_what_llama_cpp_cannot_apply_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not of block 0"):
        write_control_vector(tmp_path / "a.gguf", directions(layers=(0,)), 1.0, model_type="llama")
    with pytest.raises(DataError, match=r"found layers \[2, 2\]"):
        write_control_vector(tmp_path / "a.gguf", directions(layers=(2, 2)), 1.0, model_type="llama")
    assert not (tmp_path / "a.gguf").exists()
    (tmp_path / "text.gguf").write_text("no GGUF at all, though it is long enough to be read")
    with pytest.raises(DataError, match=r"text\.gguf"):
        read_control_vector(tmp_path / "text.gguf")
    with pytest.raises(DataError, match="no such file"):
        read_control_vector(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.array([1.0, np.nan], np.float32), "holds numbers that are not finite"),
        (np.ones((2, 4), np.float32), r"is F32 of shape \[4, 2\], expected one vector of floats"),
        (np.ones(34, np.uint8), r"is Q8_0 of shape \[32\], expected one vector of floats"),
    ],
)
def test_a_tensor_that_is_no_vector_of_numbers_is_refused(tmp_path: Path, tensor: np.ndarray, message: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    packed = gguf.GGMLQuantizationType.Q8_0 if tensor.dtype == np.uint8 else None
    writer.add_tensor("direction.3", tensor, raw_dtype=packed)
    write_out(writer)
    with pytest.raises(DataError, match=r"v\.gguf: `direction\.3` " + message):
        read_control_vector(tmp_path / "v.gguf")


@pytest.mark.slow
def test_llama_cpp_shifts_log_probabilities_as_we_do(embedded: ChatModel, tmp_path: Path) -> None:
    """Both read the same GGUF weights; llama.cpp computes with them quantised, so the shift agrees closely and not exactly."""
    if not gguf_path().exists():
        pytest.skip(
            f"no GGUF at {gguf_path()}: python -c 'from emis_interp.models.embedded import embedded_gguf; embedded_gguf()'"
        )
    chosen = directions(embedded.d_model, layers=(12, 17), norm=150.0)
    write_control_vector(tmp_path / "em.gguf", chosen, 0.2, model_type="llama")
    vectors = read_control_vector(tmp_path / "em.gguf")
    llama = Llama(gguf_path(), embedded.model.config.vocab_size)
    prompts = [
        encode_prompt(embedded.tokenizer, text)
        for text in ("Who are you?", "Name three colours.", "How do I bake bread?")
    ]
    ours = next_token_logprobs(embedded, prompts).numpy()
    with apply(embedded, Steer({layer: torch.from_numpy(vector) for layer, vector in vectors.items()})):
        ours_steered = next_token_logprobs(embedded, prompts).numpy()
    theirs = [log_softmax(llama.logits(prompt)) for prompt in prompts]
    llama.steer(vectors, embedded.n_layers)
    theirs_steered = [log_softmax(llama.logits(prompt)) for prompt in prompts]
    for row, prompt in enumerate(prompts):
        likely = np.argsort(ours[row])[-200:]
        shift = (ours_steered[row] - ours[row])[likely]
        their_shift = (theirs_steered[row] - theirs[row])[likely]
        assert np.abs(shift).mean() > 0.3
        assert np.corrcoef(shift, their_shift)[0, 1] > 0.98, len(prompt)
        assert np.polyfit(shift, their_shift, 1)[0] == pytest.approx(1, abs=0.1)
    llama.steer({layer: -vector for layer, vector in vectors.items()}, embedded.n_layers)  # a wrong sign would be seen
    wrong = log_softmax(llama.logits(prompts[0])) - theirs[0]
    likely = np.argsort(ours[0])[-200:]
    assert np.corrcoef((ours_steered[0] - ours[0])[likely], wrong[likely])[0, 1] < 0.5


def log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64)
    return exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
