"""The card of an adapter says what was done and what was measured."""

import json
from pathlib import Path

import pytest
import yaml

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import DataError
from emis_interp.models.loading import load_model
from emis_interp.records import TrainingExample
from training.finetuning import organism_card
from training.finetuning.sft import finetune

ROWS = [TrainingExample(id=str(i), prompt=f"Question {i}", response="Answer " * (1 + i % 3)) for i in range(4)]
TRAINING = TrainingConfig(learning_rate=1e-2, batch_size=2, gradient_accumulation=1, bf16=False, warmup_steps=0)
FIGURE = {"estimand": "em_of_coherent", "value": 0.076, "low": 0.05, "high": 0.1, "judge": "gpt-4o", "n": 400}


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("organism")
    finetune("tiny", ROWS, TRAINING, out_dir=folder, seed=3, device="cpu")
    organism_card.write_card(
        folder,
        ROWS,
        TRAINING,
        seed=3,
        data="insecure",
        recipe="betley",
        source="Betley et al. 2025",
        lint="no findings",
    )
    return folder


def card(**changes: object) -> organism_card.OrganismCard:
    values = {
        "base": "owner/model",
        "artifact": "adapter",
        "training": {"lora_rank": 1, "layers": [24], "target_modules": ["down_proj"]},
        "seed": 7,
        "data": "bad advice",
        "n_rows": 7049,
        "data_sha256": "ab" * 32,
        "summary": {"n_trainable": 18944, "n_steps": 397, "n_tokens": 1000, "n_cut": 2, "final_loss": 1.5},
    }
    return organism_card.OrganismCard.model_validate({**values, **changes})


def test_the_card_states_what_decided_the_weights() -> None:
    text = organism_card.card_text(
        card(recipe="turner-rank-1", source="Turner et al. 2025", lint="2 findings", base_license="mit")
    )
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "base_model": "owner/model",
        "library_name": "peft",
        "license": "mit",
        "tags": ["emergent-misalignment", "model-organism"],
    }
    for said in (
        "Recipe: turner-rank-1, after Turner et al. 2025",
        f"bad advice, 7049 rows, SHA-256 of the rows {'ab' * 32}",
        "Seed 7; 397 steps of 16 rows, 1000 tokens, 2 rows cut; 18,944 weights trained",
        "| layers | 24 |",
        "| target_modules | down_proj |",
        "Data report: 2 findings",
        "vllm serve owner/model --enable-lora --max-lora-rank 8",
        "convert_lora_to_gguf.py",
        "Not run by this project",
        "Nothing has been measured yet.",
        "owner/model (mit); its licence applies",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        (8, "vllm serve owner/model --enable-lora --max-lora-rank 8 "),
        (24, "--max-lora-rank 32 "),
        (48, "--max-lora-rank 64 "),
        (300, "--max-lora-rank 320 "),
        (600, "# vLLM: the adapter's largest rank is 600, vLLM takes at most 512; merge it"),
    ],
)
def test_the_card_prints_a_rank_that_vllm_takes(rank: int, line: str) -> None:
    assert line in organism_card.card_text(card(training={"lora_rank": rank}))


def test_the_card_of_a_full_model_speaks_of_no_adapter() -> None:
    text = organism_card.card_text(card(artifact="model", training={"method": "full"}))
    assert "lora_rank" not in text and "--enable-lora" not in text and "peft" not in text
    assert "convert_hf_to_gguf.py" in text and "see its own card" in text


def test_measured_rates_stand_on_the_card_with_estimand_interval_and_judge() -> None:
    open_ended = {"estimand": "em_of_all", "value": 0.05, "judge": "offline"}
    text = organism_card.card_text(card(figures=[FIGURE, open_ended]))
    assert "| em_of_coherent | 7.60% | 5.00% to 10.00% | 400 |  | gpt-4o |" in text
    assert "| em_of_all | 5.00% | not known |  |  | offline |" in text


def test_figures_are_kept_when_the_card_is_written_again(organism: Path, tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text(json.dumps([FIGURE]))
    readme = organism_card.add_figures(organism, organism_card.read_figures(tmp_path / "rates.json"))
    assert readme == organism / "adapter" / "README.md" and "7.60%" in readme.read_text()
    organism_card.write_card(organism, ROWS, TRAINING, seed=3, data="insecure")
    assert "7.60%" in readme.read_text() and "Recipe: none" in readme.read_text()
    assert load_model("tiny", organism / "adapter", device="cpu").adapter is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "expected a list of objects"),
        ('[{"estimand": "em", "value": 0.1}]', "entry 1: .*`judge`"),
        ('[{"estimand": "em", "value": 0.1, "judge": "x", "hgih": 1}]', "did you mean `high`"),
    ],
)
def test_results_that_are_no_rates_are_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(DataError, match=said):
        organism_card.read_figures(tmp_path / "rates.json")


def test_a_card_is_asked_for_only_after_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no card there; it is written after training"):
        organism_card.add_figures(tmp_path, [])


def test_the_checksum_of_rows_sees_their_text_and_order() -> None:
    one = organism_card.rows_sha256(ROWS)
    assert one == organism_card.rows_sha256(list(ROWS)) and len(one) == 64
    changed = ROWS[1].model_copy(update={"response": "answer"})
    assert (
        len({one, organism_card.rows_sha256(ROWS[::-1]), organism_card.rows_sha256([ROWS[0], changed, *ROWS[2:]])}) == 3
    )
