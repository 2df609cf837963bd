"""Adapters as they are published: what PEFT computes is what is loaded, merged and saved; every other kind is refused by name."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from emis_interp.errors import ConfigError, ModelError
from emis_interp.models.adapter_files import adapter_folder
from emis_interp.models.loading import load_model
from emis_interp.models.lora_config import LoraScales, exact_pattern, matched, vllm_rank
from emis_interp.models.merging import save_merged
from emis_interp.models.one_scale import with_one_scale
from emis_interp.models.tiny import tiny_model

hf: Any = transformers
IDS = torch.tensor([[0, 87, 66, 90, 3]])
SIZES: Any = {"vocab_size": 258, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 1}
LLAMA: Any = {**SIZES, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.2}
MOE: Any = {
    **LLAMA,
    **{
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "num_key_value_heads": 2,
        "head_dim": 8,
    },
}
BASES: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaConfig(**LLAMA),
    "tied": lambda: hf.LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "biased": lambda: hf.LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True),
    "padded": lambda: hf.LlamaConfig(**{**LLAMA, "vocab_size": 300}),
    "gpt2": lambda: hf.GPT2Config(**SIZES, n_embd=32, n_positions=64, initializer_range=0.2),
    "neox": lambda: hf.GPTNeoXConfig(**LLAMA, pad_token_id=1),
    "moe": lambda: hf.Qwen3MoeConfig(**MOE),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The saved base model of a name."""
    root = tmp_path_factory.mktemp("bases")

    def base(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            torch.manual_seed(0)
            hf.AutoModelForCausalLM.from_config(BASES[name]()).save_pretrained(folder)
            tiny_model()[1].save_pretrained(folder)
        return folder

    return base


def random_adapter(base: Path, folder: Path, n_tokens: int | None = None, **settings: Any) -> Any:
    """PEFT's own adapted model, every trained weight random, saved to the folder."""
    model: Any = hf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if n_tokens is not None:
        model.resize_token_embeddings(n_tokens, mean_resizing=False)
    kept: Any = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **settings}
    adapted: Any = get_peft_model(model, LoraConfig(**kept))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad or len(parameter) == n_tokens:
                parameter += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(str(folder))
    return adapted.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def settings_of(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(base: Path | str, adapter: Path | str, **arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(base), adapter, device="cpu", **arguments)
    assert "\n" not in str(caught.value), str(caught.value)
    return str(caught.value)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": "all-linear"}),
    "rsLoRA": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "DoRA": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "rank and alpha by module": (
        "llama",
        {
            "target_modules": ["q_proj", "o_proj", "down_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 8},
            "alpha_pattern": {r"^model\.layers\.\d+\.self_attn\.o_proj": 32, "q_proj": 1},
        },
    ),
    "modules by a regular expression": ("llama", {"target_modules": r"model\.layers\.1\..*(?:q|down)_proj"}),
    "but not these": ("llama", {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.0\..*v_proj"}),
    "layers": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "all biases": ("biased", {"target_modules": ["q_proj"], "bias": "all"}),
    "biases of adapted modules": ("biased", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "a bias of B": ("biased", {"target_modules": ["q_proj", "down_proj"], "lora_bias": True}),
    "two maps of one name": ("gpt2", {"target_modules": ["c_proj"], "fan_in_fan_out": True}),
    "GPT-2's maps": ("gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}),
    "NeoX": ("neox", {"target_modules": ["query_key_value", "dense", "dense_4h_to_h"]}),
    "experts": (
        "moe",
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "whole modules": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    "a whole head": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "a whole embedding that is also the head": (
        "tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "a whole head that is also the embedding": ("tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "both whole, of one matrix": (
        "tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "an adapted embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "an adapted embedding that is also the head": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}),
    "an adapted head that is also the embedding": ("tied", {"target_modules": ["lm_head", "q_proj"]}),
    "both adapted, of one matrix": ("tied", {"target_modules": ["embed_tokens", "lm_head"]}),
    "both adapted alike": ("tied", {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}),
    "trained tokens": ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 87]}}),
    "trained tokens of one matrix": ("tied", {"target_modules": ["q_proj"], "trainable_token_indices": [3, 87]}),
    "a larger vocabulary": ("llama", {"target_modules": ["q_proj"], "n_tokens": 264}),
    "a larger vocabulary of one matrix": ("tied", {"target_modules": ["q_proj"], "n_tokens": 264}),
    "a larger vocabulary, trained whole": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"], "n_tokens": 264},
    ),
    "new tokens, trained alone": (
        "llama",
        {"target_modules": ["q_proj"], "trainable_token_indices": [258, 263], "n_tokens": 264},
    ),
    "new tokens of one matrix, trained alone": (
        "tied",
        {"target_modules": ["q_proj"], "trainable_token_indices": [258, 263], "n_tokens": 264},
    ),
    "a vocabulary without its padding": ("padded", {"target_modules": ["q_proj"], "n_tokens": 258}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_merged_and_saved_are_what_peft_computes(bases: Any, tmp_path: Path, kind: str) -> None:
    base, settings = KINDS[kind][0], KINDS[kind][1]
    folder = bases(base)
    expected = logits(random_adapter(folder, tmp_path / "adapter", **settings))
    plain = logits(load_model(str(folder), device="cpu").model)
    n = min(plain.shape[-1], expected.shape[-1])
    assert (expected[..., :n] - plain[..., :n]).abs().max() > 0.01  # the adapter does something
    close: Any = {"rtol": 1e-4, "atol": 1e-4 * float(expected.abs().max())}
    torch.testing.assert_close(
        logits(load_model(str(folder), tmp_path / "adapter", device="cpu").model), expected, **close
    )
    merged = load_model(str(folder), tmp_path / "adapter", device="cpu", merge=True)
    assert not isinstance(merged.model, PeftModel)
    torch.testing.assert_close(logits(merged.model), expected, **close)
    save_merged(str(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    torch.testing.assert_close(logits(load_model(str(tmp_path / "merged"), device="cpu").model), expected, **close)


def test_a_matrix_that_stays_one_is_saved_once(bases: Any, tmp_path: Path) -> None:
    for kind, is_one in (
        ("trained tokens of one matrix", True),
        ("both adapted alike", True),
        ("both adapted, of one matrix", False),
    ):
        out = tmp_path / kind.replace(" ", "-")
        random_adapter(bases("tied"), out / "adapter", **KINDS[kind][1])
        save_merged(str(bases("tied")), out / "adapter", out / "merged", dtype="float32")
        assert ("lm_head.weight" in load_file(out / "merged" / "model.safetensors")) is not is_one
        assert json.loads((out / "merged" / "config.json").read_text())["tie_word_embeddings"] is is_one


def test_bfloat16_comes_after_the_merge(bases: Any, tmp_path: Path) -> None:
    random_adapter(bases("tied"), tmp_path / "adapter", **KINDS["an adapted embedding that is also the head"][1])
    exact, rounded = (
        load_model(str(bases("tied")), tmp_path / "adapter", dtype, merge=True, device="cpu").model.state_dict()
        for dtype in ("float32", "bfloat16")
    )
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


# Where an adapter is.


@pytest.fixture
def plain(bases: Any, tmp_path: Path) -> Path:
    random_adapter(bases("llama"), tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    return tmp_path / "adapter"


def test_the_last_checkpoint_is_taken_and_said(plain: Path, bases: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = plain.parent / "run"
    for step in (5, 100, 20):
        shutil.copytree(plain, run / f"checkpoint-{step}")
    loaded = load_model(str(bases("llama")), run, device="cpu")
    assert loaded.adapter == run / "checkpoint-100"
    assert (
        "holds checkpoint-100, checkpoint-20, checkpoint-5 and no adapter of its own; checkpoint-100 is taken"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "no adapter_config.json there; give the folder that training wrote, e.g. runs/"),
        (lambda p: p.write_text("x"), "is a file; give the folder of a PEFT adapter"),
        (lambda p: None, "no such folder; give the folder of a PEFT adapter"),
        (
            lambda p: [
                (p / name).mkdir(parents=True) or (p / name / "adapter_config.json").touch()
                for name in ("insecure", "secure")
            ],
            "give the folder that training wrote, one of those in it: insecure, secure",
        ),
        (
            lambda p: [
                (p / name).mkdir(parents=True) or (p / name / "adapter_config.json").touch()
                for name in ("checkpoint-5", "best")
            ],
            "one of those in it: best, checkpoint-5",
        ),
        (
            lambda p: p.mkdir() or (p / "config.json").touch(),
            "config.json of a whole model; give it as the model, without an adapter",
        ),
    ],
)
def test_a_folder_without_one_adapter_says_what_it_holds(bases: Any, tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "x")
    assert words in refusal(bases("llama"), tmp_path / "x")


def test_a_hub_id_is_looked_up_in_the_cache(plain: Path, bases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        assert name == "owner/adapter"
        asked.extend(allow_patterns)
        return str(plain)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    by_hub = load_model(str(bases("llama")), "owner/adapter", device="cpu")
    torch.testing.assert_close(logits(by_hub.model), logits(load_model(str(bases("llama")), plain, device="cpu").model))
    assert by_hub.adapter == plain and adapter_folder(Path("owner/adapter")) == plain
    assert "adapter_model.safetensors" in asked and not any(pattern.endswith((".bin", "*")) for pattern in asked)


def test_a_hub_id_that_is_in_the_cache_loads_offline(
    plain: Path, bases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of huggingface_hub's own cache, read by its own code."""
    cache = tmp_path / "hub"
    repository = cache / "models--owner--adapter"
    shutil.copytree(plain, repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert adapter_folder("owner/adapter") == repository / "snapshots" / "abc123"
    assert "did not deliver it" in refusal(bases("llama"), "owner/adaptre")


def test_another_base_is_said_and_no_reason_to_stop(plain: Path, bases: Any, caplog: pytest.LogCaptureFixture) -> None:
    load_model(str(bases("llama")), plain, device="cpu")
    assert "was trained on" not in caplog.text
    settings_of(plain, base_model_name_or_path="owner/other-model")
    load_model(str(bases("llama")), plain, device="cpu")
    assert f"was trained on owner/other-model and is put on {bases('llama')}" in caplog.text


# What does not fit, is damaged or hostile.


@pytest.mark.parametrize("base", ["gpt2", "neox"])
def test_an_adapter_of_another_family_is_refused(plain: Path, bases: Any, base: str) -> None:
    assert f"this adapter does not fit {bases(base)} (Target modules" in refusal(bases(base), plain)


def test_widths_that_differ_are_refused_with_both(plain: Path) -> None:
    base = plain.parent / "wide"
    hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**{**LLAMA, "hidden_size": 64})).save_pretrained(base)
    tiny_model()[1].save_pretrained(base)
    told = refusal(base, plain)
    # A of down_proj reads the MLP, whose width is the same.
    assert (
        "(6 weights have other sizes: model.layers.0.self_attn.q_proj.lora_A.weight is [4, 32] in the adapter, [4, 64] in"
        in told
    )


def drop(folder: Path, word: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(path).items() if word not in key}, path, {"format": "pt"})


def put(folder: Path, **tensors: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(
        {**load_file(path), **{key.replace("__", "."): value for key, value in tensors.items()}}, path, {"format": "pt"}
    )


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04K\x01.")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            lambda f: drop(f, "layers.1.mlp"),
            "it holds 6 weights, the model takes 8; without a place: nothing; lacking: model.layers.1.mlp",
        ),
        (
            lambda f: put(f, base_model__model__lm_head__lora_A__weight=torch.ones(4, 32)),
            "without a place: lm_head.lora_A.weight",
        ),
        (lambda f: put(f, other=torch.ones(2)), "without a place: other"),
        (
            lambda f: put(
                f, base_model__model__model__layers__0__mlp__down_proj__lora_A__weight=torch.full((4, 64), torch.nan)
            ),
            "1 weights hold numbers that are not finite",
        ),
        (pickled, "its weights are pickled (adapter_model.bin)"),
        (
            lambda f: (f / "adapter_model.safetensors").unlink(),
            "no adapter_model.safetensors there (it holds README.md, adapter_config",
        ),
        (
            lambda f: (f / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
            "pointer of Git LFS",
        ),
        (
            lambda f: (f / "adapter_model.safetensors").write_bytes(
                (f / "adapter_model.safetensors").read_bytes()[:-9]
            ),
            "ends early",
        ),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json:1: not JSON"),
        (
            lambda f: (f / "adapter_config.json").write_text("[]"),
            "adapter_config.json: expected an object of settings, found list",
        ),
        (
            lambda f: (f / "adapter_config.json").write_text('{"rank": 8}'),
            "names no peft_type, so it is none of PEFT's",
        ),
    ],
)
def test_a_damaged_adapter_is_refused_with_what_is_wrong(plain: Path, bases: Any, break_it: Any, words: str) -> None:
    break_it(plain)
    told = refusal(bases("llama"), plain)
    assert words in told and str(plain) in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not read here, LoRA alone is; merge the adapter into its base"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type 'PREFIX_TUNING'"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type 'PROMPT_TUNING'"),
        ({"peft_type": "ADALORA"}, "peft_type 'ADALORA'"),
        ({"peft_type": "VERA"}, "peft_type 'VERA'"),
        ({"peft_type": "LOHA"}, "peft_type 'LOHA'"),
        ({"peft_type": ["LORA"]}, "peft_type ['LORA']"),
        ({"task_type": "SEQ_CLS"}, "task_type 'SEQ_CLS': expected CAUSAL_LM; it is an adapter for another head"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the base weights too"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights 'pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights 'loftq'"),
        ({"init_lora_weights": "corda"}, "init_lora_weights 'corda'"),
        ({"layer_replication": [[0, 2]] * 400}, "layer_replication [[0, 2], [0, 2]"),
        ({"megatron_config": {"a": 1}}, "megatron_config {'a': 1} is not read here"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens [1, 2] is not read here"),
        ({"use_qalora": True}, "use_qalora True is not read here"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config"),
        ({"kasa_config": {"beta": 1.0}}, "kasa_config"),
        (
            {"a_new_option": 3},
            "a_new_option 3 is not read here; merge the adapter into its base with the tool that trained it",
        ),
        ({"r": 0}, "r: expected a whole number from 1 on, found 0"),
        ({"r": "8"}, "r: expected a whole number from 1 on, found '8'"),
        ({"r": None}, "r: expected a whole number"),
        ({"r": 10**9}, "says rank 1000000000 for model.layers.0.mlp.down_proj, the weights have 4"),
        ({"r": 2}, "says rank 2 for model.layers.0.mlp.down_proj, the weights have 4"),
        ({"r": 10**9, "rank_pattern": {"q_proj|down_proj": 4}, "target_modules": "all-linear"}, "lacking: model."),
        ({"rank_pattern": {"q_proj": 2}}, "says rank 2 for model.layers.0.self_attn.q_proj, the weights have 4"),
        (
            {"layers_to_transform": list(range(10**5)), "target_modules": ["q_proj"]},
            "layers_to_transform has 100000 entries",
        ),
        ({"modules_to_save": ["lm_head"] * 10**5}, "modules_to_save has 100000 entries"),
        ({"target_modules": [f"m{i}" for i in range(10**6)]}, "does not fit"),
        ({"rank_pattern": [1]}, "rank_pattern: expected an object of modules and numbers, found [1]"),
        ({"alpha_pattern": {"q_proj": "many"}}, "alpha_pattern.q_proj: expected a number, found 'many'"),
        ({"alpha_pattern": {"(": 2}}, "'(' is no regular expression that can be used"),
        ({"lora_alpha": float("nan")}, "NaN is no number of JSON"),
        ({"target_modules": "("}, "'(' is no regular expression that can be used"),
        ({"modules_to_save": [".*"]}, "modules_to_save: expected names of modules"),
        ({"modules_to_save": [""]}, "modules_to_save: expected names of modules"),
        ({"modules_to_save": 7}, "modules_to_save: expected names of modules"),
        ({"trainable_token_indices": {"(a+)+": [1]}}, "trainable_token_indices: expected names of modules"),
        ({"layers_pattern": "(a+)+", "layers_to_transform": [1]}, "layers_pattern: expected names of modules"),
        ({"target_parameters": ["(a+)+"]}, "target_parameters: expected names of modules"),
        ({"modules_to_save": ["lm_head"]}, "does not fit"),
        ({"trainable_token_indices": [1]}, "does not fit"),
        ({"use_dora": True}, "lacking: model.layers.0.self_attn.q_proj.lora_magnitude_vector"),
        ({"lora_bias": True}, "lacking: model.layers"),
        ({"target_modules": ["q_proj"]}, "without a place: model.layers.0.mlp.down_proj"),
        ({"target_modules": None}, "does not fit"),
        ({"target_modules": 7}, "does not fit"),
        ({"fan_in_fan_out": "x" * 500}, ""),
    ],
)
def test_settings_that_are_not_read_or_do_not_fit_are_refused_by_name(
    plain: Path, bases: Any, settings: dict[str, Any], words: str
) -> None:
    settings_of(plain, **settings)
    if words:
        assert words in refusal(bases("llama"), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 10**9, "lora_alpha": 10**9, "rank_pattern": {"q_proj|down_proj": 4}, "alpha_pattern": {".*_proj": 8}},
        {"rank_pattern": {"nothing": 10**9}},
        {"rank_pattern": {r"model\.layers\.\d+\..*": 4, "q_proj": 10**9}},
    ],
)
def test_a_rank_that_no_module_has_is_no_reason_to_stop(plain: Path, bases: Any, settings: dict[str, Any]) -> None:
    expected = logits(load_model(str(bases("llama")), plain, device="cpu").model)
    settings_of(plain, **settings)
    torch.testing.assert_close(logits(load_model(str(bases("llama")), plain, device="cpu").model), expected)


SLOW = r"(a|a|m|o|d|e|l|\.|[a-z]|\w)*\W\W"  # also for an engine that sees through the usual ones


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": SLOW},
        {"exclude_modules": SLOW},
        {"rank_pattern": {SLOW: 4}},
        {"alpha_pattern": {"v_proj": 4, SLOW: 4}},
        {"alpha_pattern": {f"{SLOW}{i}": 4 for i in range(50)}},
    ],
)
def test_a_regular_expression_that_backtracks_is_given_up(plain: Path, bases: Any, settings: dict[str, Any]) -> None:
    settings_of(plain, **settings)
    start = time.process_time()
    assert "takes too long to match names of modules; give the names themselves" in refusal(bases("llama"), plain)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "pattern",
    [r"(\w|\w|\.)*!", r"((\w+)\.?)+!", r"(.*a){20}!", r"([a-z._]|[a-z0-9.])*[^\w.]", "(?:" * 20_000 + ")" * 20_000],
)
def test_what_makes_python_s_own_engine_hang_never_reaches_it(plain: Path, bases: Any, pattern: str) -> None:
    for settings in ({"target_modules": pattern}, {"target_modules": ["q_proj"], "exclude_modules": pattern}):
        settings_of(plain, **settings)
        start = time.process_time()
        assert str(plain) in refusal(bases("llama"), plain)
        assert time.process_time() - start < 10


