"""Scaled adapters: 1 is the organism as PEFT loads it, 0 is base, and what the contrasts at each scale let one say."""

import pytest
from adapters_made import made_adapter

from emis_interp.errors import ConfigError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.lora_updates import combined, lora_updates
from emis_interp.passes.likelihood import by_question, mean_logprobs, pair_margins
from emis_interp.texts.contrast import report_pairs
from probes.diffing.amplification import all_scales, amplified, seen_from
from probes.diffing.texts import held_out_chats, shipped_texts
from probes.weights.switching import MarginReader


def test_scale_1_is_the_organism_and_scale_0_is_base(tiny: ChatModel, tmp_path) -> None:
    folder, pairs = made_adapter(tmp_path), report_pairs(None, 1)
    updates, organism = lora_updates(folder), load_model("tiny", folder, device="cpu")
    chats = held_out_chats(tiny.tokenizer, shipped_texts(4)[1], 4, answer_tokens=8)
    margins = MarginReader(tiny, pairs, None, 2048, lambda n: None)
    found = amplified(
        margins, {"organism": updates, "control": updates}, [1.0, 2.0], own=chats[:2], unrelated=chats[2:]
    )
    one, two, *_ = found["cells"]
    base, whole = (by_question(pairs, pair_margins(model, pairs)) for model in (tiny, organism))
    assert one["shift"]["value"] == pytest.approx(sum(whole[q] - base[q] for q in base) / len(base), abs=1e-4)
    change = mean_logprobs(tiny, chats) - mean_logprobs(organism, chats)
    assert one["finetune_like"]["value"] == pytest.approx(change[:2].mean(), abs=1e-4)
    assert one["unrelated"]["value"] == pytest.approx(change[2:].mean(), abs=1e-4)
    assert two["kl"] > one["kl"] > 0
    # The control is the organism: nothing is left at any scale.
    assert all(row["value"] == pytest.approx(0, abs=1e-6) for row in found["contrasts"])
    assert "at no scale" in found["verdict"]
    nothing = margins.under(combined([(0.0, updates)]))
    assert nothing == pytest.approx(base, abs=1e-6)


def test_scales_hold_1_and_no_0() -> None:
    assert all_scales((-1, 3, 0.5)) == [-1.0, 0.5, 1.0, 3.0]
    for wrong in (0.0, float("nan")):
        with pytest.raises(ConfigError, match="0 is base itself"):
            all_scales((wrong, 2.0))


def contrast(scale: float, low: float, control: str = "c") -> dict:
    return {"scale": scale, "control": control, "low": low, "high": low + 1, "value": low + 0.5}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no control: a shift of the margin against base alone may be flattening"),
        ([contrast(1, 0.1), contrast(3, 0.2)], "at 1, 3 times the adapter; it need not be amplified"),
        ([contrast(1, -0.1), contrast(3, 0.2)], "at 3 times the adapter, not at 1: seen only by scaling"),
        ([contrast(1, -0.1), contrast(3, 0.2), contrast(3, -0.1, "d")], "at no scale"),
        ([contrast(-1, 0.1), contrast(1, -0.1)], "at -1 times the adapter"),
    ],
)
def test_what_scaling_shows(rows: list[dict], words: str) -> None:
    assert words in seen_from(rows, sorted({row["scale"] for row in rows}))
