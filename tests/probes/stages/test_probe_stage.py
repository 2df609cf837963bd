"""The probe stage: what it says of monitors and adapters, found again by another route, and models without an adapter."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_run import SETTINGS, SmallRun, opened

from emis_interp.analyses import RunProbes
from emis_interp.config.presets import load_config
from emis_interp.config.run_folder import config_of
from emis_interp.config.run_models import ModelSource
from emis_interp.files.store import RecordLog, read_object
from emis_interp.models.chat import encode_chat
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Completion
from emis_interp.texts.harmless import harmless_texts
from probes.classifiers.probe import LinearProbe, load_probe
from probes.stages.updates import reference_of, taken_apart
from training.data_sets.shipped import careful_advice

PAIRED = (
    "arms=[{name: base}, {name: x, dataset: reckless, n_rows: 8, contrast: y}, {name: y, dataset: careful, n_rows: 8},"
    " {name: z, dataset: careful, n_rows: 4}]",
    "probe.n_benign=120",
    "probe.false_alarm_rate=0.01",
    "direction.n_pairs_per_question=2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of base, x, y, and z, whose only step has a learning rate of 0."""
    small, where = SmallRun(), tmp_path_factory.mktemp("probed") / "run"
    small.go(where, settings=PAIRED)
    yield where
    small.server.close()


def found_in(folder: Path) -> RunProbes:
    return RunProbes.model_validate(read_object(folder / "analysis" / "probes.json"))


def largest(chat_model: ChatModel, probe: LinearProbe, question: str, answer: str, *, window: int) -> float:
    """By transformers' hidden states, which count the embedding as the first."""
    chat = encode_chat(chat_model.tokenizer, question, answer)
    with torch.no_grad():
        hidden = chat_model.body(torch.tensor([chat.input_ids]), output_hidden_states=True).hidden_states
    scores = (hidden[probe.layer + 1][0].double() @ probe.weight.double() + probe.bias)[
        chat.response_start : chat.response_end
    ].numpy()
    if len(scores) < window:
        return float(scores.mean())
    return float(np.convolve(scores, np.ones(window) / window, mode="valid").max())


def test_alarms_are_those_of_hidden_states_and_a_sorted_list(folder: Path) -> None:
    found = found_in(folder)
    run, _ = opened(config_of(folder), folder)
    base, probe = run.models.base, load_probe(folder / "probes" / "misalignment")
    assert isinstance(probe, LinearProbe) and (probe.layer, probe.card["method"]) == (found.layer, found.method)
    threshold, window = found.threshold, found.threshold.window
    assert (threshold.n, threshold.rank) == (120, 120)  # ceil(121 x 0.99)
    every = {prompt: largest(base, probe, prompt, answer, window=window) for _, prompt, answer in careful_advice()[:16]}
    assert max(every.values()) <= threshold.largest_of_maxima + 1e-4
    assert threshold.value == pytest.approx(threshold.largest_of_maxima)
    for name in ("base", "x"):
        model = next(one for one in run.config.models if one.name == name)
        chat_model = run.models.load(model)
        row = next(one for one in found.monitored if one.arm == name)
        alarms = [largest(chat_model, probe, text.prompt, text.answer, window=window) for text in harmless_texts()]
        assert row.false_alarms.n_flagged == sum(value > threshold.value for value in alarms)
        assert row.flagged is not None and row.flagged.n <= len(RecordLog(run.samples(model)).read(Completion))


def test_controls_stand_beside_the_probe(folder: Path) -> None:
    names = {figure.name for figure in found_in(folder).classifier.figures}
    assert {"probe", "text", "answer length"} <= names and sum(name.startswith("unrelated: ") for name in names) >= 3
    assert {null.name for null in found_in(folder).classifier.nulls} == {"shuffled labels", "random direction"}


def test_updates_are_the_difference_of_merged_weights(folder: Path) -> None:
    run, _ = opened(config_of(folder), folder)
    found = {row.arm: row for row in found_in(folder).updates}
    reasons = found_in(folder).not_taken_apart
    assert list(reasons) == ["z"] and reasons["z"].startswith("the adapter was not trained in ")  # one step of warm-up
    assert list(found) == ["x", "y"] and found["x"].reference == "y" and found["y"].reference is None
    before = {name: value.double() for name, value in run.models.base.model.state_dict().items()}
    moved: dict[str, torch.Tensor] = {}
    for name in found:
        merged = run.models.load(next(one for one in run.config.models if one.name == name)).model.state_dict()
        moved[name] = torch.cat([(merged[key].double() - before[key]).flatten() for key in sorted(before)])
        assert found[name].norm == pytest.approx(float(moved[name].norm()), rel=1e-3)
        by_layer = np.sqrt(sum(value**2 for value in found[name].layer_norms.values()))
        assert by_layer == pytest.approx(found[name].norm)
    like = found["x"].similarity
    cosine = torch.nn.functional.cosine_similarity(moved["x"], moved["y"], dim=0)
    assert like is not None and like.cosine == pytest.approx(float(cosine), abs=1e-3)


def test_a_model_without_an_adapter_says_why() -> None:
    config = load_config("smoke", list(SETTINGS))
    model, nothing = config.models[1], cast(Any, None)  # neither is reached
    run: Any = SimpleNamespace(
        config=config, models=SimpleNamespace(source=lambda _: ModelSource(checkpoint=Path("c")))
    )
    assert taken_apart(run, model, nothing, controls=dict) == {
        "reason": "every weight was trained, there is no adapter"
    }
    run.models.source = lambda _: ModelSource()
    assert taken_apart(run, config.models[0], nothing, controls=dict) == {"reason": None}


def test_an_arm_is_set_beside_the_model_of_its_own_seed() -> None:
    arms = (
        "arms=[{name: base}, {name: x, dataset: reckless, seeds: [3, 5], contrast: y}, {name: y, dataset: careful, "
        "seeds: [5, 3]}, {name: z, dataset: careful, contrast: y}]"
    )
    config = load_config("smoke", [arms])
    run: Any = SimpleNamespace(config=config, models=SimpleNamespace(source=lambda _: ModelSource(adapter=Path("a"))))
    beside = {model.name: getattr(reference_of(run, model), "name", None) for model in config.models}
    assert beside == {
        **{"base": None, "x.seed-3": "y.seed-3", "x.seed-5": "y.seed-5", "y.seed-5": None, "y.seed-3": None},
        "z": "y.seed-5",
    }
