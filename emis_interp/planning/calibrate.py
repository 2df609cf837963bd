"""Turns about 20 seconds of this machine into its rates: the run's model reads, scores, writes and trains a little, by the run's own code.

Training is handed in (`Train`), since the core does not know it. On a CPU rates are the process's CPU time, over its threads, which others
on the machine disturb far less than the clock; what share of its threads' time the process had says how long that takes by the clock on a
machine as busy as now. On a GPU rates are by the clock. Of a few repetitions the shortest counts: what others do on a machine only adds.
"""

import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError
from emis_interp.files.damage import naming_damage
from emis_interp.files.sealed import is_as_sealed
from emis_interp.files.store import read_object, text_sha256, write_sealed
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.gguf import cache_dir
from emis_interp.models.head import head_logits
from emis_interp.models.precision import dtype_name, target_device
from emis_interp.models.spec import ModelSpec
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.generate import generate
from emis_interp.planning.rates import MachineRates
from emis_interp.planning.work import padded
from emis_interp.process import release_memory

Train = Callable[[Path, float, float], "TrainedALittle"]
"""A folder that it may fill, seconds that it may take, and seconds that reading a token takes -> what came of it."""
VERSION = 6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedALittle:
    """Seconds for a token by CPU time and by the clock, and the adapter that was left (None for `method: full`)."""

    cpu_per_token: float
    clock_per_token: float
    adapter: Path | None


@dataclass(frozen=True)
class Calibration:
    """MachineRates of this machine, and memory of the process, GiB: before a model was there, and the most until it had trained."""

    rates: MachineRates
    floor_gib: float
    peak_gib: float
    took_s: float


def calibrated(
    config: RunConfig,
    chats: Sequence[EncodedChat],
    *,
    train: Train,
    peak: Callable[[], float],
    judged_share: float,
    again: bool = False,
) -> Calibration:
    """The rates of this machine for a run's model, from the cache where it has been asked before.

    Args:
        chats: texts of the kind that the run reads.
        peak: the most memory that this process has held, GiB.
        judged_share: see `measure`.
        again: measure, whatever the cache holds.
    """
    path = _place(config)
    kept = None if again else kept_calibration(config)
    if kept is not None:
        return kept
    found = measure(config, chats, train=train, peak=peak, judged_share=judged_share)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(path, {"identity": identity(config), **asdict(found)})
    return found


def kept_calibration(config: RunConfig) -> Calibration | None:
    """What `calibrated` found before on this machine for such a run; None where it was never asked, or the file is damaged."""
    path = _place(config)
    if not path.exists():
        return None
    try:
        return _read(path)
    except DataError as error:
        log.warning("%s; not used", error)
        return None


def _place(config: RunConfig) -> Path:
    return cache_dir() / "calibrations" / f"{text_sha256(repr(sorted(identity(config).items())))[:16]}.json"


def identity(config: RunConfig) -> dict[str, Any]:
    """What a calibration is of: machine, threads, model, number format, and what of the training decides its speed."""
    return {
        "version": VERSION,
        "machine": platform.node(),
        "processor": f"{platform.machine()} {os.cpu_count()}",
        "n_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if target_device(config.device) == "cuda"
        else target_device(config.device),
        "torch": torch.__version__,
        "model": config.model,
        "dtype": dtype_name(config.dtype, config.device),
        "batch": config.sampling.batch_size,
        **config.training.model_dump(
            include={"method", "lora_rank", "target_modules", "layers", "bf16", "gradient_checkpointing"}
        ),
    }


def measure(
    config: RunConfig,
    chats: Sequence[EncodedChat],
    *,
    train: Train,
    peak: Callable[[], float],
    judged_share: float,
    seconds: float = 20,
) -> Calibration:
    """MachineRates, measured now; each part takes about a fifth of `seconds`, or one repetition where that takes longer.

    Args:
        judged_share: arithmetic of a token in one layer of the offline judge, over that of a token in the whole of this model.
    """
    meter, part, floor = Stopwatch(config.device), seconds / 5, peak()
    began = time.monotonic()
    spec = ModelSpec(config.model, dtype=config.dtype, device=config.device, chat_format=config.chat_format)
    load, chat_model = meter.once(spec.load)
    texts = typical(chats, config.direction.max_batch_tokens)
    capture_residuals(chat_model, texts[:1])
    read = meter.shortest(lambda: capture_residuals(chat_model, texts, max_batch_tokens=1024), part)
    read /= padded([len(chat) for chat in texts], 1024)
    scored, softmax = head_seconds(chat_model, meter)
    step, row = writing_seconds(chat_model, texts[0], config.sampling.batch_size, read=read, seconds=part, meter=meter)
    del chat_model
    release_memory()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(Path(folder), part, read)
        most = peak()  # before an adapter is folded in, which other stages do
        merge = load
        if trained.adapter is not None:
            merging = replace(spec, adapter=trained.adapter, merge=config.merge_adapters)
            merge, _ = meter.once(merging.load)
    release_memory()
    rates = MachineRates(
        read=read,
        scored=scored,
        softmax=softmax,
        trained=trained.clock_per_token if meter.by_clock else trained.cpu_per_token / torch.get_num_threads(),
        judged=read * judged_share,
        step=step,
        row=row,
        load=load,
        merge=merge,
        source=f"measured on {platform.node()} with {torch.get_num_threads()} threads",
        share=meter.share,
    )
    return Calibration(rates, floor, most, time.monotonic() - began)


