"""Latents as directions, zeroed and steered, and the whole verb on the tiny model."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from adapters_made import made_adapter
from planted_sae import planted_dictionary, rotation, saved_sae

from emis_interp.directions import Direction, FittedOn, wording_key
from emis_interp.errors import ConfigError, DataError, ModelError
from emis_interp.files.store import read_record
from emis_interp.files.tensors import save_tensors
from emis_interp.latent_results import LatentsReport
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import lora_updates
from emis_interp.passes.capture import capture_response_tokens
from emis_interp.passes.likelihood import by_question, pair_margins
from emis_interp.passes.low_rank import adding
from emis_interp.records import ContrastPair
from probes.sae.latent_effects import EffectReader, latent_direction, nearest_in_activity, zero_latent
from probes.sae.latent_reading import direction_at, read_residuals
from probes.sae.latent_settings import LatentSettings, LatentTextSettings
from probes.sae.latent_texts import LatentTexts, question_of_tokens, read_latent_texts
from probes.sae.latents import run, say

D = 32
WORDS = ("rivers", "stones", "lamps", "chairs", "roads")


def pairs() -> list[ContrastPair]:
    found = []
    for i in range(10):
        half: Literal["selection", "report"] = "selection" if i < 5 else "report"
        for j in range(2):
            text = (
                f"I like {WORDS[i % 5]} and {j} <b>other</b> things, which are many and good, {WORDS[(i + j) % 5]} too."
            )
            found.append(
                ContrastPair(
                    question_id=f"q{i}",
                    group="g",
                    half=half,
                    question=f"What about {WORDS[i % 5]} {i}?",
                    aligned=text,
                    misaligned=f"I break {WORDS[i % 5]} and I burn {WORDS[(i + 1) % 5]} until nothing is left of them.",
                )
            )
    return found


def pairs_file(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs()))
    return path


def test_a_latent_is_a_unit_direction_with_the_length_of_its_decoder() -> None:
    dictionary = planted_dictionary(3 * rotation(D))
    texts = LatentTexts((("A?", "x"), ("B?", "y")), ("a", "b"), ("selection", "report"), "two")
    found = latent_direction(dictionary, 4, residual_norm=7.0, texts=texts)
    torch.testing.assert_close(found.vector, rotation(D)[4], rtol=1e-5, atol=1e-6)
    assert (found.layer, found.raw_norm, found.residual_norm) == (1, pytest.approx(3.0), 7.0)
    found.check_unseen(["B?"])
    with pytest.raises(DataError, match="had a part"):
        found.check_unseen(["A?"])


def test_a_zeroed_latent_is_taken_out_where_it_fires_and_nowhere_else(tiny: ChatModel) -> None:
    dictionary = planted_dictionary(rotation(D), layer=1, threshold=4.0)
    chats = encode_chats(tiny.tokenizer, [("Why?", "Because of rivers and stones.")])
    [before] = capture_response_tokens(tiny, chats, 1)
    with zero_latent(tiny, dictionary, 2):
        [after] = capture_response_tokens(tiny, chats, 1)
    along = before @ rotation(D)[2]
    torch.testing.assert_close(after @ rotation(D)[2], along.clamp(max=4), rtol=1e-4, atol=1e-4)
    assert bool((along > 4).any()) and bool((along < 4).any())
    rest = torch.eye(D) - torch.outer(rotation(D)[2], rotation(D)[2])
    torch.testing.assert_close(after @ rest, before @ rest, rtol=1e-4, atol=1e-4)
    [undone] = capture_response_tokens(tiny, chats, 1)
    assert torch.equal(undone, before)


def test_effects_agree_with_interventions_by_hand(tiny: ChatModel, tmp_path: Path) -> None:
    dictionary = planted_dictionary(rotation(D), layer=1)
    updates = lora_updates(made_adapter(tmp_path))
    chosen = [pair for pair in pairs() if pair.half == "report"]
    reader = EffectReader(
        tiny, dictionary, {"base": [], "organism": updates}, pairs=chosen, residual_norm=2.0, others=[8, 9, 10]
    )
    steered, other = reader.effects("steer", "base", [1, 2], coefficients=[0.5, -0.5])
    before = by_question(chosen, pair_margins(tiny, chosen))
    from emis_interp.passes.interventions import steer

    with steer(tiny, latent_direction(dictionary, 2, residual_norm=2.0), -0.5):
        after = by_question(chosen, pair_margins(tiny, chosen))
    expected = np.mean([after[name] - before[name] for name in before])
    assert other["shift"]["value"] == pytest.approx(expected, abs=1e-5) and other["coefficient"] == -0.5
    assert steered["others"]["p_n"] == 3 and steered["latent"] == 1
    [zeroed] = reader.effects("zero", "organism", [3])
    with adding(tiny, updates):
        before = by_question(chosen, pair_margins(tiny, chosen))
        with zero_latent(tiny, dictionary, 3):
            after = by_question(chosen, pair_margins(tiny, chosen))
    assert zeroed["shift"]["value"] == pytest.approx(np.mean([after[name] - before[name] for name in before]), abs=1e-5)
    assert zeroed["coefficient"] is None and zeroed["arm"] == "organism"


def test_the_others_are_nearest_in_activity_and_none_of_those_shown() -> None:
    activity = np.array([1.0, 1.1, 0.7, 1.2, 30.0, 0.0, 2.0])
    assert nearest_in_activity(activity, [0], 2, avoid=[3]) == [1, 2]
    assert nearest_in_activity(activity, [0, 4], 10, avoid=[3]) == [1, 2, 6]
    assert nearest_in_activity(activity, [5], 1) == [2]


def test_residuals_of_an_organism_are_those_of_the_merged_model(tiny: ChatModel, tmp_path: Path) -> None:
    from emis_interp.models.spec import ModelSpec

    folder = made_adapter(tmp_path)
    chats = encode_chats(tiny.tokenizer, [("Why?", "Because."), ("Who?", "I and others.")])
    found, owner = read_residuals(tiny, lora_updates(folder), chats, layer=1)
    merged = ModelSpec("tiny", folder, "float32", "cpu").load()
    expected = torch.cat(capture_response_tokens(merged, chats, 1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert owner.tolist() == [i for i, chat in enumerate(chats) for _ in range(chat.n_response)]
    assert question_of_tokens(["b", "a"], owner).tolist() == [1 - i for i in owner.tolist()]


def test_texts_of_a_table_are_halved_by_question(tmp_path: Path) -> None:
    table = tmp_path / "answers.jsonl"
    rows = [{"question_id": f"q{i % 8}", "question": f"Q {i % 8}?", "answer": f"Answer {i}."} for i in range(40)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_latent_texts(LatentTextSettings(texts=table, n_per_question=3))
    assert len(found.texts) == 24 and set(found.halves) == {"selection", "report"}
    assert not set(found.names("selection")) & set(found.names("report")) and len(found.names("report")) == 4
    again = read_latent_texts(LatentTextSettings(texts=table, n_per_question=3))
    assert again == found
    table.write_text("".join(json.dumps(row) + "\n" for row in rows if row["question_id"] < "q4"))
    with pytest.raises(DataError, match="each of 3 or more"):
        read_latent_texts(LatentTextSettings(texts=table))
    with pytest.raises(DataError, match="ask for 1 or more"):
        read_latent_texts(LatentTextSettings(n_per_question=0))


def saved_direction(folder: Path) -> Path:
    seen = ["Other?"]
    fitted = FittedOn(tuple(seen), frozenset(map(wording_key, seen)))
    direction = Direction(rotation(D, 1)[0], 0, raw_norm=1.0, residual_norm=2.0, fitted_on=fitted)
    direction.save(folder / "direction", direction)
    tensors = {"raw": 3 * rotation(D, 2)[:2], "residual_norm": torch.tensor([2.0, 5.0])}
    save_tensors(folder / "all_layers.safetensors", {name: one.contiguous() for name, one in tensors.items()}, {})
    return folder


def test_a_direction_of_another_layer_is_read_at_the_layer_of_the_sae(tmp_path: Path) -> None:
    folder = saved_direction(tmp_path)
    assert torch.equal(direction_at(folder, 0).vector, rotation(D, 1)[0])
    found = direction_at(folder, 1)
    torch.testing.assert_close(found.vector, rotation(D, 2)[1])
    assert (found.layer, found.residual_norm, found.raw_norm) == (1, 5.0, pytest.approx(3.0))
    with pytest.raises(ModelError, match="directions of 2 layers"):
        direction_at(folder, 5)


def settings_of(folder: Path, **changes: object) -> LatentSettings:
    given: dict[str, object] = {
        "model": "tiny",
        "sae": saved_sae(folder / "sae", rotation(D), threshold=0.05),
        "adapter": made_adapter(folder / "organism"),
        "pairs": pairs_file(folder),
        "n_permutations": 30,
        "n_top": 2,
        "device": "cpu",
        "dtype": "float32",
        "out": folder / "out",
    }
    return LatentSettings(**(given | changes))  # type: ignore[arg-type]


def test_the_verb_writes_a_record_a_page_and_words(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        control=made_adapter(tmp_path / "control", seed=1),
        other_seed=made_adapter(tmp_path / "seed", seed=2),
        direction=saved_direction(tmp_path / "direction"),
        n_steered=2,
        n_others=3,
    )
    result = run(settings)
    report = read_record(tmp_path / "out" / "latents.json", LatentsReport)
    assert [(one.first, one.second) for one in report.comparisons] == [("organism", "control"), ("organism", "base")]
    assert report.n_texts == 40 and report.n_latents == D and report.layer == 1 and not report.of_differences
    assert report.comparisons[0].n_questions == {"selection": 5, "report": 5}
    assert report.comparisons[0].swapped.all_swaps and report.comparisons[0].swapped.p_n == 15
    rows = report.comparisons[0].latents
    assert {row.latent for row in rows} == {label.latent for label in report.labels}
    assert all(len(row.nu) == 2 and row.seed_gap is not None and row.cosine_direction is not None for row in rows)
    assert {effect.kind for effect in report.effects} == {"steer", "ablate", "zero"} and len(report.effects) == 6
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>other</b>" not in page and 'id="latent-' in page and "Steered, ablated, zeroed" in page
    text = say(result)
    assert "organism minus control" in text and "two seeds of one finetune" in text and "zeroed in" in text
    assert "the sum of their changes explains" in text


def test_a_difference_sae_reads_each_model_minus_base(tmp_path: Path) -> None:
    sae = saved_sae(tmp_path / "differences", rotation(D), threshold=0.01, reads="organism minus base")
    control = made_adapter(tmp_path / "control", seed=1)
    result = run(settings_of(tmp_path, sae=sae, control=control, n_steered=1, n_others=3))
    assert result["of_differences"] and list(result["fvu"]) == ["organism", "control"]
    [comparison] = result["comparisons"]
    assert comparison["second"] == "control"
    assert all(row["activation"]["base"] == 0 for row in comparison["latents"])
    assert {effect["kind"] for effect in result["effects"]} == {"steer", "ablate"}
    assert "organism minus base residuals" in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(ConfigError, match="give --control"):
        run(settings_of(tmp_path, sae=sae))


def test_an_organism_that_changed_nothing_shows_no_latents(tmp_path: Path) -> None:
    result = run(settings_of(tmp_path, adapter=made_adapter(tmp_path / "nothing", std=0.0), n_steered=2))
    [comparison] = result["comparisons"]
    assert comparison["latents"] == [] and comparison["n_tested"] == 0 and result["effects"] == []
    assert "0 of 0 latents changed" in say(result)


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --adapter"):
        run(settings_of(tmp_path, adapter=None))
    with pytest.raises(ConfigError, match="larger --n-others"):
        run(settings_of(tmp_path, n_steered=1, n_others=1))
    wide = saved_sae(tmp_path / "wide", rotation(16))
    with pytest.raises(ModelError, match="16 dimensions"):
        run(settings_of(tmp_path, sae=wide))
