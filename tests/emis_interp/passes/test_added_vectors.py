"""What another engine can add is compiled with its layers and units, and everything else is refused in words."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from emis_interp.errors import DataError, ModelError
from emis_interp.passes.added_vectors import LLAMA_CPP, VLLM_LENS, Engine, added_vectors, vllm_lens_vectors
from emis_interp.passes.control_vectors import control_vector_arguments, read_control_vector, save_control_vector
from emis_interp.passes.interventions import Ablate, Intervention, Patch, Rescale, Steer

ONE, OTHER = torch.arange(1.0, 9.0), torch.full((8,), -2.0)
ENGINES = (LLAMA_CPP, VLLM_LENS)


@pytest.mark.parametrize("engine", ENGINES)
def test_vectors_keep_their_layers_and_lengths_and_several_at_one_layer_add_up(engine: Engine) -> None:
    found = added_vectors([Steer({5: ONE, 2: OTHER}), Steer({5: OTHER.double()})], engine)
    assert list(found) == [2, 5]
    torch.testing.assert_close(found[2], OTHER)
    torch.testing.assert_close(found[5], ONE + OTHER)
    assert found[5].dtype == torch.float32


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_added_leaves_nothing(engine: Engine) -> None:
    assert added_vectors([], engine) == {}
    assert added_vectors([Steer({0: 0 * ONE}), Steer({3: ONE}), Steer({3: -ONE})], engine) == {}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([Rescale(ONE, 2.0)], "each by its own coordinates, which is no addition; let this process"),
        ([Ablate(ONE)], "an ablation takes from each residual its own coordinate.*orthogonalize"),
        ([Steer({3: OTHER}), Ablate(ONE, layers=(3,))], "ablation"),
        ([Patch(3, (0,), ONE[None])], "puts others in their place"),
        ([Steer({3: ONE}, positions="prompt")], "positions='prompt'"),
        ([Steer({3: ONE}, positions="generated")], "positions='generated'"),
        ([Steer({3: ONE}, positions=4)], "positions=4"),
        ([Steer({3: ONE}, schedule=lambda step: 1.0)], "a schedule is not"),
        ([Steer({3: torch.stack([ONE, OTHER])})], "layer 3 holds 2, one for each"),
        ([Steer({3: ONE}), Steer({3: ONE[:4]})], "vectors of 8 and 4 dimensions"),
        ([Steer({3: ONE, 4: ONE[:4]})], r"vectors of \[4, 8\] dimensions"),
        ([Steer({3: ONE * torch.inf})], "not finite"),
    ],
)
def test_what_is_no_addition_everywhere_is_refused(engine: Engine, items: Sequence[Intervention], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        added_vectors(items, engine)


def test_only_llama_cpp_has_no_place_behind_block_0() -> None:
    with pytest.raises(ModelError, match="blocks 1 and later, not of block 0"):
        added_vectors([Steer({0: ONE})], LLAMA_CPP)
    assert list(added_vectors([Steer({0: ONE})], VLLM_LENS)) == [0]


def test_a_control_vector_file_holds_them_by_block(tmp_path: Path) -> None:
    vectors = added_vectors([Steer({1: ONE, 7: OTHER})], LLAMA_CPP)
    save_control_vector(tmp_path / "v.gguf", vectors, model_type="llama")
    found = read_control_vector(tmp_path / "v.gguf")
    assert list(found) == [1, 7]
    np.testing.assert_array_equal(found[1], ONE.numpy())
    assert control_vector_arguments(tmp_path / "v.gguf") == ["--control-vector", str(tmp_path / "v.gguf")]
    with pytest.raises(DataError, match="comma"):
        control_vector_arguments(tmp_path / "a,b.gguf")


def test_the_wire_form_of_vllm_lens_holds_the_numbers_without_a_scale_of_its_own() -> None:
    assert vllm_lens_vectors({}) == []
    (found,) = json.loads(json.dumps(vllm_lens_vectors({2: OTHER, 5: ONE})))
    held = found.pop("activations")
    assert found == {"layer_indices": [2, 5], "scale": 1.0, "norm_match": False, "position_indices": None}
    assert held["shape"] == [2, 8] and "compression" not in held
    numbers = np.frombuffer(base64.b64decode(held["data"]), dtype=held["dtype"]).reshape(held["shape"])
    np.testing.assert_array_equal(numbers, torch.stack([OTHER, ONE]).numpy())


def test_vllm_lens_reads_the_wire_form() -> None:
    types = pytest.importorskip(
        "vllm_lens", reason="vllm-lens is not installed (Python 3.12, an environment with vLLM)"
    )
    (found,) = vllm_lens_vectors({2: OTHER, 5: ONE})
    read = types.SteeringVector.model_validate(found)
    torch.testing.assert_close(read.activations, torch.stack([OTHER, ONE]), rtol=0, atol=0)
    assert read.layer_index_map == {2: 0, 5: 1} and read.scale == 1 and not read.norm_match
