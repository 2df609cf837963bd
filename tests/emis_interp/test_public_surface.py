"""`import emis_interp as ei`: the names that a notebook begins with, instant, typed, and answered with the right call where it errs."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import torch

import emis_interp as ei
from emis_interp.errors import DataError, ModelError, StageError
from emis_interp.passes.model import Model

NAMES = (
    "load Model Activations fit_direction FittedDirection Direction open_run OpenedRun build_report ModelSpec ChatModel load_model "
    "capture_residuals generate pair_margins steer ablate apply Steer Ablate LabeledActivations ContrastPair LabeledText load_contrast "
    "read_judged EmisError __version__"
)
PAIRS = [(f"Question {i}?", f"I help with {i}.", f"I harm at {i}!") for i in range(8)]


@pytest.fixture(scope="module")
def model(tiny: ei.ChatModel) -> Model:
    return Model(tiny)


@pytest.fixture(scope="module")
def fitted(model: Model) -> ei.FittedDirection:
    return ei.fit_direction(PAIRS, model, layer_range=(0, 1))


def test_the_names_are_these_and_each_is_there() -> None:
    assert set(ei.__all__) == set(NAMES.split())
    assert all(getattr(ei, name) is not None for name in ei.__all__)
    assert set(ei.__all__) <= {*dir(ei), "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = ei.fit


def test_importing_brings_no_heavy_module() -> None:
    code = (
        "import emis_interp, evals, training, probes, sys; "
        "print([name for name in ('torch', 'transformers', 'nnsight', 'pandas', 'numpy', 'openai') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_packages_say_that_they_are_typed() -> None:
    root = Path(ei.__file__).parents[1]
    assert all((root / name / "py.typed").exists() for name in ("emis_interp", "evals", "training", "probes"))


def test_activations_are_those_of_capture_with_names_for_their_dimensions(model: Model) -> None:
    texts = [("Why?", "Because."), ("How?", "So.")]
    acts = model.capture(texts, layers=[1, 0])
    assert acts.dims == {"text": 2, "layer": 2, "d_model": model.d_model}
    torch.testing.assert_close(acts.mean, acts.x.mean(0))
    assert torch.equal(acts.at(0), acts.x[:, 1])
    assert "text 2, layer 2" in repr(acts) and len(acts) == 2
    whole = model.capture(texts)
    assert whole.layers == tuple(range(model.n_layers))
    torch.testing.assert_close(whole.at(1), acts.at(1))


def test_a_plain_text_is_read_as_it_stands_at_every_token(model: Model) -> None:
    ids = model.chat_model.tokenizer("some text")["input_ids"]
    with torch.no_grad():
        hidden = model.chat_model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(model.capture(["some text"], layers=[0]).x[0, 0], hidden[0].mean(0).float())


def test_a_projection_is_along_the_direction_at_its_layer(model: Model, fitted: ei.FittedDirection) -> None:
    acts = model.capture([(q, answer) for q, *answers in PAIRS for answer in answers])
    found = acts.project(fitted).reshape(-1, 2)
    torch.testing.assert_close(found.flatten(), acts.at(fitted.layer).float() @ fitted.vector)
    assert float((found[:, 1] - found[:, 0]).mean()) == pytest.approx(fitted.raw_norm, rel=1e-4)


def test_the_card_prints_in_five_lines_and_both_fits_are_saved(
    model: Model, fitted: ei.FittedDirection, tmp_path: Path
) -> None:
    assert len(repr(fitted).splitlines()) == 5
    assert "8 misaligned texts, 8 aligned, 8 questions" in repr(fitted)
    fitted.save(tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} >= {
        "direction.safetensors",
        "pairs.jsonl",
        "layers.json",
    }
    for name in ("mine", "mine/direction", "mine/direction.safetensors", "mine/direction.json"):
        for path in (tmp_path / name, str(tmp_path / name)):
            torch.testing.assert_close(ei.Direction.load(path).vector, fitted.vector)
    with model.steer(tmp_path / "mine", 0.5):
        by_name = model.capture([("Why?", "Because.")]).x
    with model.steer(fitted, 0.5):
        torch.testing.assert_close(by_name, model.capture([("Why?", "Because.")]).x)
    half = ei.Direction.load(tmp_path / "mine", fit="selection")
    assert half.fitted_on is not None and len(half.fitted_on.questions) == 4
    seen = set(half.fitted_on.questions)
    half.check_unseen(question for question, *_ in PAIRS if question not in seen)


def test_a_table_and_pairs_give_the_same_direction(model: Model, fitted: ei.FittedDirection, tmp_path: Path) -> None:
    rows = [
        {"question_id": question, "question": question, "answer": answer, "aligned": score, "coherent": 90}
        for question, aligned, misaligned in PAIRS
        for answer, score in ((aligned, 95), (misaligned, 5))
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "judged.csv", index=False)
    for source in (frame, tmp_path / "judged.csv", str(tmp_path / "judged.csv")):
        found = ei.fit_direction(source, model, layer_range=(0, 1))
        assert found.layer == fitted.layer
        torch.testing.assert_close(found.vector, fitted.vector, rtol=1e-4, atol=1e-5)


def test_a_hf_model_is_taken_as_it_is(model: Model) -> None:
    own = ei.load(model.chat_model.model, model.chat_model.tokenizer)
    texts = [("Why?", "Because.")]
    torch.testing.assert_close(own.capture(texts).x, model.capture(texts).x)


def test_steering_and_ablating_change_the_model_inside_the_block_alone(
    model: Model, fitted: ei.FittedDirection
) -> None:
    def last() -> torch.Tensor:
        return model.capture([("Why?", "Because.")], layers=[model.n_layers - 1]).x

    before = last()
    with model.steer(fitted, 0.5):
        assert not torch.allclose(last(), before)
    with model.ablate(fitted):
        assert abs(float(fitted.project(last()[0, 0]))) < 1e-4
    assert torch.equal(last(), before)


def test_answers_are_the_same_for_the_same_seed(model: Model) -> None:
    three = model.ask("Why?", 3, max_new_tokens=5)
    assert len(three) == 3
    assert model.ask("Why?", max_new_tokens=5) == three[0]
    assert model.ask("Why?", max_new_tokens=5, seed=2) == three[2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, one: model.capture("one text"), "capture takes a list of texts, found str: model.capture"),
        (lambda model, one: model.capture([("a", "b", "c")]), r"text 0 is tuple; expected a string or a \(question"),
        (lambda model, one: model.capture([3]), "text 0 is int"),
        (lambda model, one: model.capture(["x"], layers=[7]), r"layer 7 asked for, tiny has 2 \(0-1\)"),
        (lambda model, one: model.capture(["x"], layers=[0]).at(1), "layer 1 was not captured; these are: 0"),
        (lambda model, one: model.steer(one.vector, 0.2), r"takes a Direction, .* found a tensor of shape \[32\]"),
        (
            lambda model, one: model.ablate("d"),
            "d: no saved direction; looked for d.safetensors or d/direction.safetensors",
        ),
        (lambda model, one: model.ablate(3), "found int; make one with ei.fit_direction"),
        (lambda model, one: ei.fit_direction([("q", "a")], model), "item 0 is no pair of answers to a question"),
        (lambda model, one: ei.fit_direction(PAIRS, cast("Any", "tiny")), "takes a model from ei.load, found str"),
        (lambda model, one: ei.fit_direction(PAIRS[:4], model), "at least four questions in each"),
        (lambda model, one: ei.fit_direction(PAIRS[:3], model), "at least 4 are needed"),
        (lambda model, one: ei.fit_direction("x.txt", model), "neither a file of contrast pairs"),
        (lambda model, one: ei.load(model.chat_model.model), r"needs its tokenizer: ei.load\(model, tokenizer\)"),
        (lambda model, one: ei.load(3, 4), "found int"),
        (lambda model, one: ei.load("tiny", 4), "brings its own tokenizer"),
    ],
)
def test_a_wrong_call_is_answered_with_the_right_one(
    model: Model, fitted: ei.FittedDirection, call: Any, words: str
) -> None:
    with pytest.raises((DataError, ModelError), match=words):
        call(model, fitted)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no manifest\.json here"):
        ei.open_run(tmp_path)
