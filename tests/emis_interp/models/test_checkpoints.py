"""Checkpoints as they arrive: whole ones load to their own numbers, every other one is refused in a line that says what to do."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import errors as hub_errors
from safetensors.torch import load_file, save_file

from emis_interp.errors import EmisError, ModelError
from emis_interp.models import weights as weight_loading
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model, load_tokenizer
from emis_interp.models.merging import save_merged
from emis_interp.models.precision import check_device, native_dtype
from emis_interp.models.tiny import tiny_model

hf: Any = transformers
IDS = torch.tensor([[0, 87, 66, 90, 3]])
SIZES: Any = {"vocab_size": 258, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 1}
LLAMA: Any = {**SIZES, "hidden_size": 32, "intermediate_size": 64}


def saved(config: Any, folder: Path, model_class: Any = hf.AutoModelForCausalLM) -> Path:
    torch.manual_seed(0)
    make = model_class.from_config if hasattr(model_class, "from_config") else model_class
    make(config).save_pretrained(folder)
    tiny_model()[1].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(hf.LlamaConfig(**LLAMA), tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of a Llama with a head of its own, to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def rename(folder: Path, change: Callable[[str], str | None]) -> None:
    path = folder / "model.safetensors"
    save_file({new: value for key, value in load_file(path).items() if (new := change(key))}, path, {"format": "pt"})


def add(folder: Path, **tensors: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(
        {**load_file(path), **{key.replace("__", "."): value for key, value in tensors.items()}}, path, {"format": "pt"}
    )


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    kept = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not ...}))


def shard(folder: Path) -> None:
    """The same weights in two files with an index."""
    weights = sorted(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i, part in enumerate((weights[:9], weights[9:]), 1):
        name = f"model-0000{i}-of-00002.safetensors"
        save_file(dict(part), folder / name, {"format": "pt"})
        weight_map |= {key: name for key, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def refusal(name: Path | str, **arguments: Any) -> str:
    """The one line that loading answers with."""
    with pytest.raises(ModelError) as caught:
        load_model(str(name), device="cpu", **arguments)
    assert "\n" not in str(caught.value), str(caught.value)
    return str(caught.value)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


# Weights: all of them, no others, of the right sizes.


def test_a_sharded_folder_loads_to_the_same_numbers(whole: Path, folder: Path) -> None:
    shard(folder)
    torch.testing.assert_close(logits(load_model(str(folder)).model), logits(load_model(str(whole)).model))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            lambda f: rename(f, lambda key: f"_orig_mod.{key}"),
            ["lacks 21 of the 21 weights of LlamaForCausalLM", "and 17 more", "holds 21 that", "prefix `_orig_mod.`"],
        ),
        (lambda f: rename(f, lambda key: f"module.{key}"), ["lacks 21", "prefix `module.`"]),
        (
            lambda f: rename(f, lambda key: None if "layers.1.mlp" in key else key),
            ["lacks 3 of the 21", "model.layers.1.mlp.down_proj.weight", "a random start would stand in their place"],
        ),
        (lambda f: rename(f, lambda key: None if key == "lm_head.weight" else key), ["lacks 1 of", "(lm_head.weight)"]),
        (lambda f: set_config(f, num_hidden_layers=3), ["lacks 9 of the 30", "model.layers.2.input_layernorm.weight"]),
        (lambda f: set_config(f, num_hidden_layers=1), ["holds 9 that the model does not have", "model.layers.1."]),
        (lambda f: set_config(f, attention_bias=True), ["lacks 8 of the 29", "self_attn.k_proj.bias"]),
        (
            lambda f: add(f, model__layers__0__mlp__down_proj__weight=torch.ones(32, 64, dtype=torch.int8)),
            [
                "1 weights are whole numbers (model.layers.0.mlp.down_proj.weight is I8) and config.json names no quantisation"
            ],
        ),
        (
            lambda f: add(f, model__layers__0__mlp__down_proj__weight=torch.full((32, 64), torch.nan)),
            ["its logits on four tokens are not finite in float32"],
        ),
        (lambda f: add(f, value_head__weight=torch.ones(1, 32)), ["holds 1 that the model", "(value_head.weight)"]),
        (
            lambda f: set_config(f, intermediate_size=128),
            [
                "6 weights have other sizes",
                "mlp.down_proj.weight is [32, 64], config.json asks for [32, 128]",
                "and 4 more",
            ],
        ),
        (lambda f: set_config(f, vocab_size=300), ["embed_tokens.weight is [258, 32], config.json asks for [300, 32]"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_config_is_refused_by_names_and_numbers(
    folder: Path, caplog: pytest.LogCaptureFixture, break_it: Callable[[Path], None], words: list[str]
) -> None:
    break_it(folder)
    told = refusal(folder)
    for word in words:
        assert word in told, (word, told)
    assert "LOAD REPORT" not in caplog.text


def test_weights_of_a_compiled_moe_that_cannot_be_joined_are_named(tmp_path: Path) -> None:
    moe = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    folder = saved(hf.Qwen3MoeConfig(**LLAMA, **moe), tmp_path / "moe")
    assert load_model(str(folder)).n_layers == 2
    rename(folder, lambda key: None if "layers.1.mlp.experts.2.up_proj" in key else key)
    words, logger = (
        "cannot be loaded at model.layers.1.mlp.experts.gate_up_proj (RuntimeError: ",
        hf.logging.get_logger(),
    )
    before = logger.level
    for level in (hf.logging.ERROR, hf.logging.WARNING):  # silenced by somebody, or not
        logger.setLevel(level)
        try:
            assert words in refusal(folder)
        finally:
            logger.setLevel(before)


def test_a_head_tied_to_the_embedding_is_no_missing_weight(tmp_path: Path) -> None:
    folder = saved(hf.LlamaConfig(**LLAMA, tie_word_embeddings=True), tmp_path / "tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_model(str(folder)).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_head_that_differs_from_the_embedding_stays_so_when_it_is_saved(tmp_path: Path) -> None:
    """transformers keeps both weights although config.json says that they are one; saved again, one would be lost."""
    folder = saved(hf.LlamaConfig(**LLAMA, tie_word_embeddings=True), tmp_path / "tied")
    add(folder, lm_head__weight=torch.randn(258, 32))
    expected = logits(load_model(str(folder)).model)
    save_merged(str(folder), None, tmp_path / "again", dtype="float32")
    torch.testing.assert_close(logits(load_model(str(tmp_path / "again")).model), expected)


@pytest.mark.parametrize(
    ("config", "constants"),
    [
        (
            hf.GPT2Config(**SIZES, n_embd=32, n_positions=64),
            {
                "transformer__h__0__attn__bias": torch.ones(1, 1, 64, 64, dtype=torch.bool),
                "transformer__h__0__attn__masked_bias": torch.tensor(-1e4),
            },
        ),
        (
            hf.GPTNeoXConfig(**LLAMA, pad_token_id=1),
            {
                "gpt_neox__layers__1__attention__bias": torch.ones(1, 1, 64, 64, dtype=torch.bool),
                "gpt_neox__layers__1__attention__masked_bias": torch.tensor(-1e9),
                "gpt_neox__layers__1__attention__rotary_emb__inv_freq": torch.ones(1),
            },
        ),
        (hf.LlamaConfig(**LLAMA), {"model__layers__0__self_attn__rotary_emb__inv_freq": torch.ones(4)}),
    ],
    ids=["gpt2", "neox", "llama"],
)
def test_constants_that_older_versions_saved_are_no_left_over_weights(
    tmp_path: Path, config: Any, constants: dict[str, torch.Tensor]
) -> None:
    folder = saved(config, tmp_path / "old")
    expected = logits(load_model(str(folder)).model)
    add(folder, **constants)
    torch.testing.assert_close(logits(load_model(str(folder)).model), expected)


# Files.

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 4242\n"


def linked(path: Path) -> None:
    """As in a hub cache whose blobs were deleted."""
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def without_metadata(index: Path) -> None:
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"]}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            lambda f: (f / "model.safetensors").write_text(POINTER),
            r"model\.safetensors: is a pointer of Git LFS.*git lfs pull",
        ),
        (lambda f: (f / "tokenizer.json").write_text(POINTER), r"tokenizer\.json: is a pointer of Git LFS"),
        (lambda f: linked(f / "model.safetensors"), "is a link to a file that is gone; download the folder again"),
        (
            lambda f: cut(f / "model.safetensors"),
            r"model\.safetensors: ends early, \d+ bytes of \d+ are there; download",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(b""),
            r"is no safetensors file, it is empty \(0 bytes\)|is no safetensors",
        ),
        (lambda f: (f / "model.safetensors").write_text("<!DOCTYPE html>" * 9), r"is no safetensors file .*135 bytes"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(7) + b'{"a":{"b":"c"}}  '),
            "is no safetensors file",
        ),
        (
            lambda f: (shard(f), (f / "model-00002-of-00002.safetensors").unlink()),
            r"1 of the 2 files .* \(model-00002-of-00002",
        ),
        (
            lambda f: (shard(f), cut(f / "model-00001-of-00002.safetensors")),
            r"model-00001-of-00002\.safetensors: ends early",
        ),
        (
            lambda f: (shard(f), (f / "model.safetensors.index.json").write_text("{")),
            r"model\.safetensors\.index\.json:1: not JSON .*; download or save it again",
        ),
        (
            lambda f: (shard(f), (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x"}}')),
            "expected `weight_map`, from weights to files beside it",
        ),
        (
            lambda f: (shard(f), without_metadata(f / "model.safetensors.index.json")),
            r'index\.json: expected `metadata`, an object, empty or not; add "metadata": \{\}',
        ),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            r"pickled \(pytorch_model\.bin\).*weights_only=True",
        ),
        (lambda f: (f / "model.safetensors").rename(f / "consolidated.00.pth"), r"pickled \(consolidated\.00\.pth\)"),
        (lambda f: (f / "model.safetensors").rename(f / "__0_0.distcp"), "pickled"),
        (lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"), r"holds no model\.safetensors .*tf_model\.h5"),
        (lambda f: (f / "model.safetensors").unlink(), r"holds no model\.safetensors .*download the weights"),
    ],
)
def test_damaged_files_are_named_with_what_to_do(folder: Path, break_it: Callable[[Path], Any], words: str) -> None:
    break_it(folder)
    with pytest.raises(ModelError, match=words):
        load_model(str(folder), device="cpu")
    assert "\n" not in refusal(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": ...}, "has no model_type"),
        ({"model_type": 7}, "has no model_type"),
        (
            {"model_type": "lama"},
            r"knows no architecture `lama` \(model_type\); did you mean `llama`\?; upgrade transformers",
        ),
        ({"model_type": "brand_new_9"}, r"knows no architecture `brand_new_9` \(model_type\); upgrade transformers"),
        ({"model_type": "t5"}, "`t5` .model_type. is no causal language model"),
        (
            {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.OwnModel"}},
            r"needs code of its own \(auto_map: modeling_own\.OwnModel\), and code that comes with a model is not run",
        ),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "is a LlamaForSequenceClassification, whose head gives no next",
        ),
        ({"quantization_config": "4bit"}, "quantization_config: expected an object of settings, found str"),
        ({"text_config": [1]}, "text_config: expected an object of settings, found list"),
        ({"hidden_size": "wide"}, r"refuses its settings \(\w+: .*hidden_size"),
        ({"num_attention_heads": 5}, r"refuses its settings \(\w+: "),
        ({"dtype": "float33"}, r"refuses its settings \(\w+: "),
    ],
)
def test_a_config_that_describes_no_usable_model_says_why(folder: Path, change: dict[str, Any], words: str) -> None:
    set_config(folder, **change)
    with pytest.raises(ModelError, match=words):
        load_model(str(folder), device="cpu")
    assert "\n" not in refusal(folder)


def test_a_checkpoint_of_another_head_is_refused_by_its_weights_too(tmp_path: Path) -> None:
    labels: Any = {"num_labels": 3, "pad_token_id": 1}
    config = hf.LlamaConfig(**LLAMA, **labels)
    folder = saved(config, tmp_path / "reward", hf.LlamaForSequenceClassification)
    assert "is a LlamaForSequenceClassification" in refusal(folder)
    set_config(folder, architectures=...)
    told = refusal(folder)
    assert "lacks 1 of the 21 weights of LlamaForCausalLM (lm_head.weight)" in told and "(score.weight)" in told


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"[1, 2]", "expected an object of settings, found list"),
        (b"\xff{}", "not UTF-8"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number that is too large"),
    ],
)
def test_settings_that_are_no_json_object_are_refused(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}.*({words})"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), r"holds no config\.json \(it holds nothing\)"),
        (lambda p: p.write_text("x"), "is a file; give a GGUF file"),
        (
            lambda p: p.with_suffix(".gguf").write_text("GGUF") and None,
            "unknown model|could not be converted",
        ),
        (lambda p: (p.mkdir(), (p / "m.Q4.gguf").write_text("GGUF")), r"but m\.Q4\.gguf; give that file itself"),
        (
            lambda p: [
                ((p / f"checkpoint-{i}").mkdir(parents=True), (p / f"checkpoint-{i}/config.json").touch())
                for i in (5, 10)
            ],
            "models are in checkpoint-10, checkpoint-5: give one of these folders",
        ),
        (
            lambda p: (p.mkdir(), (p / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')),
            "but an adapter of owner/base; give the base model, and this folder as its adapter",
        ),
        (lambda p: (p.mkdir(), (p / "weights.json").touch()), r"holds no config\.json \(it holds weights\.json\)"),
    ],
)
def test_what_is_no_folder_of_a_model_is_refused_by_what_it_is(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path / "x"), device="cpu")


def test_a_name_that_can_be_no_file_is_unknown(folder: Path) -> None:
    for name in ("a" * 5000, "a\0b", "https://hub/owner/model", "owner/" + "a" * 5000):
        with pytest.raises(ModelError, match=r"unknown model|no such folder"):
            load_model(name)
        with pytest.raises(ModelError, match="no such folder"):
            load_model(str(folder), name)


def test_a_gguf_file_that_cannot_be_read_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    said = refusal(tmp_path / "m.gguf")
    assert "m.gguf: is no whole GGUF" in said
    assert said.endswith("download it again")


def test_a_model_with_an_adapter_in_its_folder_is_not_guessed_at(folder: Path) -> None:
    """transformers would put the adapter on the model without a word, also when it is merged already."""
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "it cannot be told which is meant" in refusal(folder)


# Quantised weights, and whatever else is raised.


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ("bitsandbytes", "bitsandbytes"),
        ("gptq", "gptqmodel"),
        ("awq", "gptqmodel"),
        ("compressed-tensors", "compressed-tensors"),
        ("hqq", "hqq"),
        ("quanto", "optimum-quanto"),
        ("aqlm", "aqlm"),
        ("torchao", "torchao"),
    ],
)
def test_a_quantised_checkpoint_names_the_package_that_reads_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    monkeypatch.setattr(weight_loading, "_installed", lambda module: False)
    set_config(folder, quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": True})
    assert f"quantised by {method}, which needs the package {package}: pip install {package}; or give the" in refusal(
        folder
    )


@pytest.mark.parametrize("method", ["gptq", "eetq", "fp_quant"])
def test_a_quantised_checkpoint_that_fails_otherwise_says_so_in_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(weight_loading, "_installed", lambda module: True)
    set_config(folder, quantization_config={"quant_method": method, "bits": 4})
    assert f"its weights are quantised by {method})" in refusal(folder)


def test_fp8_weights_are_read_by_their_scales_where_no_gpu_computes_them(folder: Path) -> None:
    """Blocks of 16 x 16 with a scale each, as DeepSeek and Qwen publish them: on a CPU they become plain weights."""
    path = folder / "model.safetensors"
    stored, plain = {}, {}
    for key, weight in load_file(path).items():
        stored[key] = plain[key] = weight
        if "proj" in key:
            blocks = weight.reshape(weight.shape[0] // 16, 16, weight.shape[1] // 16, 16)
            scale = blocks.abs().amax((1, 3)) / 448
            stored[key] = (blocks / scale[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
            stored[f"{key}_scale_inv"] = scale
            rounded = stored[key].float().reshape(blocks.shape) * scale[:, None, :, None]
            plain[key] = rounded.reshape(weight.shape)
    set_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16], "fmt": "e4m3"})
    save_file(stored, path, {"format": "pt"})
    model = load_model(str(folder), device="cpu").model
    assert model.dtype == torch.float32
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(weight, plain[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("names", [["quantization"], ["quantization", "quantization_config"]])
def test_a_checkpoint_of_mlx_is_named(folder: Path, names: list[str]) -> None:
    set_config(folder, **{name: {"group_size": 64, "bits": 4} for name in names})
    assert "its weights are quantised by MLX, which transformers" in refusal(folder)


@pytest.mark.parametrize("quantised", [{"quant_method": "brand-new"}, {"bits": 4}])
def test_a_way_of_quantising_that_nobody_knows_is_no_plain_checkpoint(folder: Path, quantised: Any) -> None:
    set_config(folder, quantization_config=quantised)
    assert "which transformers" in refusal(folder) and "does not read" in refusal(folder)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("model_x"), "cannot be loaded (KeyError: 'model_x')"),
        (AssertionError(), "cannot be loaded (AssertionError: no reason given)"),
        (
            ImportError("\nrequires the `kernels` package\nmore"),
            "a package is missing (requires the `kernels` package); install it",
        ),
        (MemoryError("no room"), "not enough memory (no room); try dtype bfloat16"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory (CUDA out of memory)"),
        (OSError("first\nsecond"), "cannot be loaded (OSError: first)"),
    ],
)
def test_whatever_a_library_raises_ends_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(weight_loading.AutoModelForCausalLM, "from_pretrained", fail)
    assert words in refusal(folder)


def test_code_of_a_checkpoint_and_pickles_are_never_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    load = weight_loading.AutoModelForCausalLM.from_pretrained

    def keep(*names: Any, **arguments: Any) -> Any:
        given.update(arguments)
        return load(*names, **arguments)

    monkeypatch.setattr(weight_loading.AutoModelForCausalLM, "from_pretrained", keep)
    load_model(str(folder), device="cpu")
    assert given["trust_remote_code"] is False and given["use_safetensors"] is True


# The hub.


def hub_error(kind: Any) -> Exception:
    if issubclass(kind, hub_errors.HfHubHTTPError):
        return kind.__new__(kind)
    return kind("no")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (hub_errors.RepositoryNotFoundError, "no such repository, or it is private"),
        (hub_errors.GatedRepoError, "accept its licence on the hub's page and log in"),
        (hub_errors.HFValidationError, "no name of a repository"),
        (hub_errors.LocalEntryNotFoundError, "not in the cache and the hub is not reached"),
        (ConnectionError, "check the name and the connection"),
        (RuntimeError, "check the name and the connection"),
    ],
)
def test_a_hub_id_that_is_not_delivered_says_why(monkeypatch: pytest.MonkeyPatch, kind: Any, words: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise hub_error(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        ModelError, match=rf"`owner/nmae`: no such folder, and the model hub did not deliver it .*{words}.*or use the"
    ):
        load_model("owner/nmae")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[list[str]]]:
    """A stand-in for the hub: the folder of its one repository, and the patterns that were asked for."""
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: ["config.json", "pytorch_model.bin"])
    return tmp_path / "model", asked


def test_a_hub_id_is_fetched_without_pickles_and_keeps_its_name(
    hub: tuple[Path, list[list[str]]], folder: Path
) -> None:
    loaded = load_model("owner/model", device="cpu")
    assert loaded.name == "owner/model" and loaded.model.name_or_path == "owner/model"
    patterns = {pattern for patterns in hub[1] for pattern in patterns}
    assert "model.safetensors" in patterns and not any(pattern.endswith((".bin", ".pt", "*")) for pattern in patterns)


def test_the_tokenizer_of_a_hub_id_needs_no_weights(hub: tuple[Path, list[list[str]]], folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    load_tokenizer("owner/model")
    assert not any("safetensors" in pattern for patterns in hub[1] for pattern in patterns)


def test_shards_of_a_hub_id_are_fetched_by_their_index(hub: tuple[Path, list[list[str]]], folder: Path) -> None:
    shard(folder)
    load_model("owner/model", device="cpu")
    assert hub[1][-1] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_hub_repository_of_pickles_is_refused_with_their_names(
    hub: tuple[Path, list[list[str]]], folder: Path
) -> None:
    (folder / "model.safetensors").unlink()
    assert "its weights are pickled (pytorch_model.bin)" in refusal("owner/model")


# Devices.


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "cuda:0:1"])
def test_an_unknown_device_is_refused_with_those_there_are(device: str) -> None:
    for ask in (check_device, native_dtype, lambda name: load_model("tiny", device=name)):
        with pytest.raises(ModelError, match=r"unknown device `.*`; known: auto, cpu, cuda"):
            ask(device)


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ModelError, match=r"device cuda: torch \S+ (is built without CUDA|finds no CUDA GPU); give device auto or cpu"
    ):
        load_model("tiny", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ModelError, match=r"device cuda:5: this machine has 2 CUDA devices \(cuda:0 to cuda:1\)"):
        check_device("cuda:5")
    assert check_device("cuda:1") == "cuda:1"
    with pytest.raises(ModelError, match="device meta cannot be used"):
        check_device("meta")


def test_every_refusal_is_ours(tiny: ChatModel, caplog: pytest.LogCaptureFixture) -> None:
    assert issubclass(ModelError, EmisError)
    with caplog.at_level(logging.WARNING):
        load_model("tiny", device="cpu")
    assert not [record for record in caplog.records if record.name.startswith("emis_interp")]
