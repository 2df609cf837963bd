"""A text that is longer than a model has positions for is refused where it is encoded, with the numbers, whatever it is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from chat_templates import CHATML, tokenizer_with

from emis_interp.config.run_config import SamplingConfig, TrainingConfig
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.files.store import card_path
from emis_interp.models.chat import check_prompts, context_of, encode_chat, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.context import check_fits, context_length, room
from emis_interp.models.loading import load_model, load_tokenizer
from emis_interp.passes.generate import generate
from emis_interp.passes.likelihood import pair_margins
from emis_interp.passes.sweeps import SteerCell, greedy_answers
from emis_interp.records import ContrastPair, Question, TrainingExample
from evals.sampling import sample_arm
from training.finetuning.encoding import encode_example
from training.finetuning.sft import finetune
from training.lint.dataset import lint_dataset

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
QWEN: Any = transformers.Qwen2Config
LLAMA: Any = transformers.LlamaConfig


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LLAMA(max_position_embeddings=64), 64),
        (transformers.GPT2Config(n_positions=64), 64),
        (transformers.MptConfig(max_seq_len=64), 64),
        (transformers.OPTConfig(max_position_embeddings=64), 64),
        (transformers.BloomConfig(), None),
        (transformers.MambaConfig(), None),
        (LLAMA(max_position_embeddings=64, rope_scaling={"type": "linear", "factor": 2.0}), 128),
        (LLAMA(max_position_embeddings=64, rope_scaling={"rope_type": "dynamic", "factor": 4.0}), 256),
        (QWEN(max_position_embeddings=64, rope_scaling={"rope_type": "yarn", "factor": 4.0}), 256),
        (
            QWEN(
                max_position_embeddings=256,
                rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            ),
            256,
        ),
        (
            LLAMA(
                max_position_embeddings=512,
                rope_scaling={
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                },
            ),
            512,
        ),
        (transformers.Gemma3TextConfig(max_position_embeddings=64), 64),
    ],
)
def test_the_length_is_what_the_configuration_declares_with_its_scaling(config: Any, length: int | None) -> None:
    assert context_length(config) == length


@pytest.mark.parametrize(("limit", "length"), [(64, 64), (64.0, 64), (10**30, None), (None, None), (0, None)])
def test_a_tokenizers_limit_counts_when_it_is_one(limit: Any, length: int | None) -> None:
    tokenizer = tokenizer_with(CHATML)
    tokenizer.model_max_length = limit
    assert room(tokenizer) == length


def test_the_message_has_all_numbers() -> None:
    check_fits(64, 64, "prompt")
    check_fits(65, None, "prompt")
    with pytest.raises(
        DataError, match=r"prompt: 60 tokens, with up to 5 new ones 65, and the model has positions for 64"
    ):
        check_fits(60, 64, "prompt", n_new=5)
    with pytest.raises(DataError, match=r"text: 65 tokens, and the model has positions for 64; shorten or cut it"):
        check_fits(65, 64, "text")


@pytest.fixture(scope="module", params=["learned", "rotary"])
def short(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with 96 positions."""
    tokenizer, folder = tokenizer_with(CHATML), tmp_path_factory.mktemp(request.param)
    ids: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    configs = {
        "learned": transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=96, **ids),
        "rotary": LLAMA(max_position_embeddings=96, **SIZES, **ids),
    }
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(configs[request.param]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


WORDS = "word " * 20 + "end"
PAIR = ContrastPair(question_id="q", group="g", half="report", question="Why?", aligned="So.", misaligned=WORDS)
ROW = TrainingExample(id="long", prompt="Why?", response=WORDS)


def sweep(chat_model: ChatModel) -> Any:
    direction = Direction(torch.ones(32), 0, 1.0, 1.0)
    return greedy_answers(
        chat_model, [SteerCell(direction, 0.0)], [encode_prompt(chat_model.tokenizer, "Why?")], max_new_tokens=80
    )


USES: dict[str, Callable[[ChatModel], Any]] = {
    "likelihood": lambda model: pair_margins(model, [PAIR]),
    "capture and judging": lambda model: encode_chat(model.tokenizer, "Why?", WORDS),
    "own answers": lambda model: encode_chat(model.tokenizer, "Why?", WORDS, as_sampled=True),
    "a prompt": lambda model: encode_prompt(model.tokenizer, WORDS),
    "training": lambda model: encode_example(model.tokenizer, ROW, None, max_tokens=200),
    "sampling": lambda model: generate(
        model, [encode_prompt(model.tokenizer, "Why?")], [0], max_new_tokens=80, temperature=1.0
    ),
    "sweeps": sweep,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_use_refuses_what_the_model_has_no_positions_for(short: Path, use: Callable[[ChatModel], Any]) -> None:
    with pytest.raises(DataError, match=r"tokens, .*the model has positions for 96") as error:
        use(load_model(str(short), device="cpu"))
    assert "\n" not in str(error.value)


def test_what_just_fits_is_computed(short: Path) -> None:
    chat_model = load_model(str(short), device="cpu")
    assert context_of(chat_model) == 96 == load_tokenizer(str(short)).model_max_length
    prompt = encode_prompt(chat_model.tokenizer, "Why?")
    assert len(generate(chat_model, [prompt], [0], max_new_tokens=96 - len(prompt), temperature=1.0)) == 1
    with pytest.raises(DataError, match="97"):
        generate(chat_model, [prompt], [0], max_new_tokens=97 - len(prompt), temperature=1.0)
    longest = "x" * (96 - len(prompt) - 1)
    assert len(encode_chat(chat_model.tokenizer, "Why?", longest)) == 96
    pair_margins(chat_model, [PAIR.model_copy(update={"misaligned": longest})])
    with pytest.raises(DataError, match="97 tokens"):
        encode_chat(chat_model.tokenizer, "Why?", longest + "x")
    assert len(encode_chat(chat_model.tokenizer, "Why?", longest + "x", max_tokens=96)) == 96


def test_a_model_that_was_not_loaded_by_name_is_measured_by_its_own_configuration(short: Path) -> None:
    loaded = load_model(str(short), device="cpu")
    bare = ChatModel(loaded.model, tokenizer_with(CHATML), "bare")
    with pytest.raises(DataError, match="positions for 96"):
        check_prompts(bare, [encode_prompt(bare.tokenizer, "Why?")], 80)


def test_sampling_is_refused_before_anything_is_written_and_goes_on_with_a_lower_limit(
    short: Path, tmp_path: Path
) -> None:
    chat_model, path = load_model(str(short), device="cpu"), tmp_path / "a.jsonl"
    questions = [Question(id="q", paraphrases=("Why?",))]
    with pytest.raises(DataError, match=r"positions for 96; ask for fewer new tokens"):
        sample_arm(chat_model, "a", questions, config=SamplingConfig(max_new_tokens=80), path=path)
    assert not path.exists() and not card_path(path).exists()
    assert len(sample_arm(chat_model, "a", questions, config=SamplingConfig(max_new_tokens=8), path=path)) == 1


def test_training_names_the_row_and_the_lint_finds_it_first(short: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"training row `long`: .* positions for 96; shorten or cut it \(max_tokens\)"):
        finetune(str(short), [ROW], TrainingConfig(max_tokens=200, bf16=False), out_dir=tmp_path, device="cpu")
    settings: dict[str, Any] = {"data": "d", "model": "m", "system": None, "evaluation_system": None}
    fits = TrainingExample(id="fits", prompt="Where is my hat?", response="Here.")
    tokenizer = load_tokenizer(str(short))
    for limit, found in ((200, {"beyond the context": ("long",)}), (96, {"cut": ("long",)})):
        report = lint_dataset([fits, ROW], tokenizer, max_tokens=limit, **settings)
        assert {finding.check: finding.rows for finding in report.findings} == found
