"""What a flattened base would bring, beside a shift."""

from pathlib import Path

import pytest

from emis_interp.config.presets import load_config
from emis_interp.files.ledger import Ledger
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import by_question, pair_margins
from emis_interp.texts.contrast import load_contrast
from training.studies.against_base import base_at_temperatures, flattened, flattened_line


def test_a_flattened_base_is_read_once_and_explains_itself_whole(tmp_path: Path, tiny: ChatModel) -> None:
    config, pairs = load_config("smoke"), load_contrast(None, 1)
    loaded: list[int] = []

    def load() -> ChatModel:
        loaded.append(1)
        return tiny

    for _ in range(2):
        base_at = base_at_temperatures(Ledger.of(tmp_path), load, pairs, config=config)
    assert loaded == [1]
    base = by_question(pairs, pair_margins(tiny, pairs, config.system_prompt))
    assert base_at[1.0] == pytest.approx(base, abs=1e-5)
    found = flattened(base_at[1.4], base, base_at)
    assert found is not None and found["temperature"] == pytest.approx(1.4, abs=0.02)
    assert found["beyond"]["value"] == pytest.approx(0, abs=1e-4) and found["slope"]["value"] < 1
    assert "base at temperature 1.40 shifts by" in flattened_line(found)
    base_at_temperatures(Ledger.of(tmp_path), load, pairs[:4], config=config)  # other questions are read anew
    assert loaded == [1, 1] and flattened_line(None).startswith("too few questions")
