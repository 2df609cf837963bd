"""Makes GGUFs: one of a few bytes, one cut down from another, in parts too, and one whose weights llama.cpp computes with as
they are: another one's, dequantised to float32."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def cut_down(source: Path, parts: Sequence[Path], n_blocks: int = 2, n_tokens: int = 2000) -> None:
    """The first blocks and tokens of a GGUF's model, its quantised weights as they are, in as many files as there are paths, split as
    llama.cpp does."""
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    tensors = [
        one for one in reader.tensors if not one.name.startswith("blk.") or int(one.name.split(".")[1]) < n_blocks
    ]
    changed: dict[str, Any] = {f"{architecture}.block_count": n_blocks, f"{architecture}.vocab_size": n_tokens}
    names = ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type"]
    changed |= {name: reader.fields[name].contents()[:n_tokens] for name in names}
    tokens, merges = set(changed[names[0]]), reader.fields["tokenizer.ggml.merges"].contents()
    known = [merge for merge in merges if {merge.replace(" ", ""), *merge.split(" ")} <= tokens]
    size = -(-len(tensors) // len(parts))
    for number, path in enumerate(parts):
        writer = gguf.GGUFWriter(path, architecture)
        if number == 0:
            _add_keys(writer, reader, {**changed, "tokenizer.ggml.merges": known})
        if len(parts) > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", len(parts))
            writer.add_int32("split.tensors.count", len(tensors))
        for tensor in tensors[number * size : (number + 1) * size]:
            rows = tensor.data[:n_tokens] if tensor.name == "token_embd.weight" else tensor.data
            writer.add_tensor(tensor.name, rows, raw_dtype=tensor.tensor_type)
        write_out(writer)


def in_float32(source: Path, target: Path) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    _add_keys(writer, reader, {"general.file_type": int(gguf.LlamaFileType.ALL_F32)})
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    write_out(writer)


def small_gguf() -> bytes:
    """With a key, a list and one tensor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint32("llama.block_count", 1)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
        writer.add_uint32("general.file_type", 0)
        writer.add_int32("split.tensors.count", 1)
        writer.add_tensor("x.weight", np.zeros((4, 4), np.float32))
        write_out(writer)
        return path.read_bytes()


def _add_keys(writer: gguf.GGUFWriter, reader: gguf.GGUFReader, changed: Mapping[str, Any]) -> None:
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = changed[field.name] if field.name in changed else field.contents()
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)


def write_out(writer: gguf.GGUFWriter) -> None:
    """The file of a writer that has all of its keys and tensors."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
