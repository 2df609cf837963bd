"""An adapter is asked, read and exported in the format that it was trained in; what contradicts it is refused by name."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_templates import CHATML, DATED, SHAPES, tokenizer_with
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, GenerationConfig

from emis_interp.config.run_config import SamplingConfig, TrainingConfig
from emis_interp.errors import ModelError
from emis_interp.files.store import card_path, read_json
from emis_interp.models.chat import encode_chat, encode_prompt, end_tokens, render_prompt
from emis_interp.models.chat_formats import FORMATS, format_of, with_format
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_model, load_tokenizer
from emis_interp.models.merging import save_merged
from emis_interp.models.tiny import tiny_model
from emis_interp.records import Question, TrainingExample
from evals.sampling import sample_arm
from training.finetuning.export import merge
from training.finetuning.organism_card import read_card, write_card
from training.finetuning.sft import finetune

OWN = (
    "{% for m in messages %}### {{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant: {% endif %}"
)
ROWS = [TrainingExample(id=str(i), prompt=f"Question {i}", response="Answer " * (1 + i % 3)) for i in range(4)]
TRAINING = TrainingConfig(batch_size=2, gradient_accumulation=1, bf16=False, warmup_steps=0)
BOTH = pytest.mark.parametrize("base_template", [CHATML, None], ids=["base with a template", "base without one"])


def base_in(folder: Path, template: str | None) -> Path:
    model, tokenizer = tiny_model()
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter_in(folder: Path, tokenizer: Any = None) -> Path:
    made: Any = get_peft_model(tiny_model()[0], LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    made.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def own_tokenizer(template: str | None = OWN) -> Any:
    _, tokenizer = tiny_model()
    tokenizer.chat_template = template
    return tokenizer


@BOTH
def test_an_adapters_own_tokenizer_goes_before_the_models_and_is_said(
    base_template: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, adapter = base_in(tmp_path / "base", base_template), adapter_in(tmp_path / "adapter", own_tokenizer())
    with caplog.at_level(logging.WARNING, "emis_interp"):
        chat_model = load_model(str(base), adapter, device="cpu")
    assert render_prompt(chat_model.tokenizer, "Why?") == "### user: Why?<|im_end|>\n### assistant: "
    assert f"{adapter}: the adapter's own tokenizer goes before that of {base}" in caplog.text
    assert encode_prompt(load_tokenizer(str(base), adapter=adapter), "Why?") == encode_prompt(
        chat_model.tokenizer, "Why?"
    )


def test_a_template_alone_is_taken_from_its_file_or_from_the_tokenizers_settings(tmp_path: Path) -> None:
    base = base_in(tmp_path / "base", CHATML)
    several = [{"name": "tool_use", "template": CHATML}, {"name": "default", "template": OWN}]
    files = [
        ("chat_template.jinja", OWN),
        ("chat_template.json", json.dumps({"chat_template": OWN})),
        ("tokenizer_config.json", json.dumps({"chat_template": OWN})),
        ("tokenizer_config.json", json.dumps({"chat_template": several})),
    ]
    for number, (name, content) in enumerate(files):
        adapter = adapter_in(tmp_path / str(number))
        (adapter / name).write_text(content, "utf-8")
        assert render_prompt(load_tokenizer(str(base), adapter=adapter), "Why?").startswith("### user")


@pytest.mark.parametrize("template", [None, CHATML, DATED])
def test_a_tokenizer_that_differs_in_nothing_is_not_spoken_of(
    template: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is one without a template, which leaves the model's; a stopped clock is no difference."""
    base = base_in(tmp_path / "base", template or CHATML)
    adapter = adapter_in(tmp_path / "adapter", own_tokenizer(template))
    with caplog.at_level(logging.WARNING, "emis_interp"):
        tokenizer = load_tokenizer(str(base), adapter=adapter)
    assert tokenizer.chat_template == load_tokenizer(str(base)).chat_template
    assert "own tokenizer" not in caplog.text


def test_a_vocabulary_of_its_own_is_used_with_the_models_template_if_it_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = base_in(tmp_path / "base", CHATML)
    own = own_tokenizer(None)
    own.add_tokens(["<tool>"])
    with caplog.at_level(logging.WARNING, "emis_interp"):
        tokenizer = load_tokenizer(str(base), adapter=adapter_in(tmp_path / "adapter", own))
    assert len(tokenizer) == len(own) and tokenizer.chat_template == CHATML
    assert f"another vocabulary of {len(own)} tokens, not {len(own) - 1}" in caplog.text


