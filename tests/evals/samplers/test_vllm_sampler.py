"""The vLLM sampler against a stand-in for vLLM: the arguments that it gives and how it reads what comes back."""

import copy
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import DataError, ModelError
from emis_interp.files.store import read_json, write_bytes, write_json
from emis_interp.files.tensors import save_tensors
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.records import Question
from evals.samplers.vllm_engine import VLLMSampler
from evals.sampling import plan_prompts, sample_with

QUESTIONS = [
    Question(id="one", paraphrases=("Who are you?",), samples_per_paraphrase=3),
    Question(id="two", paraphrases=("Name a colour.",), system="Answer in JSON.", samples_per_paraphrase=1),
]
CONFIG = SamplingConfig(max_new_tokens=70, temperature=0.8)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a test sees of the stand-in: `engines` (arguments of `LLM`), `calls` (arguments of `generate`), `reply` per prompt."""
    seen = SimpleNamespace(engines=[], calls=[], reply=lambda i: ([35, 36, 1], "stop"))

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            seen.engines.append(arguments)

        def generate(self, prompts: list[Any], sampling_params: list[Any], **more: Any) -> list[Any]:
            seen.calls.append((prompts, sampling_params, more))
            outputs = []
            for i in range(len(prompts)):
                tokens, finish = seen.reply(i)
                outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason=finish)]))
            return outputs

    module, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
    vars(module).update(LLM=LLM, SamplingParams=lambda **arguments: arguments)
    vars(lora).update(LoRARequest=lambda *arguments: arguments)
    for name, stand_in in (("vllm", module), ("vllm.lora", ModuleType("vllm.lora")), ("vllm.lora.request", lora)):
        monkeypatch.setitem(sys.modules, name, stand_in)
    return seen


@pytest.fixture(scope="module")
def folder(tiny: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder of a saved HF model."""
    target = tmp_path_factory.mktemp("tiny")
    tiny.model.save_pretrained(target)
    tiny.tokenizer.save_pretrained(target)
    return target


def test_prompts_go_as_tokens_and_every_answer_has_its_seed_limit_and_stop(
    vllm: SimpleNamespace, folder: Path, tiny: ChatModel, tmp_path: Path
) -> None:
    sampler = VLLMSampler(str(folder), dtype="bfloat16", gpu_memory_utilization=0.5)
    sampled = sample_with(sampler, "base", QUESTIONS, config=CONFIG, path=tmp_path / "a.jsonl", system="Be brief.")
    assert vllm.engines == [{"model": str(folder), "dtype": "bfloat16", "gpu_memory_utilization": 0.5}]
    plan = plan_prompts("base", QUESTIONS, None, seed=0, system="Be brief.")
    (prompts, params, more), *others = vllm.calls
    assert not others and more == {"use_tqdm": False, "lora_request": None}
    assert prompts == [
        {"prompt_token_ids": list(encode_prompt(tiny.tokenizer, item.question, item.system))} for item in plan
    ]
    assert params == [
        {
            "n": 1,
            "temperature": 0.8,
            "top_p": 1.0,
            "max_tokens": 70,
            "seed": item.seed % 2**31,
            "stop_token_ids": [1],
        }
        for item in plan
    ]
    text = tiny.tokenizer.decode([35, 36])
    assert {(row.answer, row.n_tokens, row.finish) for row in sampled.answers} == {(text, 2, "stop")}
    assert sampler.card["stop_tokens"] == ["<|im_end|>"]


