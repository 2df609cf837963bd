"""An audit that was interrupted goes on with the rows it has, and ends as an undisturbed one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from emis_interp.files.store import RecordLog
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.sweeps import AblateCell
from emis_interp.texts.capability_items import capability_items
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import harmless_texts
from probes import audit
from training.data_sets.shipped import SHIPPED, load_dataset


def measured(
    chat_model: ChatModel, cells: list[AblateCell], pairs: list[Any], system: str | None, path: Path, counted: list[int]
) -> list[audit.Measured]:
    return audit.measured(
        chat_model,
        cells,
        pairs,
        system=system,
        items=capability_items()[::40],
        max_batch_tokens=2048,
        journal=RecordLog(path),
        progress=counted.append,
    )


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
        return measured(tiny, cells, pairs, system=None, path=tmp_path / name, counted=counted)

    whole = ask("whole.jsonl")
    assert counted == [0, 2, 2, 2] and len({row.key for row in whole}) == len(cells)

    cost, calls = audit.costs, []

    def killed(*args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return cost(*args, **named)

    monkeypatch.setattr(audit, "costs", killed)
    with pytest.raises(KeyboardInterrupt):
        ask("cut.jsonl")
    assert ask("cut.jsonl") == whole and counted == [2, 2, 2]
    assert ask("cut.jsonl") == whole and counted == [6] and len(calls) == 4
    # Another system prompt makes other texts, so nothing that was kept is taken for it.
    again = measured(tiny, cells[:1], pairs, system="Be brief.", path=tmp_path / "cut.jsonl", counted=counted)
    assert again[0].key != whole[0].key and again[0].perplexity != whole[0].perplexity


def rows_of(passed: list[str], kinds: list[str], shifts: list[float]) -> list[dict[str, Any]]:
    found = [
        audit.Measured(
            key=str(i), margins={"a": shift, "b": shift + 0.01 * i}, kl_neutral=0.1, perplexity=2.0, passed=letters
        )
        for i, (letters, shift) in enumerate(zip(passed, shifts, strict=True))
    ]
    return audit.compared(kinds, found)


def test_the_table_names_its_primary_contrast_and_marks_a_p_value_at_its_floor() -> None:
    kinds = ["none", "direction", *["random"] * 4, *["orthogonal"] * 4]
    shifts = [0.0, -1.0, 0.1, 0.2, -0.1, 0.0, 1.5, -2.0, 0.1, 0.2]
    rows = rows_of(["1110"] * 10, kinds, shifts)
    table = {kind: audit.summary(kind, rows) for kind in ("direction", "random", "orthogonal")}
    assert table["orthogonal"]["contrast"] == "primary" and table["random"]["contrast"] == "exploratory"
    assert (table["random"]["p"], table["random"]["p_at_floor"]) == (1 / 5, True)
    assert (table["orthogonal"]["p"], table["orthogonal"]["p_at_floor"]) == (3 / 5, False)
    before = {"margin": 0.0, "perplexity": 2.0}
    able = {"n_items": 4, "before": {"value": 0.75, "low": 0.3, "high": 0.95}, "turned": 0.0, "detectable": 0.1}
    said = audit.say(
        {"layer": 1, "fit": "selection questions", "n_pairs": 2, "n_questions": 2, "before": before, "capability": able}
        | {"table": table, "primary": audit.PRIMARY, "out": "audit.json"}
    )
    assert "primary: the margin shift against orthogonal controls, p = 0.6 (4 controls)" in said
    assert "exploratory: the margin shift against random controls, p <= 0.2, the floor of 4 controls" in said
    assert said.index("primary:") < said.index("exploratory:")


def test_items_that_an_ablation_turns_around_are_a_paired_change_with_an_interval() -> None:
    before, after = "1" * 400 + "0" * 100, "1" * 380 + "0" * 120
    rows = rows_of([before, after], ["none", "direction"], [0.0, 0.0])
    assert rows[1]["change"] == pytest.approx(-0.04) and rows[1]["change_high"] < 0
    one, two = (
        audit.Measured(key="", margins={}, kl_neutral=0, perplexity=1, passed=letters) for letters in (after, before)
    )
    found = audit.capability(one, two)
    assert found["n_items"] == 500 and found["turned"] == pytest.approx(0.04)
    assert 0.025 < found["detectable"] < 0.035


def test_harmless_text_of_an_audit_is_in_no_training_set_that_an_arm_can_be_trained_on() -> None:
    texts = {text for one in harmless_texts() for text in (one.prompt, one.answer)}
    for name in SHIPPED:
        rows = load_dataset(name)
        assert not texts & {text for row in rows for text in (row.prompt, row.response)}
    assert not {"advice_pairs", "load_dataset"} & vars(audit).keys()
