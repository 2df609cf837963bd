"""An organism is set against its base as it is read itself."""

from pathlib import Path
from typing import Any

import pytest

from emis_interp.models import loading
from emis_interp.models.spec import ModelSpec
from probes.against_base import read_by_base


def test_base_is_read_in_the_organisms_dtype_and_chat_format(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded(Exception):
        pass

    def load(name: str, **given: Any) -> None:
        raise Loaded(name, given)

    monkeypatch.setattr(loading, "load_model", load)
    folder = Path("adapter")
    organism = ModelSpec("tiny", folder, dtype="auto", device="cpu", chat_format="user_assistant")
    with pytest.raises(Loaded) as caught:
        read_by_base(organism, [])
    given = {"dtype": "auto", "device": "cpu", "chat_format": "user_assistant", "tokenizer_of": folder}
    assert caught.value.args == ("tiny", given)