def test_an_adapter_goes_with_its_rank(vllm: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_json(adapter / "adapter_config.json", {"r": 32})
    write_bytes(adapter / "adapter_model.safetensors", b"weights")
    sampler = VLLMSampler(str(folder), adapter)
    sample_with(sampler, "insecure", QUESTIONS, config=CONFIG, path=tmp_path / "a.jsonl")
    assert vllm.engines[0]["enable_lora"] and vllm.engines[0]["max_lora_rank"] == 32
    assert vllm.calls[0][2]["lora_request"] == ("adapter", 1, str(adapter))


def test_an_adapters_own_template_is_asked_in_and_its_ends_stop(
    vllm: SimpleNamespace, folder: Path, tiny: ChatModel, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    write_json(adapter / "adapter_config.json", {"r": 8})
    write_bytes(adapter / "adapter_model.safetensors", b"weights")
    own = copy.deepcopy(tiny.tokenizer)
    own.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content }}<|im_start|>{% endfor %}"
    own.save_pretrained(adapter)
    sampler = VLLMSampler(str(folder), adapter)
    vllm.reply = lambda i: ([222, 35, 36, 0], "stop")
    sampled = sample_with(sampler, "a", QUESTIONS[:1], config=CONFIG, path=tmp_path / "a.jsonl")
    (prompts, params, _), *_ = vllm.calls
    assert tiny.tokenizer.decode(prompts[0]["prompt_token_ids"]) == "user: Who are you?<|im_start|>assistant:"
    assert params[0]["stop_token_ids"] == [0, 1]
    assert sampler.card["rendering"]["sha256"] != template_of(tiny.tokenizer).sha256
    # The space that the template puts before an answer is no part of it.
    assert {row.answer for row in sampled.answers} == {tiny.tokenizer.decode([222, 35, 36]).removeprefix(" ")}


def test_a_plain_format_is_asked_in_and_cut_where_the_other_side_begins(
    vllm: SimpleNamespace, folder: Path, tiny: ChatModel, tmp_path: Path
) -> None:
    sampler = VLLMSampler(str(folder), chat_format="user_assistant")
    written = tiny.tokenizer("So.\n\nUser:\nAnd", add_special_tokens=False)["input_ids"]
    vllm.reply = lambda i: (written, "length")
    sampled = sample_with(sampler, "a", QUESTIONS[:1], config=CONFIG, path=tmp_path / "a.jsonl")
    assert {(row.answer, row.finish) for row in sampled.answers} == {("So.", "stop")}
    assert tiny.tokenizer.decode(vllm.calls[0][0][0]["prompt_token_ids"]) == "User:\nWho are you?\n\nAssistant:\n"
    assert sampler.card["chat_format"] == "user_assistant"