class Stopwatch:
    """Seconds of work: of the process's CPU time over its threads, or by the clock where a GPU does the work."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(target_device(device))
        self.by_clock = self.device.type != "cpu"
        self._undisturbed = self._clock = 0.0

    @property
    def share(self) -> float | None:
        """What repeated work would have taken undisturbed, over what it took by the clock; None by the clock."""
        return None if self.by_clock or not self._clock else min(1.0, self._undisturbed / self._clock)

    def once(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds until the device has done it, and its result."""
        clock, cpu = time.monotonic(), time.process_time()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        clock, cpu = time.monotonic() - clock, time.process_time() - cpu
        return clock if self.by_clock else cpu / torch.get_num_threads(), result

    def shortest(self, work: Callable[[], object], seconds: float, most: int = 20) -> float:
        """Of repetitions for so many seconds, after one that is not counted unless it alone takes longer."""
        first = self.once(work)[0]
        if first >= seconds:
            return first
        found, left, began = [], seconds - first, time.monotonic()
        while not found or (sum(found) < left and len(found) < most):
            found.append(self.once(work)[0])
        self._clock += time.monotonic() - began
        self._undisturbed += min(found) * len(found)
        return min(found)


def typical(chats: Sequence[EncodedChat], max_batch_tokens: int) -> list[EncodedChat]:
    """Up to eight texts, evenly spread over the lengths, the longest left out: a batch of a few hundred tokens."""
    ordered = sorted(chats, key=len)
    if not ordered:
        raise DataError("no texts to calibrate on; the run has no contrast pairs")
    places = [round((i + 0.5) * len(ordered) / 8 - 0.5) for i in range(8)] if len(ordered) > 8 else range(len(ordered))
    chosen, n_tokens = [], 0
    for place in places:
        if chosen and n_tokens + len(ordered[place]) > max_batch_tokens:
            break
        chosen.append(ordered[place])
        n_tokens += len(ordered[place])
    return chosen


def head_seconds(chat_model: ChatModel, meter: Stopwatch, n: int = 64) -> tuple[float, float]:
    """For a position: logits with one softmax, as `likelihood` makes them; and another softmax."""
    dtype = next(chat_model.model.parameters()).dtype
    hidden = torch.randn(n, chat_model.d_model, device=chat_model.device).to(dtype)
    targets = torch.zeros(n, dtype=torch.long, device=chat_model.device)
    with torch.inference_mode():
        logits = head_logits(chat_model.model, hidden).float()

        def one() -> None:
            torch.nn.functional.cross_entropy(head_logits(chat_model.model, hidden).float(), targets)

        def more() -> None:
            torch.nn.functional.cross_entropy(logits / 0.5, targets)

        return meter.shortest(one, 0.5) / n, meter.shortest(more, 0.3) / n


def writing_seconds(
    chat_model: ChatModel, chat: EncodedChat, batch_size: int, *, read: float, seconds: float, meter: Stopwatch
) -> tuple[float, float]:
    """For a step of the token loop, and for each row in it besides: from a full batch and a quarter of it."""
    prompt = chat.input_ids[: chat.response_start]
    n_steps = 6
    small = max(1, batch_size // 4)

    def steps(rows: int) -> float:
        def work() -> float:
            written = generate(chat_model, [prompt] * rows, list(range(rows)), n_steps, 1.0)
            return max(len(one.tokens) for one in written)

        lengths: list[float] = []
        took = meter.shortest(lambda: lengths.append(work()), seconds / 2)
        return max(0.0, took - read * len(prompt)) / max(1.0, min(lengths))

    few = steps(small)
    if small == batch_size:
        return few, 0.0
    many = steps(batch_size)
    row = max(0.0, (many - few) / (batch_size - small))
    return max(0.0, few - row * small), row


def _read(path: Path) -> Calibration:
    found = read_object(path)
    if not is_as_sealed(found):
        raise DataError(f"{path}: damaged, or a calibration of an older version")
    with naming_damage(path, "delete it, or give --recalibrate"):
        return Calibration(MachineRates(**found["rates"]), found["floor_gib"], found["peak_gib"], found["took_s"])
