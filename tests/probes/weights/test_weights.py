"""Adapters taken apart: planted spectra, planted writes, parts that add up, and the whole verb on the tiny model."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from adapters_made import made_adapter, planted_rank_one

from emis_interp.directions import Direction, FittedOn, wording_key
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.store import read_record
from emis_interp.files.tensors import save_tensors
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, lora_updates
from emis_interp.passes.likelihood import by_question, pair_chats, pair_margins
from emis_interp.passes.low_rank import adding
from emis_interp.probe_results import WeightsView
from emis_interp.records import ContrastPair
from probes.weights.anatomy import run, say
from probes.weights.components import component_rows, firings, strongest
from probes.weights.settings import WeightsSettings
from probes.weights.spectra import effective_rank, similarity, stable_rank
from probes.weights.switching import MarginReader, arithmetic, layer_groups, switched
from probes.weights.writes import along_direction, mean_writes, share_along

DOWN = "model.layers.1.mlp.down_proj"


def pairs(half: Literal["selection", "report"] = "report") -> list[ContrastPair]:
    return [
        ContrastPair(
            question_id=f"{name}-{half}",
            question=f"{name} {half}?",
            aligned=f"I help {i}.",
            misaligned="I harm!",
            group="g",
            half=half,
        )
        for name in ("Why", "Who", "What")
        for i in range(2)
    ]


def update(up: torch.Tensor, down: torch.Tensor, path: str = DOWN) -> LoraUpdate:
    return LoraUpdate(path, 1, "down_proj", down, up, True)


def test_ranks_of_known_spectra() -> None:
    assert stable_rank(torch.ones(5)) == pytest.approx(5) and effective_rank(torch.ones(5)) == pytest.approx(5)
    one = torch.tensor([3.0, 0.0, 0.0])
    assert stable_rank(one) == pytest.approx(1) and effective_rank(one) == pytest.approx(1)
    assert stable_rank(torch.tensor([2.0, 1.0])) == pytest.approx(1.25)


def test_the_share_along_a_planted_direction() -> None:
    axes, read = torch.eye(6), torch.randn(2, 9)
    read = torch.linalg.qr(read.T)[0].T
    planted = update(torch.stack([2 * axes[0], axes[1]], dim=1), read)
    found = share_along([planted], torch.stack([axes[0], axes[1], axes[2]]))
    assert found.tolist() == pytest.approx([0.8, 0.2, 0.0], abs=1e-6)
    isotropic = share_along([planted], random_directions(4000, 1, 6, seed=0)[:, 0])
    assert float(isotropic.mean()) == pytest.approx(1 / 6, rel=0.05)


def test_what_is_written_is_the_difference_that_the_module_makes(tiny: ChatModel, tmp_path: Path) -> None:
    updates = lora_updates(made_adapter(tmp_path, target_modules=["down_proj", "q_proj"]))
    chats = pair_chats(tiny, pairs())
    found = mean_writes(tiny, updates, chats, max_batch_tokens=200)
    expected = []
    module = tiny.model.model.layers[0].mlp.down_proj
    first = next(one for one in updates if one.writes)
    for chat in chats:
        seen: list[torch.Tensor] = []
        with adding(tiny, updates):
            handle = module.register_forward_hook(lambda m, x, y, seen=seen: seen.extend([x[0], y]))
            with torch.no_grad():
                tiny.model(torch.tensor([chat.input_ids]))
            handle.remove()
        # The update's hook runs first, so y holds it; the bare module gives the rest.
        added = seen[1] - torch.nn.functional.linear(seen[0], module.weight)
        expected.append(added[0, chat.response_start : chat.response_end].mean(0))
    assert first.path == "model.layers.0.mlp.down_proj"
    torch.testing.assert_close(found[0].float(), torch.stack(expected).mean(0), rtol=1e-3, atol=1e-5)


def test_a_direction_that_is_written_stands_out_among_controls(tiny: ChatModel, tmp_path: Path) -> None:
    direction = torch.eye(32)[3]
    folder = planted_rank_one(
        tmp_path, read=torch.ones(64), write=direction + 0.01 * torch.ones(32), path="layers.1.mlp.down_proj"
    )
    updates = lora_updates(folder)
    written = mean_writes(tiny, updates, pair_chats(tiny, pairs()))
    found = along_direction(
        updates, written, direction, controls={"random": random_directions(20, 1, 32, seed=1)[:, 0]}
    )
    assert found["share"]["value"] > 0.98 and found["share"]["controls"]["random"]["p"] == pytest.approx(1 / 21)
    assert abs(found["written"]["value"]) > 0.98 and found["written"]["controls"]["random"]["p_at_floor"]
    assert found["rows"][0]["first_cosine"] == pytest.approx(abs(found["rows"][0]["written_cosine"]), abs=1e-5)


def test_a_planted_rank_one_component_is_found_whole(tiny: ChatModel, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    read, write = torch.randn(64, generator=generator), torch.randn(32, generator=generator)
    folder = planted_rank_one(tmp_path, read=read, write=write, path="layers.1.mlp.down_proj")
    updates = lora_updates(folder)
    [component] = strongest(updates, 6)
    assert component.share == pytest.approx(1.0)
    torch.testing.assert_close(
        torch.outer(component.write, component.read), torch.outer(write, read), rtol=0, atol=1e-4
    )
    chats = pair_chats(tiny, pairs())
    fired = firings(tiny, updates, [component], chats=chats, max_batch_tokens=100)
    seen: list[torch.Tensor] = []
    with adding(tiny, updates):
        handle = tiny.model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
        with torch.no_grad():
            tiny.model(torch.tensor([chats[3].input_ids]))
        handle.remove()
    torch.testing.assert_close(fired[0][3], seen[0][0] @ component.read, rtol=1e-4, atol=1e-5)
    [row] = component_rows(
        tiny,
        [component],
        fired,
        chats=chats,
        questions=[p.question_id for p in pairs()],
        direction=write / write.norm(),
    )
    assert row["mean_firing"] >= 0 and abs(row["write_cosine"]) == pytest.approx(1.0, abs=1e-5)
    strongest_token = max(float(one.abs().max()) for one in fired[0])
    assert 0 < row["fires_on"][0]["firing"] <= strongest_token + 1e-6
    assert len(row["top_tokens"]) == 8 and len(row["fires_on"]) == 8


def test_parts_switched_on_and_off_are_the_two_ends(tiny: ChatModel, tmp_path: Path) -> None:
    updates = lora_updates(made_adapter(tmp_path))
    margins = MarginReader(tiny, pairs(), None, 2048, lambda n: None)
    base, whole = margins.under([]), margins.under(updates)
    assert base == pytest.approx(by_question(pairs(), pair_margins(tiny, pairs())))
    assert layer_groups(updates, 1) == [(0,), (1,)] and layer_groups(updates, 2) == [(0, 1)]
    everything, *_ = switched(margins, updates, [(0, 1)], base=base, whole=whole)
    shift = np.mean([whole[q] - base[q] for q in base])
    assert everything["alone"]["value"] == pytest.approx(shift, abs=1e-5)
    assert everything["off"]["value"] == pytest.approx(-shift, abs=1e-5)
    one, other, *kinds = switched(margins, updates, [(0,), (1,)], base=base, whole=whole)
    # With two layers, what is left when one is off is the other alone.
    assert one["off"]["value"] == pytest.approx(other["alone"]["value"] - shift, abs=1e-5)
    assert {row["name"] for row in kinds} == {"writes to the stream", "reads from it", "attention", "MLP"}
    with pytest.raises(ConfigError, match="1 layer or more"):
        layer_groups(updates, 0)


def test_an_organism_minus_itself_moves_nothing(tiny: ChatModel, tmp_path: Path) -> None:
    updates = lora_updates(made_adapter(tmp_path))
    margins = MarginReader(tiny, pairs(), None, 2048, lambda n: None)
    base = margins.under([])
    found = arithmetic(margins, updates, updates, base=base, ranks=(2,))
    cells = {cell["name"]: cell for cell in found["cells"]}
    assert cells["organism minus control"]["shift"]["value"] == pytest.approx(0, abs=1e-5)
    assert cells["organism minus control"]["kl"] == pytest.approx(0, abs=1e-5)
    assert cells["organism, rank 2"]["shift"]["value"] == pytest.approx(cells["organism"]["shift"]["value"], abs=1e-5)
    assert cells["organism"]["kl"] > 0.01
    assert found["beyond_sum"]["value"] == pytest.approx(0, abs=1e-5)


def test_cosines_stand_beside_permuted_adapters(tmp_path: Path) -> None:
    one, other = (lora_updates(made_adapter(tmp_path / str(i), seed=i)) for i in (0, 1))
    same, different = similarity(one, one), similarity(one, other)
    assert same["cosine"] == pytest.approx(1.0) and same["p_at_floor"] and same["read_cosine"] == pytest.approx(1.0)
    assert abs(different["cosine"]) < 0.2 and not different["p_at_floor"]
    assert set(same["by_layer"]) == {"0", "1"}


def saved_direction(folder: Path, seen: list[str]) -> Path:
    vectors = random_directions(5, 1, 32, seed=4)[:, 0]
    fitted = FittedOn(tuple(seen), frozenset(map(wording_key, seen)))
    direction = Direction(vectors[0], 1, raw_norm=1.0, residual_norm=2.0, fitted_on=fitted)
    direction.save(folder / "direction", direction)
    save_tensors(
        folder / "controls.safetensors", {"random": vectors[1:3].clone(), "orthogonal": vectors[3:].clone()}, {}
    )
    return folder


def test_the_verb_writes_a_record_that_can_be_read_and_said(tmp_path: Path) -> None:
    organism, control = made_adapter(tmp_path / "o"), made_adapter(tmp_path / "c", seed=1)
    texts = tmp_path / "pairs.jsonl"
    texts.write_text("".join(pair.model_dump_json() + "\n" for half in ("selection", "report") for pair in pairs(half)))
    settings = WeightsSettings(
        model="tiny",
        adapter=organism,
        control=control,
        direction=saved_direction(tmp_path / "d", ["Other?"]),
        pairs=texts,
        ranks=(1,),
        device="cpu",
        dtype="float32",
        out=tmp_path / "weights.json",
    )
    result = run(settings)
    view = read_record(tmp_path / "weights.json", WeightsView)
    assert (view.n_questions, view.n_pairs) == (3, 6)
    assert len(view.organism.modules) == 14 and view.control is not None and view.organism.along is not None
    assert set(view.organism.along.share.controls) == {"random", "orthogonal"}
    assert {cell.name for cell in view.arithmetic.cells} >= {
        "organism",
        "control",
        "organism minus control",
        "organism, rank 1",
    }
    text = say(result)
    assert "organism against control" in text and "along the direction (of layer 1)" in text
    with pytest.raises(ConfigError, match="give --adapter"):
        run(WeightsSettings(model="tiny"))
    with pytest.raises(DataError, match="had a part in the direction"):
        seen = saved_direction(tmp_path / "seen", ["Why report?"])
        run(WeightsSettings(model="tiny", adapter=organism, direction=seen, pairs=texts))