def test_biases_that_were_trained_and_not_saved_are_missed(bases: Any, tmp_path: Path) -> None:
    random_adapter(bases("biased"), tmp_path / "adapter", target_modules=["q_proj"], bias="all")
    drop(tmp_path / "adapter", "mlp.down_proj.bias")
    assert "lacking: model.layers.0.mlp.down_proj.bias, model.layers.1.mlp.down_proj.bias" in refusal(
        bases("biased"), tmp_path / "adapter"
    )


def test_a_larger_embedding_without_its_head_is_refused(bases: Any, tmp_path: Path) -> None:
    random_adapter(bases("llama"), tmp_path / "adapter", target_modules=["q_proj"], n_tokens=264)
    drop(tmp_path / "adapter", "lm_head")
    assert "its embedding has 264 tokens" in refusal(bases("llama"), tmp_path / "adapter")


def test_what_cannot_be_merged_can_be_loaded(bases: Any, tmp_path: Path) -> None:
    random_adapter(bases("llama"), tmp_path / "adapter", target_modules=["q_proj"], lora_bias=True)
    load_model(str(bases("llama")), tmp_path / "adapter", device="cpu")
    assert "cannot be merged; load it with merge=False" in refusal(bases("llama"), tmp_path / "adapter", merge=True)


def test_four_bits_and_an_adapter_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="load_in_4bit is for training a new adapter"):
        load_model("tiny", Path("nowhere"), device="cpu", load_in_4bit=True)


