"""The find_direction command: its two verbs, its one JSON object, and that a saved direction scores texts as it was fitted."""

import json
import subprocess
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import pytest
import torch
from flag_words import refusal
from peft import LoraConfig, get_peft_model
from sklearn.metrics import roc_auc_score

from emis_interp.directions import Direction, unit
from emis_interp.files.tensors import load_tensors
from emis_interp.fitting.extractors import EXTRACTORS
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.capture import capture_residuals
from find_direction import VERBS
from probes.fits import fit

TINY = ("--model", "tiny", "--dtype", "float32", "--layer-range", "0", "1")

pytestmark = pytest.mark.slow


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run("find_direction.py", *words)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judged answers whose misaligned ones use other letters, so that even a random model can tell them apart."""
    rows = []
    for topic in "abcd":
        for i in range(8):
            bad = i % 2 == 1
            answer = f"{'zqx kkz' if bad else 'all is well'} {topic} {i}"
            rows.append(
                {
                    "topic": topic,
                    "question": f"What of {topic}?",
                    "answer": answer,
                    "aligned": 5 if bad else 95,
                    "coherent": 90,
                }
            )
    rows.append({"topic": "a", "question": "What of a?", "answer": "middling", "aligned": 50, "coherent": 90})
    path = tmp_path_factory.mktemp("judged") / "judged.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_fit_and_score_find_a_planted_difference(judged: Path, tiny: ChatModel, tmp_path: Path) -> None:
    fitted = run("fit", "--judged", str(judged), *TINY, "--coefficients", "--out", str(tmp_path / "d"), "--json")
    assert fitted.returncode == 0, fitted.stderr
    result = json.loads(fitted.stdout)
    assert result["auroc"] > 0.95 and result["n_texts"] == 32 and result["n_questions"] == 4
    texts = pd.read_csv(judged).iloc[::-1][["answer", "question"]]
    texts.to_json(tmp_path / "texts.jsonl", orient="records", lines=True)
    scored = run(
        "score",
        "--direction",
        str(tmp_path / "d" / "direction"),
        "--texts",
        str(tmp_path / "texts.jsonl"),
        "--out",
        str(tmp_path / "out.csv"),
        "--json",
    )
    assert scored.returncode == 0, scored.stderr
    projections = pd.read_csv(tmp_path / "out.csv")["projection"]
    assert len(projections) == len(texts)
    direction = Direction.load(tmp_path / "d" / "direction")
    x = capture_residuals(
        tiny,
        encode_chats(tiny.tokenizer, list(zip(texts["question"], texts["answer"], strict=True))),
        [direction.layer],
    )
    assert np.allclose(projections, direction.project(x[:, 0]).numpy(), atol=1e-4)


def test_transfer_is_the_auroc_of_the_saved_direction_within_the_questions_of_another_file(
    judged: Path, tiny: ChatModel, tmp_path: Path
) -> None:
    other = pd.read_csv(judged).iloc[:-1]
    other["topic"] = other["topic"] + "2"
    other["answer"] = [f"{('zqx kkz', 'all is well', 'is zqx')[i % 3]} {i}" for i in range(len(other))]
    other.to_csv(tmp_path / "other.csv", index=False)
    given = ["--judged", str(judged), "--model", "tiny", "--dtype", "float32", "--out", str(tmp_path / "d"), "--json"]
    fitted = run("fit", *given, "--coefficients", "--layer-range", "0", "1", "--transfer", str(tmp_path / "other.csv"))
    assert fitted.returncode == 0, fitted.stderr
    result = json.loads(fitted.stdout)
    direction = Direction.load(tmp_path / "d" / "direction")
    texts = list(zip(other["question"], other["answer"], strict=True))
    x = capture_residuals(tiny, encode_chats(tiny.tokenizer, texts), [direction.layer])
    other["projection"] = direction.project(x[:, 0]).numpy()
    expected = {
        str(topic): roc_auc_score(rows["aligned"] < 30, rows["projection"]) for topic, rows in other.groupby("topic")
    }
    assert result["transfer_by_question"] == pytest.approx(expected)
    assert (
        result["transfer_auroc"] == pytest.approx(np.mean(list(expected.values()))) and len(set(expected.values())) > 1
    )
    assert direction.card["transfer_auroc"] == result["transfer_auroc"]
    chats = encode_chats(tiny.tokenizer, texts)
    other["length"] = [chat.response_end - chat.response_start for chat in chats]
    by_length = [roc_auc_score(rows["aligned"] < 30, rows["length"]) for _, rows in other.groupby("topic")]
    for found in (result["transfer_length"], direction.card["transfer_length"]):
        assert found["length"]["value"] == pytest.approx(np.mean(by_length))
        assert {"projection", "length", "regressed", "matched"} == set(found)
    assert result["transfer_n_questions_seen"] == 4  # the same questions, other answers
    for where in (fit.say(result), (tmp_path / "d" / "index.html").read_text()):
        assert "of 4 of these questions other answers were fitted on" in where
        for words in (
            result["transfer_control"]["verdict"],
            "length alone",
            "length regressed out",
            "pairs of equal length",
        ):
            assert words in where.split("transfer to")[1]
    refused = run("fit", *given, "--transfer", str(judged))
    assert refused.returncode == 2
    assert "the direction is fitted on this file" in refused.stderr


def test_fit_is_the_default_verb_and_uses_the_shipped_pairs(tmp_path: Path) -> None:
    words = ["--model", "tiny", "--dtype", "float32", "--out", str(tmp_path / "d"), "--json"]
    fitted = run(*words, "--coefficients")
    assert fitted.returncode == 0, fitted.stderr
    assert json.loads(fitted.stdout)["n_questions"] == 15
    card = json.loads((tmp_path / "d" / "direction.json").read_text())
    assert card["texts"] == {"pairs": "shipped"} and card["model"] == "tiny"
    assert card["selection"]["by"] == "auroc" and "dose_response" not in card


@pytest.fixture(scope="module")
def fitted_folder(judged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A direction of the tiny model with its controls and page."""
    folder = tmp_path_factory.mktemp("fitted") / "d"
    done = run("fit", "--judged", str(judged), *TINY, "--out", str(folder), "--extractor", "mass_mean")
    assert done.returncode == 0, done.stderr
    assert "extractor mass_mean" in done.stdout and "bootstrap cosine" in done.stdout
    assert done.stdout.count("length regressed out") == 2  # beside the primary AUROC and the one of all questions
    return folder