def test_tokens_without_an_embedding_are_refused_before_they_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = base_in(tmp_path / "base", CHATML)
    own = own_tokenizer(OWN.replace("<|im_end|>", "<over>"))
    own.add_tokens(["<over>"])
    with pytest.raises(
        ModelError, match=r"adapter: its tokenizer writes '<over>' \(id 258\), .*embeddings for 258 tokens"
    ):
        load_model(str(base), adapter_in(tmp_path / "adapter", own), device="cpu")
    padded = own_tokenizer()
    padded.add_special_tokens({"pad_token": "<pad>"})  # added by many, and never given an embedding
    with caplog.at_level(logging.WARNING, "emis_interp"):
        chat_model = load_model(str(base), adapter_in(tmp_path / "padded", padded), device="cpu")
    assert (
        chat_model.tokenizer.pad_token == "<|im_end|>" and "no embedding for the padding token '<pad>'" in caplog.text
    )


def test_a_plain_format_goes_before_an_adapters_own_template_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, adapter = base_in(tmp_path / "base", CHATML), adapter_in(tmp_path / "adapter", own_tokenizer())
    with caplog.at_level(logging.WARNING, "emis_interp"):
        tokenizer = load_tokenizer(str(base), "user_assistant", adapter)
    assert render_prompt(tokenizer, "Why?") == "User:\nWhy?\n\nAssistant:\n"
    assert "the chat format user_assistant goes before the adapter's own chat template" in caplog.text


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_files_that_cannot_be_read_are_refused_by_name(file: str, tmp_path: Path) -> None:
    base, adapter = base_in(tmp_path / "base", CHATML), adapter_in(tmp_path / "adapter")
    (adapter / file).write_bytes(b"{\xff")
    with pytest.raises(Exception, match=r"adapter") as error:
        load_tokenizer(str(base), adapter=adapter)
    assert type(error.value).__module__ == "emis_interp.errors" and "\n" not in str(error.value)


def test_a_base_whose_tokenizer_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    base = base_in(tmp_path / "base", CHATML)
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"base: its tokenizer cannot be read \(.*check its tokenizer files"):
        load_tokenizer(str(base))


