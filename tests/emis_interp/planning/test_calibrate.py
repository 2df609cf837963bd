"""Measuring a machine: what is kept, what is measured again, and that CPU time is told from waiting."""

import time
from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.planning import calibrate
from emis_interp.planning.calibrate import (
    Calibration,
    Stopwatch,
    TrainedALittle,
    calibrated,
    kept_calibration,
    typical,
)
from emis_interp.planning.rates import MachineRates

CONFIG = RunConfig(name="r", model="tiny", arms=({"name": "base"},), device="cpu")  # type: ignore[arg-type]
TEXTS = [("Why?", "so it is " * n) for n in range(1, 12)]


def calibrate_it(tiny: ChatModel, config: RunConfig = CONFIG, **how: Any) -> Calibration:
    given: Any = {
        "train": lambda folder, seconds, read: TrainedALittle(0.5, 2.0, None),
        "peak": lambda: 1.0,
        "judged_share": 0.1,
    } | how
    return calibrated(config, encode_chats(tiny.tokenizer, TEXTS), **given)


def test_a_calibration_is_kept_for_its_model_and_machine(
    tiny: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path))
    n = 0
    measure = calibrate.measure

    def quick(*args: Any, **how: Any) -> Calibration:
        nonlocal n
        n += 1
        return measure(*args, **how, seconds=0.5)

    monkeypatch.setattr(calibrate, "measure", quick)
    first = calibrate_it(tiny)
    assert calibrate_it(tiny) == first and n == 1
    rates = first.rates
    assert min(rates.read, rates.scored, rates.softmax, rates.step + rates.row, rates.load or 0) > 0
    assert rates.judged == pytest.approx(0.1 * rates.read)
    assert rates.trained == pytest.approx(0.5 / calibrate.torch.get_num_threads())  # CPU time, not the clock
    assert rates.share is not None and 0 < rates.share <= 1
    calibrate_it(tiny, again=True)
    assert n == 2
    calibrate_it(tiny, CONFIG.model_copy(update={"dtype": "float16"}))
    assert n == 3 and len(list((tmp_path / "calibrations").iterdir())) == 2


@pytest.mark.parametrize("content", ["{}", "{", '{"content_sha256": "0"}'])
def test_a_damaged_calibration_is_logged_and_measured_again(
    tiny: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "text_sha256", lambda text: "0" * 64)
    seconds = dict.fromkeys(("read", "scored", "softmax", "trained", "judged", "step", "row", "load", "merge"), 0.5)
    fresh = Calibration(MachineRates(**seconds, source="measured"), 1.0, 2.0, 3.0)
    monkeypatch.setattr(calibrate, "measure", lambda *_, **__: fresh)
    path = tmp_path / "calibrations" / f"{'0' * 16}.json"
    path.parent.mkdir()
    path.write_text(content, "utf-8")
    assert calibrate_it(tiny) == fresh and path.name in caplog.text and "not used" in caplog.text
    assert kept_calibration(CONFIG) == fresh


def test_waiting_is_not_work() -> None:
    """A machine that gives the process nothing for a while makes its clock run, and not its work longer."""
    meter = Stopwatch("cpu")
    waited = meter.shortest(lambda: time.sleep(0.05), 0.2, most=3)
    assert waited < 0.025
    assert meter.share is not None and meter.share < 0.5


def test_texts_of_every_length_stand_for_all(tiny: ChatModel) -> None:
    chats = encode_chats(tiny.tokenizer, TEXTS * 4)
    chosen = [len(chat) for chat in typical(chats, 10_000)]
    assert len(chosen) == 8
    assert sum(chosen) / 8 == pytest.approx(sum(map(len, chats)) / len(chats), rel=0.1)
    assert len(typical(chats, 60)) == 1
    with pytest.raises(DataError, match="no texts to calibrate on"):
        typical([], 100)