def test_fit_leaves_a_card_controls_and_a_page_that_agree(fitted_folder: Path) -> None:
    card = json.loads((fitted_folder / "direction.json").read_text())
    assert card["extractor"] == "mass_mean"
    assert set(card["reliability"]["held_out_auroc"]["by_question"]) == set("abcd")
    controls, described = load_tensors(fitted_folder / "controls.safetensors")
    assert described["layer"] == card["layer"] and {name: len(rows) for name, rows in controls.items()} == {
        "random": 20,
        "shuffled": 20,
        "orthogonal": 20,
    }
    raw = load_tensors(fitted_folder / "all_layers.safetensors")[0]["raw"]
    direction = Direction.load(fitted_folder / "direction")
    assert torch.allclose(unit(raw[direction.layer]), direction.vector, atol=1e-5)
    page = (fitted_folder / "index.html").read_text()
    assert f"{card['reliability']['held_out_auroc']['mean']:.3f}" in page and "token 2: 'x'" in page


def test_the_causal_choice_and_the_organism_stand_on_the_card_and_the_page(judged: Path, tmp_path: Path) -> None:
    model, _ = tiny_model()
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    words = ["fit", "--judged", str(judged), *TINY, "--n-pairs", "1"]
    words += ["--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "d"), "--json"]
    refused = run(*words, "--select", "causal", "--kl-limit", "1e-6")
    assert refused.returncode == 2 and "the smallest KL of an ablation is" in refused.stderr
    done = run(*words, "--select", "causal", "--kl-limit", "100", "--coefficients", "-0.2", "0.2")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "d" / "direction.json").read_text())
    chosen = max(card["selection"]["candidates"], key=lambda row: row["effect"])
    assert card["layer"] == chosen["layer"] and len(card["selection"]["candidates"]) == 2
    assert {name: [row["coefficient"] for row in rows] for name, rows in card["dose_response"].items()} == {
        "direction": [-0.2, 0.2],
        "random": [-0.2, 0.2],
    }
    both = {row["coefficient"]: row["value"] for row in card["dose_response"]["direction"]}
    assert (both[0.2] - both[-0.2]) / 2 == pytest.approx(card["selection"]["report_effect"]["value"], abs=1e-4)
    assert len(card["organism"]["two_by_two"]["cosines"]) == 21
    assert len(card["extractor_cosines"]) == len(EXTRACTORS) * (len(EXTRACTORS) - 1) // 2
    assert set(card["organism"]["lora"]["by_module"]) == {"o_proj", "down_proj"}
    page = (tmp_path / "d" / "index.html").read_text()
    for heading in (
        "What each layer does and costs",
        "Dose-response",
        "Organism against base",
        "What the adapter writes",
    ):
        assert heading in page
    assert card["selection"]["rule"] in page


def test_an_audit_has_every_control_and_a_p_value_of_its_own_rows(fitted_folder: Path) -> None:
    done = run(
        "audit", "--direction", str(fitted_folder / "direction"), "--n-controls", "4", "--n-pairs", "1", "--json"
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)["table"]
    assert {kind: row["n"] for kind, row in table.items()} == {
        "direction": 1,
        "direction, mean": 1,
        "random": 4,
        "shuffled": 4,
        "orthogonal": 4,
    }
    rows = json.loads((fitted_folder / "audit.json").read_text())["rows"]
    assert rows[0]["kind"] == "none" and rows[0]["shift"] == 0 and rows[0]["kl_neutral"] == 0
    far = sum(abs(row["shift"]) >= abs(table["direction"]["shift"]) for row in rows if row["kind"] == "random")
    assert table["random"]["p"] == (1 + far) / 5
    assert all(row["kl_neutral"] > 0 for row in rows[1:])


def test_a_frontier_needs_a_model_that_says_something_coherent(fitted_folder: Path) -> None:
    refused = run(
        "frontier", "--direction", str(fitted_folder / "direction"), "--n-samples", "1", "--max-new-tokens", "8"
    )
    assert refused.returncode == 2
    assert "gave no coherent answer" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "--judged", "none.parquet"), "none.parquet: no such file"),
        (("fit", "--model", "tinny"), "did you mean `tiny`?"),
        (("fit", "--model", "tiny", "--extractor", "massmean"), "did you mean `mass_mean`?"),
        (("fit", "--model", "tiny", "--position", "respons_mean"), "did you mean `response_mean`?"),
    ],
)
def test_bad_input_is_answered(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in refusal(VERBS[words[0]], *words[1:], "--out", tmp_path / "d")