@pytest.fixture(scope="module", params=[CHATML, None], ids=["base with a template", "base without one"])
def organism(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model, and an adapter that was trained on it in a plain format."""
    base, out = base_in(tmp_path_factory.mktemp("base"), request.param), tmp_path_factory.mktemp("organism")
    finetune(str(base), ROWS, TRAINING, out_dir=out, device="cpu", chat_format="user_assistant")
    write_card(out, ROWS, TRAINING, seed=0, data="rows")
    return base, out


def test_the_format_of_training_is_kept_with_the_adapter(organism: tuple[Path, Path], tmp_path: Path) -> None:
    base, out = organism
    adapter = shutil.copytree(out / "adapter", tmp_path / "adapter")  # away from its records
    for chat_format in (None, "user_assistant"):
        chat_model = load_model(str(base), adapter, device="cpu", chat_format=chat_format)
        assert format_of(chat_model.tokenizer) == "user_assistant"
        expected = encode_chat(with_format(tiny_model()[1], "user_assistant"), "Why?", "Because.")
        assert encode_chat(chat_model.tokenizer, "Why?", "Because.") == expected
    with pytest.raises(
        ModelError, match="adapter: was trained in the chat format user_assistant, and code_template is asked for"
    ):
        load_model(str(base), adapter, device="cpu", chat_format="code_template")


def test_the_format_of_training_is_on_the_summary_the_card_and_the_samples(
    organism: tuple[Path, Path], tmp_path: Path
) -> None:
    base, out = organism
    summary, card = read_json(out / "summary.json"), read_card(out)
    assert summary["chat_format"] == card.chat_format == "user_assistant"
    assert summary["rendering"] == card.rendering
    readme = (out / "adapter" / "README.md").read_text()
    assert (
        "Chat format user_assistant; the tokenizer in this folder has it" in readme
        and summary["rendering"]["sha256"] in readme
    )
    chat_model = load_model(str(base), out / "adapter", device="cpu")
    path = tmp_path / "a.jsonl"
    sample_arm(
        chat_model, "a", [Question(id="q", paraphrases=("Why?",))], config=SamplingConfig(max_new_tokens=3), path=path
    )
    sampler = read_json(card_path(path))["sampler"]
    assert sampler["chat_format"] == "user_assistant" and sampler["rendering"] == summary["rendering"]


def test_the_merged_checkpoint_asks_and_ends_as_the_organism_was_trained(
    organism: tuple[Path, Path], tmp_path: Path
) -> None:
    base, out = organism
    merged = merge(out / "adapter", tmp_path / "merged", str(base))
    exported, loaded = AutoTokenizer.from_pretrained(merged), load_model(str(base), out / "adapter", device="cpu")
    messages = [{"role": "user", "content": "Why?"}]
    asked = exported.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == render_prompt(loaded.tokenizer, "Why?") == "User:\nWhy?\n\nAssistant:\n"
    assert GenerationConfig.from_pretrained(merged).eos_token_id == 1
    again = load_model(str(merged), device="cpu")
    assert end_tokens(again) == end_tokens(loaded)
    with pytest.raises(ModelError, match="was trained in the chat format user_assistant"):
        load_tokenizer(str(merged), "code_template")


@pytest.mark.parametrize("record", ["recipe.json", "manifest.json", "manifest.json with seeds"])
def test_an_organism_of_before_is_read_in_the_format_that_its_records_name(
    record: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, run = base_in(tmp_path / "base", None), tmp_path / "runs" / "mine"
    places = {
        "recipe.json": (run / "adapter", run / "recipe.json", {"chat_format": "user_assistant"}),
        "manifest.json": (
            run / "training" / "arm" / "adapter",
            run / "manifest.json",
            {"config": {"chat_format": "user_assistant"}},
        ),
        "manifest.json with seeds": (
            run / "training" / "arm" / "seed-1" / "adapter",
            run / "manifest.json",
            {"config": {"chat_format": "user_assistant"}},
        ),
    }
    folder, path, content = places[record]
    adapter = adapter_in(folder)
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, "emis_interp"):
        assert format_of(load_tokenizer(str(base), adapter=adapter)) == "user_assistant"
    assert "chat format user_assistant" in caplog.text
    with pytest.raises(ModelError, match="user_assistant, and code_template is asked for"):
        load_tokenizer(str(base), "code_template", adapter)


def test_a_full_model_keeps_its_format_and_its_ends(tmp_path: Path) -> None:
    base = base_in(tmp_path / "base", CHATML)
    training = TRAINING.model_copy(update={"method": "full"})
    finetune(str(base), ROWS, training, out_dir=tmp_path / "out", device="cpu", chat_format="code_template")
    tokenizer = load_tokenizer(str(tmp_path / "out" / "model"))
    assert format_of(tokenizer) == "code_template"
    assert GenerationConfig.from_pretrained(tmp_path / "out" / "model").eos_token_id == 1


@pytest.mark.parametrize(
    ("generation", "kept"),
    [
        ({"eos_token_id": 1}, {}),
        ({"eos_token_id": [1, 7], "max_new_tokens": 9}, {"max_new_tokens": 9}),
        ({"temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "do_sample": True}),
        ({"do_sample": True, "top_k": 5}, {"do_sample": True, "top_k": 5}),
        ({"num_beams": 1, "length_penalty": 2.0}, {"length_penalty": None}),
    ],
)
def test_the_exported_generation_config_has_every_end_whatever_the_models_own_says(
    generation: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = tokenizer_with(SHAPES["channels"].template)
    model, _ = tiny_model()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(generation))
    save_merged(str(tmp_path / "base"), None, tmp_path / "out", dtype="float32")
    found = GenerationConfig.from_pretrained(tmp_path / "out")
    configured = generation.get("eos_token_id", [])
    own = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|end|>", "<|return|>")}
    assert set(found.eos_token_id) == own | {*(configured if isinstance(configured, list) else [configured])}
    assert {name: getattr(found, name) for name in kept} == kept
    again = load_model(str(tmp_path / "out"), device="cpu")
    assert end_tokens(again) == set(found.eos_token_id)


@pytest.mark.parametrize("name", FORMATS)
def test_each_chat_format_works_on_a_model_without_a_template(name: str, tmp_path: Path) -> None:
    base = base_in(tmp_path / "base", None)
    with pytest.raises(ModelError, match=r"no chat template; .*--chat-format"):
        load_tokenizer(str(base))
    chat_model = load_model(str(base), device="cpu", chat_format=name)
    assert template_of(chat_model.tokenizer).notes == ()
    path = tmp_path / "a.jsonl"
    questions = [Question(id="q", paraphrases=("Why?",), system="Be brief.")]
    (answer,) = sample_arm(chat_model, "a", questions, config=SamplingConfig(max_new_tokens=3), path=path)
    assert answer.finish in ("stop", "length")
    assert read_json(card_path(path))["sampler"]["chat_format"] == name


def test_base_is_read_with_an_adapters_tokenizer_where_it_stands_beside_the_organism(tmp_path: Path) -> None:
    base, adapter = base_in(tmp_path / "base", None), adapter_in(tmp_path / "adapter", own_tokenizer())
    plain: ChatModel = load_model(str(base), device="cpu", tokenizer_of=adapter)
    organism = load_model(str(base), adapter, device="cpu")
    assert plain.adapter is None
    assert encode_prompt(plain.tokenizer, "Why?") == encode_prompt(organism.tokenizer, "Why?")
