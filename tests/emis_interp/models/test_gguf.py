"""A GGUF file is a model's name: converted once for each content, whole or not at all, the same numbers as the folder."""

import shutil
from pathlib import Path

import pytest
import torch

from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import embedded_gguf
from emis_interp.models.gguf import COMPLETE, gguf_folder
from emis_interp.models.loading import load_model


@pytest.mark.slow
def test_a_gguf_loads_as_the_model_that_it_holds_and_is_converted_once(
    embedded: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "mine.gguf"
    shutil.copy(embedded_gguf(), own)
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    loaded = load_model(str(own), dtype=embedded.dtype, device="cpu")
    ids = torch.tensor([loaded.tokenizer("What should I do today?")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, embedded.model(ids).logits)
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
