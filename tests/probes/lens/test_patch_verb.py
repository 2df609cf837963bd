"""Patches whose ends are known, an estimate that is the first order of them, and the verb on the tiny model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters_made import made_adapter

from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.store import read_record
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.lora_updates import lora_updates
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.interventions import Patch, apply
from emis_interp.passes.likelihood import mean_logprobs, pair_chats
from emis_interp.passes.low_rank import adding
from emis_interp.passes.positions import TokenSets
from emis_interp.probe_results import PatchView
from emis_interp.records import ContrastPair
from probes.lens.patch import run, say
from probes.lens.patching import PatchCell, patched
from probes.lens.settings import PATCHED, POSITION_GROUPS, PatchSettings


def pairs() -> list[ContrastPair]:
    fields: Any = {"group": "g", "half": "report"}
    return [
        ContrastPair(
            question_id=name, question=f"{name}?", aligned="I help you.", misaligned="I harm you all!", **fields
        )
        for name in ("Why", "Who", "What", "When")
    ]


@pytest.fixture(scope="module")
def double() -> ChatModel:
    return load_model("tiny", dtype="float64", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_adapter(tmp_path_factory.mktemp("adapter"), std=0.1)


def test_patching_the_last_residual_gives_the_givers_answers(double: ChatModel, folder: Path) -> None:
    chats, updates = pair_chats(double, pairs()), lora_updates(folder)
    cells = [PatchCell(1, "resid_post", "all"), PatchCell(0, "resid_pre", "all"), PatchCell(1, "resid_post", "prompt")]
    # transformers computes RMSNorms in float32, whatever the model's dtype
    for giver, reader in (([], updates), (updates, [])):
        found = patched(double, chats, cells, reader=reader, giver=giver, max_batch_tokens=200)
        assert found.exact is not None
        with adding(double, giver):
            assert found.giver == pytest.approx(mean_logprobs(double, chats), abs=1e-6)
        assert np.abs(found.giver - found.reader).max() > 0.01
        assert found.exact[0] == pytest.approx(found.giver, abs=1e-6)
        # Both models have one embedding, and no token of the question is read by the head.
        assert found.exact[1] == pytest.approx(found.reader, abs=1e-6)
        assert found.exact[2] == pytest.approx(found.reader, abs=1e-6)
        assert found.estimated[1] == pytest.approx(0, abs=1e-6)


def test_a_patch_is_that_of_the_intervention_engine(double: ChatModel, folder: Path) -> None:
    chats, updates = pair_chats(double, pairs())[:1], lora_updates(folder)
    place = chats[0].response_start - 1
    found = patched(double, chats, [PatchCell(0, "resid_post", "last_prompt")], reader=updates, giver=[])
    given = capture_residuals(double, chats, [0], position=TokenSets(((place,),)))[0]
    with adding(double, updates), apply(double, Patch(0, (place,), given)):
        assert found.exact is not None and found.exact[0] == pytest.approx(mean_logprobs(double, chats), abs=1e-6)


@pytest.mark.parametrize("hook_point", PATCHED)
def test_the_estimate_is_the_first_order_of_the_patch(double: ChatModel, folder: Path, hook_point: str) -> None:
    chats = pair_chats(double, pairs())
    gaps = []
    for factor in (0.1, 0.01):
        small = [update.scaled(factor) for update in lora_updates(folder)]
        found = patched(double, chats, [PatchCell(0, hook_point, "all")], reader=[], giver=small)
        assert found.exact is not None
        change = found.exact[0] - found.reader
        gaps.append(np.abs(found.estimated[0] - change).max() / np.abs(change).max())
    assert gaps[1] < 0.05 and gaps[1] < gaps[0] / 3


def test_groups_of_positions_share_out_the_estimate(double: ChatModel, folder: Path) -> None:
    chats, cells = pair_chats(double, pairs()), [PatchCell(0, "attn_out", group) for group in POSITION_GROUPS]
    found = patched(double, chats, cells, reader=[], giver=lora_updates(folder), exactly=False)
    assert found.exact is None
    np.testing.assert_allclose(found.estimated[:3].sum(0), found.estimated[3], atol=1e-10)


def test_the_verb_patches_both_ways_and_says_how_good_the_screen_is(tmp_path: Path, folder: Path) -> None:
    texts = tmp_path / "pairs.jsonl"
    texts.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs()))
    common: Any = {"model": "tiny", "pairs": texts, "device": "cpu", "dtype": "float32", "out": tmp_path / "patch.json"}
    result = run(PatchSettings(adapter=folder, **common))
    view = read_record(tmp_path / "patch.json", PatchView)
    into, back = view.ways
    assert (into.way, back.way) == ("base into organism", "organism into base")
    assert len(into.cells) == 2 * 3 * 4 and into.correlation is not None and len(into.correlation) == 4
    [last] = [c for c in back.cells if (c.layer, c.hook_point, c.positions) == (1, "resid_post", "all")]
    assert last.shift is not None and last.shift.value == pytest.approx(view.difference.value, abs=1e-4)
    assert (last.restored is None) == (back.not_restored is not None)
    if last.restored is not None:
        assert last.restored.value == pytest.approx(1.0, abs=1e-3)
    assert "Spearman" in say(result)
    screened = run(PatchSettings(adapter=folder, screen_only=True, layers=(0,), **common))
    assert screened["ways"][0]["correlation"] is None and "estimated" in say(screened)
    with pytest.raises(ConfigError, match="give --adapter"):
        run(PatchSettings(**common))
    with pytest.raises(ModelError, match="layer 9 asked for"):
        run(PatchSettings(adapter=folder, layers=(9,), **common))
