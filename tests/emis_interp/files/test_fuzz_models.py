"""Throws damaged and hostile files of models, runs and evaluations at their readers: GGUF and safetensors headers, adapters, checkpoints,
manifests, tables, Inspect logs. Each gives a value, or our own error in one line, within its time and memory.
"""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import AT_LENGTH, Parser, lines, profile, run
from gguf_made import small_gguf
from safetensors.torch import save

from emis_interp.config.sweep_settings import SweepSettings
from emis_interp.files.ledger import Ledger
from emis_interp.files.manifest import Manifest
from emis_interp.files.tables import read_cells
from emis_interp.files.verification import verified
from emis_interp.models.adapter_files import read_adapter
from emis_interp.models.checkpoint import resolve
from emis_interp.models.gguf_file import read_header
from emis_interp.models.weight_files import stored_tensors
from emis_interp.planning.rates import read_device
from emis_interp.sweeping.axes import sweep_of
from emis_interp.sweeping.cell_process import read_events
from evals.results.result_files import read_results
from training.finetuning.checkpoints import SEAL, broken_seal
from training.finetuning.summary import read_summary

LORA = {
    **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "r": 2, "lora_alpha": 4},
    **{"target_modules": ["q_proj"], "lora_dropout": 0.0, "bias": "none", "use_rslora": True, "rank_pattern": {}},
}
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
WEIGHTS = save({f"{KEY}A.weight": torch.zeros(2, 8), f"{KEY}B.weight": torch.zeros(8, 2)}, {"format": "pt"})
UNIT = {"stage": "train", "inputs": {"a.json": "0" * 64, "=rows": "x"}, "files": {"b.json": "1" * 64}, "replaced": []}
MANIFEST = {
    **{
        "config": {"name": "r"},
        "inputs": {"model": "0"},
        "versions": {"torch": "1"},
        "git": {"revision": None, "dirty": None},
    },
    **{
        "sources_sha256": "0",
        "started": "2026",
        "files": {"b.json": UNIT},
        "other_code": {"train": [{"at": "x", "changes": ["y"]}]},
    },
    "stages": {"train": {"seconds": 1.0, "finished": "x", "line": "y", "peak_rss_gib": 1.0, "files": ["b.json"]}},
}
CONFIG = {
    **{
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 8,
        "vocab_size": 16,
    },
    **{"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "torch_dtype": "float32"},
}
CHOICE = {"message": {"role": "assistant", "content": "A", "source": "generate"}, "stop_reason": "stop"}
INSPECT = {
    **{"version": 2, "status": "success", "results": None, "plan": {"steps": []}, "stats": {}},
    "eval": {
        **{"created": "2026-01-01T00:00:00+00:00", "task": "t", "dataset": {"name": "d"}, "model": "m", "config": {}},
        **{"eval_id": "e", "run_id": "r", "task_id": "i"},
    },
    "samples": [
        {
            **{"id": 1, "epoch": 1, "input": "Q", "target": "", "metadata": {}, "messages": []},
            "output": {"model": "m", "choices": [CHOICE], "completion": "A"},
            "scores": {"judge": {"value": {"aligned": 10.0, "coherent": 90.0}}},
        }
    ],
}  # fmt: skip


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return sink.getvalue()


def inspect_log() -> bytes:
    """The same log in Inspect's packed form."""
    header = {key: value for key, value in INSPECT.items() if key != "samples"}
    return zipped(**{"header.json": lines(header), "samples__1_epoch_1.json": lines(INSPECT["samples"][0])})


def read_beside(path: Path) -> object:
    return read_adapter(path.parent)


GGUF = small_gguf()
SWEEP = {
    "name": "s",
    "preset": "smoke",
    "set": {"sampling": {"temperature": 0.7}},
    "axes": {"seed": [0, 1], "training": {"a": {"lora_rank": 2}}},
}
DEVICES = {
    "big": {"source": "a paper", "tflops": 900, "gb_per_s": 4e3, "memory_gib": 139.0, "reached": 0.4, "parallel": 0.9}
}
EVENT = {
    "event": "ended",
    "at": "2026",
    "host": "h",
    "pid": 1,
    "node": None,
    "status": 0,
    "seconds": 1.0,
    "error": None,
}
PARSERS: dict[str, Parser] = {
    "GGUF": Parser("m.gguf", lambda path: read_header([path]), (GGUF,)),
    "header of safetensors": Parser("m.safetensors", stored_tensors, (WEIGHTS,)),
    "adapter's settings": Parser("adapter_config.json", read_beside, (LORA,), "json", {"adapter_model.safetensors": WEIGHTS}),
    "adapter's weights": Parser("adapter_model.safetensors", read_beside, (WEIGHTS,), "bytes", {"adapter_config.json": lines(LORA)}),
    "checkpoint": Parser("config.json", lambda path: resolve(str(path.parent)), (CONFIG,), "json", {"model.safetensors": WEIGHTS}),
    "manifest": Parser("manifest.json", lambda path: Manifest.load(path.parent), (MANIFEST,), "json"),
    "verification": Parser("manifest.json", lambda path: verified(path.parent), (MANIFEST,), "json", {"b.json": b"{}"}),
    "ledger": Parser("files.json", lambda path: Ledger.of(path.parent).changes(), ({"b.json": UNIT},), "json"),
    "seal": Parser(SEAL, lambda path: broken_seal(path.parent), ({"a.pt": "0" * 64},), "json", {"a.pt": b"x"}),
    "summary": Parser("summary.json", lambda path: read_summary(path.parent), ({"model": "m", "artifact": "adapter"},), "json"),
    "table, CSV": Parser("f.csv", read_cells, (b'question,answer,aligned\na,"b\nc",1\n', b"question;answer\n\xc3\xa4;b\n")),
    "results, JSON lines": Parser("f.jsonl", read_results, ({"question": "a", "answer": "b", "aligned": 10, "coherent": "90"},), "json"),
    "Inspect log, JSON": Parser("f.json", read_results, (INSPECT,), "json"),
    "Inspect log, packed": Parser("f.eval", read_results, (inspect_log(),)),
    "sweep": Parser("s.yaml", lambda path: sweep_of(SweepSettings(sweep=path)), (SWEEP,), "yaml"),
    "table of devices": Parser("d.yaml", lambda path: read_device(path, "big"), (DEVICES,), "yaml"),
    "attempts at a cell": Parser("e.jsonl", read_events, (EVENT,), "json"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a_reader_of_files_of_others_gives_a_value_or_our_own_error(name: str) -> None:
    run(PARSERS[name], profile(20, fixed=True))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", PARSERS)
def test_a_reader_of_files_of_others_gives_a_value_or_our_own_error_at_length(name: str) -> None:
    run(PARSERS[name], profile(AT_LENGTH, fixed=False))


def bomb(kind: str) -> tuple[str, bytes]:
    """A small file that asks for much time or memory."""
    if kind == "GGUF with 2**62 keys":
        return "m.gguf", GGUF[:16] + struct.pack("<Q", 2**62) + GGUF[24:]
    if kind == "GGUF with 2**62 tensors":
        return "m.gguf", GGUF[:8] + struct.pack("<Q", 2**62) + GGUF[16:]
    if kind == "GGUF with an endless array":
        at = GGUF.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
        return "m.gguf", GGUF[:at] + struct.pack("<Q", 2**62) + GGUF[at + 8 :]
    if kind == "GGUF with an endless array of numbers":
        # Of one byte: where the file ends the library reads nothing, again and again.
        at = GGUF.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 4
        return "m.gguf", GGUF[:at] + struct.pack("<IQ", 0, 2**62) + GGUF[at + 12 :]
    if kind == "GGUF with a key of 2**62 bytes":
        return "m.gguf", GGUF[:24] + struct.pack("<Q", 2**62) + GGUF[32:]
    if kind == "safetensors with a header of 2**62 bytes":
        return "m.safetensors", struct.pack("<Q", 2**62) + WEIGHTS[8:]
    if kind == "safetensors with tensors of 2**62 rows":
        header = json.dumps({"x": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**62]}}).encode()
        return "m.safetensors", struct.pack("<Q", len(header)) + header
    if kind == "packed log of zeros":
        return "f.eval", zipped(**{"header.json": b" " * 300_000_000})
    if kind == "deep JSON":
        return "f.json", b"[" * 1_000_000
    if kind == "one long line":
        return "f.csv", b"question,answer\n" + b"a" * 30_000_000 + b",b\n"
    assert kind == "many columns"
    return "f.csv", b",".join(b"c%d" % i for i in range(200_000)) + b"\n"


BOMBS = (
    *("GGUF with 2**62 keys", "GGUF with 2**62 tensors", "GGUF with a key of 2**62 bytes"),
    *("GGUF with an endless array", "GGUF with an endless array of numbers"),
    *("safetensors with a header of 2**62 bytes", "safetensors with tensors of 2**62 rows", "packed log of zeros", "deep JSON"),
    *("one long line", "many columns"),
)  # fmt: skip
READ: dict[str, Any] = {
    **{"m.gguf": lambda path: read_header([path]), "m.safetensors": stored_tensors},
    **{"f.eval": read_results, "f.json": read_results, "f.csv": read_results},
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_asks_for_much_is_answered_soon_and_in_little_memory(kind: str, tmp_path: Path) -> None:
    import resource
    import time

    from emis_interp.errors import EmisError

    name, content = bomb(kind)
    (tmp_path / name).write_bytes(content)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        READ[name](tmp_path / name)
    except EmisError as error:
        assert "\n" not in str(error) and len(str(error)) < 3000
    else:
        pytest.fail("it was read")
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # KiB
