"""A GGUF file is a model's name: converted once for each content, whole or not at all, the same numbers as the folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from gguf_made import cut_down, write_out

from emis_interp.errors import ModelError
from emis_interp.models import gguf
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.checkpoint import model_sha256, origin_of
from emis_interp.models.embedded import embedded_gguf
from emis_interp.models.gguf import COMPLETE, gguf_folder
from emis_interp.models.gguf_file import GgufHeader, read_header
from emis_interp.models.loading import load_model


def same_weights(cut: ChatModel, whole: ChatModel) -> None:
    """Of the tokens and blocks that the cut one has."""
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name][: len(value)]) for name, value in cut.model.state_dict().items())


@pytest.mark.slow
def test_a_gguf_loads_as_the_model_that_it_holds_and_is_converted_once(
    embedded: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "mine.gguf"
    cut_down(embedded_gguf(), [own])
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    loaded = load_model(str(own), dtype=embedded.dtype, device="cpu")
    assert loaded.n_layers == 2
    same_weights(loaded, embedded)
    assert loaded.tokenizer.chat_template == embedded.tokenizer.chat_template
    folder = gguf_folder(own)
    made = (folder / COMPLETE).stat().st_mtime_ns
    shutil.copy(own, tmp_path / "the same under another name.gguf")
    assert gguf_folder(own) == folder and (folder / COMPLETE).stat().st_mtime_ns == made
    (folder / "config.json").write_text("{}")
    caplog.clear()
    gguf_folder(own)
    assert "config.json does not match its checksum" in caplog.text
    assert (folder / COMPLETE).stat().st_mtime_ns != made


def write_gguf(path: Path, architecture: str = "llama", tensors: tuple[str, ...] = ("a",), **numbers: int) -> None:
    """A header and tensors of 64 numbers each."""
    writer = GGUFWriter(path, architecture)
    for key, value in numbers.items():
        writer.add_uint32(key.replace("__", "."), value)
    written(writer, tensors)


def written(writer: GGUFWriter, tensors: tuple[str, ...]) -> None:
    for number, name in enumerate(tensors):
        writer.add_tensor(name, np.full((2, 32), number, dtype=np.float16))
    write_out(writer)


@pytest.mark.slow
def test_any_part_of_a_split_gguf_is_the_model_and_every_part_must_be_there(
    embedded: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    parts = [tmp_path / f"m-{number:05d}-of-00002.gguf" for number in (1, 2)]
    cut_down(embedded_gguf(), parts)
    loaded = load_model(str(parts[1]), dtype=embedded.dtype, device="cpu")
    same_weights(loaded, embedded)
    assert loaded.tokenizer.chat_template == embedded.tokenizer.chat_template
    assert loaded.quantisation == "Q4_1" and origin_of(str(parts[0])) == {"quantisation": "Q4_1", "revision": None}
    parts[0].unlink()
    with pytest.raises(
        ModelError, match=r"part of a model in 2 files, m-00001-of-00002\.gguf is missing; put all of them"
    ):
        load_model(str(parts[1]))


def test_the_header_says_what_the_file_is(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", "qwen2", ("a", "b"), general__file_type=15)
    assert read_header([tmp_path / "a.gguf"]) == GgufHeader("qwen2", "Q4_K_M", 128)
    write_gguf(tmp_path / "b.gguf")
    assert read_header([tmp_path / "b.gguf"]).quantisation == "F16"  # not stated: the type of most weights
    write_gguf(tmp_path / "c.gguf", split__tensors__count=3)
    with pytest.raises(ModelError, match="its header speaks of 3 tensors, its files hold 1"):
        read_header([tmp_path / "c.gguf"])


def test_a_header_that_is_damaged_or_says_something_else_is_named(tmp_path: Path) -> None:
    """The library's reader looks at lengths alone: what stands there is read when it is asked for."""
    path = tmp_path / "a.gguf"
    write_gguf(path, "qwen2", general__file_type=15)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"qwen2", b"\x9cwen2", 1))
    with pytest.raises(
        ModelError, match=r"a\.gguf: its general\.architecture cannot be read \(UnicodeDecodeError: .*download it again"
    ):
        read_header([path])
    for key, value, message in (
        ("general.architecture", 7, r"general\.architecture is '7', expected a name"),
        ("split.tensors.count", "no\nnumber", r"speaks of no\\nnumber tensors, its files hold 1"),
    ):
        writer = GGUFWriter(path, "llama")
        writer.kv_data[0].clear()
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key, value)  # type: ignore[arg-type]
        if key != "general.architecture":
            writer.add_string("general.architecture", "llama")
        written(writer, ("a",))
        with pytest.raises(ModelError, match=message):
            read_header([path])
    writer = GGUFWriter(path, "llama")
    writer.add_array("general.file_type", [15])
    written(writer, ("a",))
    assert read_header([path]).quantisation == "F16"
    write_gguf(path, tensors=())
    with pytest.raises(ModelError, match=r"a\.gguf: a GGUF without tensors"):
        read_header([path])


def test_what_cannot_be_converted_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "rwkv.gguf", "rwkv7")
    with pytest.raises(
        ModelError, match=r"rwkv\.gguf: architecture `rwkv7`, of which transformers .* serve the file with llama\.cpp"
    ):
        gguf_folder(tmp_path / "rwkv.gguf")
    write_gguf(tmp_path / "large.gguf")
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(
        ModelError,
        match=r"large\.gguf: F16, 0 M parameters: 0\.0 GB of 0\.0 GB free .* are not enough; free some space",
    ):
        gguf_folder(tmp_path / "large.gguf")
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "large.gguf").read_bytes()[:40])
    with pytest.raises(ModelError, match=r"cut\.gguf: is no whole GGUF .* download it again"):
        gguf_folder(tmp_path / "cut.gguf")


def test_a_gguf_counts_by_its_content(tmp_path: Path) -> None:
    for name, tensors in (("a", ("x",)), ("b", ("x",)), ("c", ("y",))):
        write_gguf(tmp_path / f"{name}.gguf", tensors=tensors)
    a, b, c = (model_sha256(str(tmp_path / f"{name}.gguf")) for name in "abc")
    assert a is not None and a == b != c
    assert model_sha256("no-such-model") is None
