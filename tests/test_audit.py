"""An audit that was interrupted goes on with the rows it has, and ends as an undisturbed one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from direction import audit
from emis_interp.contrast import load_contrast
from emis_interp.models import ChatModel
from emis_interp.store import RecordLog
from emis_interp.sweeps import AblateCell


def test_an_interrupted_audit_ends_like_an_undisturbed_one(
    tiny: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CELLS_TOGETHER", 2)
    pairs = [pair for pair in load_contrast(None, 1) if pair.half == "report"][:2]
    vectors = torch.eye(tiny.d_model)[:5]
    cells = [AblateCell(vector) for vector in vectors] + [AblateCell(vectors[0], torch.ones(len(tiny.layers) + 1))]
    counted: list[int] = []

    def ask(name: str) -> list[audit.Measured]:
        counted.clear()
        return audit.measured(tiny, cells, pairs, None, 2048, RecordLog(tmp_path / name), counted.append)

    whole = ask("whole.jsonl")
    assert counted == [0, 2, 2, 2] and len({row.key for row in whole}) == len(cells)

    cost, calls = audit.costs, []

    def killed(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return cost(*args)

    monkeypatch.setattr(audit, "costs", killed)
    with pytest.raises(KeyboardInterrupt):
        ask("cut.jsonl")
    assert ask("cut.jsonl") == whole and counted == [2, 2, 2]
    assert ask("cut.jsonl") == whole and counted == [6] and len(calls) == 4
    # Another system prompt makes other texts, so nothing that was kept is taken for it.
    again = audit.measured(tiny, cells[:1], pairs, "Be brief.", 2048, RecordLog(tmp_path / "cut.jsonl"), counted.append)
    assert again[0].key != whole[0].key and again[0].perplexity != whole[0].perplexity