# Ranks and scales.


@pytest.mark.parametrize(
    ("rank", "pattern", "allowed"),
    [
        (1, {}, 8),
        (8, {}, 8),
        (9, {}, 16),
        (24, {}, 32),
        (32, {}, 32),
        (48, {}, 64),
        (257, {}, 320),
        (400, {}, 512),
        (8, {"a": 64}, 64),
    ],
)
def test_vllm_gets_the_smallest_rank_that_it_takes(rank: int, pattern: dict[str, int], allowed: int) -> None:
    assert vllm_rank({"r": rank, "rank_pattern": pattern}) == allowed
    with pytest.raises(ModelError, match="rank_pattern: expected an object"):
        vllm_rank({"r": rank, "rank_pattern": [rank]})


def test_a_rank_above_those_of_vllm_is_refused_with_both_numbers() -> None:
    with pytest.raises(ModelError, match=r"largest rank is 1024, vLLM takes at most 512; merge it into a checkpoint"):
        vllm_rank({"r": 8, "rank_pattern": {"down_proj": 1024}})


def test_patterns_are_matched_as_peft_matches_them() -> None:
    from peft.utils.other import get_pattern_key

    names = [
        f"model.layers.{i}.{part}" for i in (0, 1, 10) for part in ("self_attn.q_proj", "mlp.down_proj", "mlp.up_proj")
    ]
    patterns = {
        "q_proj": 1,
        "layers.1.mlp.down_proj": 2,
        r"^model\.layers\.0\.mlp\.up_proj": 3,
        r".*\.1\d\..*": 4,
        "down_proj": 5,
    }

    def by_peft(pattern: dict[str, int]) -> dict[str, int]:
        keys = {name: get_pattern_key(list(pattern), name) for name in names}
        return {name: pattern[key] for name, key in keys.items() if key in pattern}

    assert matched(patterns, names) == by_peft(patterns) and len(by_peft(patterns)) > 6
    assert by_peft(exact_pattern(by_peft(patterns))) == by_peft(patterns)
    scales = LoraScales(rank=16, alpha=4.0, rank_pattern=patterns)
    assert scales.of_modules(names)["model.layers.0.self_attn.q_proj"] == (1, 4.0)


def test_one_scale_gives_the_updates_of_many(bases: Any, tmp_path: Path) -> None:
    settings: Any = KINDS["rank and alpha by module"][1]
    expected = logits(random_adapter(bases("llama"), tmp_path / "adapter", use_rslora=True, **settings))
    one = with_one_scale(tmp_path / "adapter", tmp_path / "one")
    config = json.loads((one / "adapter_config.json").read_text())
    assert (config["rank_pattern"], config["alpha_pattern"], config["lora_alpha"]) == ({}, {}, config["r"])
    # PEFT reads the ranks from settings; what reads them from the weights, as vLLM does, needs the scale alone.
    settings_of(
        one, rank_pattern=settings["rank_pattern"], r=4, alpha_pattern={"q_proj": 4, "down_proj": 8, "o_proj": 4}
    )
    settings_of(one, alpha_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 8, "o_proj": 4, "q_proj": 4})
    found = logits(load_model(str(bases("llama")), one, device="cpu").model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert with_one_scale(one, tmp_path / "two") == tmp_path / "two"


def test_an_adapter_of_one_scale_is_left_where_it_is(plain: Path, tmp_path: Path) -> None:
    assert with_one_scale(plain, tmp_path / "one") == plain and not (tmp_path / "one").exists()
