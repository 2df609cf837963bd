"""The settings of `scripts/capture.py`, and the request to `passes.token_capture` that they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings
from emis_interp.config.table_settings import AnswerTableSettings, ArmSettings
from emis_interp.errors import ConfigError
from emis_interp.passes.hook_names import HOOK_POINTS

if TYPE_CHECKING:
    from emis_interp.passes.token_capture import CaptureRequest

KEPT = ("hook_point", "position", "max_gib", "shard_mib", "max_batch_tokens")
READ = ("system_prompt", "max_tokens", "n_texts")
"""Settings that `TokenRequest` and `CaptureRequest` call the same."""


@settings
class CaptureSettings(ArmSettings, AnswerTableSettings, ModelSettings):
    """Texts, a model, and what is kept of every token."""

    texts: Path | None = flag("CSV, JSONL or Parquet with question and answer", default=None)
    out: Path = flag("folder of the store")
    layers: tuple[int, ...] | None = flag("decoder blocks, from 0", default=None)
    hook_point: str = flag(", ".join(HOOK_POINTS), default="resid_post")
    position: str = flag(
        "response_mean keeps the answer's tokens; also all_tokens, last_prompt, response_last", default="response_mean"
    )
    store_dtype: str | None = flag("of the stored numbers; that of the weights when left out", default=None)
    system_prompt: str | None = flag("system prompt of every text; left to the chat template when absent", default=None)
    max_tokens: int = flag("cut longer conversations", default=512)
    n_texts: int | None = flag("only the first so many texts", default=None)
    max_batch_tokens: int = flag("padded tokens per forward pass", default=1024)
    max_gib: float = flag("refuse a larger store before anything runs", default=4.0)
    shard_mib: float = flag("size of a shard; a worker holds one in memory", default=256.0)
    worker: str = flag("write every N-th shard, from the I-th on", default="0/1", metavar="I/N")
    check: bool = flag("read the store in --out and compare its checksums", default=False)

    def request(self) -> "CaptureRequest":
        """What `passes.token_capture.run` is asked for.

        Raises:
            ConfigError: no texts or no layers, or a malformed flag.
        """
        from emis_interp.passes.token_capture import CaptureRequest
        from emis_interp.passes.token_writer import TokenRequest

        worker = parse_worker(self.worker)
        if self.texts is None or self.layers is None:
            raise ConfigError("give --texts and --layers to capture, or --check to examine the store in --out")
        return CaptureRequest(
            texts=self.texts,
            out=self.out,
            model=self.spec,
            tokens=TokenRequest(layers=self.layers, dtype=self.store_dtype, **self._same(KEPT)),
            reading=self.reading(),
            worker=worker,
            **self._same(READ),
        )

    def _same(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


def parse_worker(text: str) -> tuple[int, int]:
    """`0/2` -> (0, 2).

    Raises:
        ConfigError: another form, or a worker outside 0..n-1.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(
            f"--worker {text}: expected NUMBER/COUNT with NUMBER from 0, e.g. 0/2 and 1/2 for two workers"
        )
    return int(number), int(count)