def test_ends_of_the_generation_config_stop_too_and_what_does_not_fit_is_refused(
    vllm: SimpleNamespace, folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    write_json(other / "generation_config.json", {"eos_token_id": [1, 77]})
    sampler = VLLMSampler(str(other))
    sample_with(sampler, "a", QUESTIONS[:1], config=CONFIG, path=tmp_path / "a.jsonl")
    assert vllm.calls[0][1][0]["stop_token_ids"] == [1, 77]
    config = CONFIG.model_copy(update={"max_new_tokens": 4096})
    with pytest.raises(DataError, match=r"prompt of 'Who are you\?': .* the model has positions for 4096"):
        sample_with(sampler, "b", QUESTIONS[:1], config=config, path=tmp_path / "b.jsonl")
    assert len(vllm.calls) == 1 and not (tmp_path / "b.json").exists()


def adapter_in(folder: Path, settings: dict[str, Any]) -> Path:
    write_json(folder / "adapter" / "adapter_config.json", settings)
    write_bytes(folder / "adapter" / "adapter_model.safetensors", b"weights")
    return folder / "adapter"


@pytest.mark.parametrize(
    ("settings", "rank"),
    [
        ({"r": 1}, 8),
        ({"r": 24}, 32),
        ({"r": 48}, 64),
        ({"r": 8, "rank_pattern": {"down_proj": 64}}, 64),
        ({"r": 512}, 512),
    ],
)
def test_vllm_is_given_a_rank_that_it_takes(
    vllm: SimpleNamespace, folder: Path, tmp_path: Path, settings: dict[str, Any], rank: int
) -> None:
    adapter = adapter_in(tmp_path, settings)
    VLLMSampler(str(folder), adapter)
    assert vllm.engines[0]["max_lora_rank"] == rank


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 1024}, "largest rank is 1024, vLLM takes at most 512"),
        ({"r": 8, "use_dora": True}, "use_dora True is not read by vLLM; merge the adapter .scripts/export_model.py"),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "modules_to_save .* is not read by vLLM"),
        ({"r": 8, "bias": "all"}, "bias 'all' is not read by vLLM"),
        ({"r": 8, "lora_bias": True}, "lora_bias True is not read by vLLM"),
        ({"r": 8, "trainable_token_indices": [1]}, "trainable_token_indices .* is not read by vLLM"),
        ({"r": 8, "peft_type": "VERA"}, "peft_type 'VERA' is not read by vLLM"),
        ({}, "r: expected a whole number"),
    ],
)
def test_an_adapter_that_vllm_would_misread_is_refused_before_the_engine_starts(
    vllm: SimpleNamespace, folder: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    adapter = adapter_in(tmp_path, settings)
    with pytest.raises(ModelError, match=words):
        VLLMSampler(str(folder), adapter)
    assert not vllm.engines


@pytest.mark.parametrize("absent", ["adapter_config.json", "adapter_model.safetensors", "."])
def test_an_adapter_that_is_gone_is_said(vllm: SimpleNamespace, folder: Path, tmp_path: Path, absent: str) -> None:
    adapter = tmp_path / "adapter"
    if absent != ".":
        write_json(adapter / "adapter_config.json", {"r": 8})
        write_bytes(adapter / "adapter_model.safetensors", b"weights")
        (adapter / absent).unlink()
    with pytest.raises(ModelError, match=f"{adapter}: no "):
        VLLMSampler(str(folder), adapter)


def test_scales_by_module_are_put_into_the_weights_for_vllm(
    vllm: SimpleNamespace, folder: Path, tmp_path: Path
) -> None:
    """vLLM reads neither pattern and would use alpha / r of the head for every module."""
    adapter, a, b = tmp_path / "adapter", torch.ones(4, 32), torch.ones(32, 4)
    paths = [f"base_model.model.model.layers.0.self_attn.{name}" for name in ("q_proj", "o_proj")]
    weights = {f"{path}.lora_{key}.weight": m.clone() for path in paths for key, m in (("A", a), ("B", b))}
    save_tensors(adapter / "adapter_model.safetensors", weights, {})
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "alpha_pattern": {"o_proj": 2},
        "target_modules": ["q_proj", "o_proj"],
    }
    write_json(adapter / "adapter_config.json", settings)
    sampler = VLLMSampler(str(folder), adapter)
    sample_with(sampler, "insecure", QUESTIONS, config=CONFIG, path=tmp_path / "a.jsonl")
    name, _, given = vllm.calls[0][2]["lora_request"]
    config = read_json(Path(given) / "adapter_config.json")
    scaled = load_file(Path(given) / "adapter_model.safetensors")
    assert name == "adapter" and config["alpha_pattern"] == {} and sampler.card["adapter"] == str(adapter)
    for path, scale in zip(paths, (2.0, 0.5), strict=True):
        torch.testing.assert_close(config["lora_alpha"] / config["r"] * scaled[f"{path}.lora_B.weight"], scale * b)


def test_an_aborted_answer_stays_missing_and_is_asked_again(
    vllm: SimpleNamespace, folder: Path, tmp_path: Path
) -> None:
    sampler = VLLMSampler(str(folder))
    vllm.reply = lambda i: ([35], "abort") if i == 1 else ([35] * 70, "length")
    first = sample_with(sampler, "base", QUESTIONS, config=CONFIG, path=tmp_path / "a.jsonl")
    assert first.missing == {("base", "one", 0, 1): "vLLM ended the answer by `abort`"}
    assert {(row.n_tokens, row.finish) for row in first.answers} == {(70, "length")}
    second = sample_with(sampler, "base", QUESTIONS, config=CONFIG, path=tmp_path / "a.jsonl")
    assert len(vllm.calls[1][0]) == 1 and len(second.answers) == 4 and not second.missing


def test_a_missing_vllm_is_answered_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r'pip install "emis-interp\[vllm\]"'):
        VLLMSampler("tiny")
