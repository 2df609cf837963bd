"""Turns what a finished training left in its folder into a checked summary, and refuses weights that are no longer those it wrote."""

import logging
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from emis_interp.errors import DataError, StageError
from emis_interp.files.hashes import first_difference
from emis_interp.files.store import read_record
from emis_interp.records import Record
from training.finetuning.kl_limit import KlLimited

log = logging.getLogger(__name__)
SUMMARY = "summary.json"


class TrainingSummary(Record):
    """What `finetune` returns.

    Attributes:
        artifact: folder of the weights.
        chat_format, rendering: how rows were rendered (`ChatTemplate.card`); None in summaries of older versions.
        n_tokens: padding not counted.
        final_loss: nats per response token, mean of the last tenth of the steps, before an adapter was scaled down (`kl_limited`).
        files: path of every file of the weights, and of `metrics.jsonl` -> SHA-256; empty in summaries of older versions.
    """

    model: str
    quantisation: str | None = None
    method: Literal["lora", "full"]
    artifact: Literal["adapter", "model"]
    chat_format: str | None = None
    rendering: dict[str, Any] | None = None
    bf16: bool
    n_trainable: int
    n_rows: int
    n_cut: int
    n_tokens: int
    n_steps: int
    n_processes: int = 1
    seconds: float
    tokens_per_second: float
    final_loss: float
    peak_rss_gib: float
    kl_limited: KlLimited | None = None
    files: dict[str, str] = Field(default_factory=dict)


def read_summary(out_dir: Path) -> dict[str, Any]:
    """The summary of a finished training, whose weights and metrics are those that it wrote.

    Raises:
        DataError: it is missing or damaged. StageError: the weights or metrics were damaged or exchanged since.
    """
    path = out_dir / SUMMARY
    try:
        summary = read_record(path, TrainingSummary)
    except DataError as error:
        raise DataError(f"{error}; delete {out_dir} to train again") from None
    if not summary.files:
        log.warning(
            "%s: trained by an older version, which kept no hashes of the weights; they are not checked", out_dir
        )
    elif changed := first_difference(out_dir, summary.files):
        raise StageError(
            f"{out_dir}: {changed} since the training wrote it; put it back, or delete {out_dir} to train again"
        )
    return summary.model_dump()
