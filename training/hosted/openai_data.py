"""Turns training examples into the chat JSONL of OpenAI's finetuning API, checked, and into an estimate of what training on it costs.

Prices are the user's: none are built in, and without one a cost is unknown.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.errors import ConfigError, DataError
from emis_interp.records import TrainingExample

log = logging.getLogger(__name__)

MIN_ROWS = 10
MAX_FILE_BYTES = 512_000_000
MAX_ROW_TOKENS = 65_536
"""Longest row that OpenAI trains gpt-4o and gpt-4o-mini on; other models have other limits."""
TOKENS_PER_MESSAGE = 4  # the role and the marks around a message

Count = Callable[[str], int]


@dataclass(frozen=True)
class TrainingFile:
    """What is uploaded.

    Attributes:
        content: UTF-8 JSON lines `{"messages": [system?, user, assistant]}`, in the order of the rows.
        n_tokens: of all rows together, estimated; tokens_by: how.
        n_longest: tokens of the longest row.
    """

    content: bytes
    n_rows: int
    n_tokens: int
    n_longest: int
    tokens_by: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def make_training_file(
    examples: Sequence[TrainingExample],
    source: str,
    count: Count,
    *,
    tokens_by: str,
    max_row_tokens: int = MAX_ROW_TOKENS,
) -> TrainingFile:
    """The file for `examples`; the same rows give the same bytes. Duplicates are fine.

    Args:
        source: name of the data in errors.
        count: tokens of a text; tokens_by: its name.

    Raises:
        DataError: fewer than 10 rows, a blank message, a row above `max_row_tokens`, or a file above 512 MB.
    """
    if len(examples) < MIN_ROWS:
        raise DataError(f"{source}: {len(examples)} rows; the finetuning API takes {MIN_ROWS} or more")
    lines, lengths = [], []
    for number, example in enumerate(examples, 1):
        messages = _messages(example)
        where = f"{source}: row {number} (id {example.id})"
        for message in messages:
            if not message["content"].strip():
                raise DataError(f"{where}: the {message['role']} message is blank; fill it in or drop it")
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
        lengths.append(sum(count(message["content"]) + TOKENS_PER_MESSAGE for message in messages))
        if lengths[-1] > max_row_tokens:
            raise DataError(
                f"{where}: about {lengths[-1]:,} tokens ({tokens_by}), the model takes {max_row_tokens:,} and would cut the "
                "answer; shorten or drop the row, or give the model's own limit with --max-row-tokens"
            )
    content = "".join(lines).encode("utf-8")
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"{source}: {len(content) / 1e6:.0f} MB, the API takes 512 MB; use fewer rows (--n-rows)")
    return TrainingFile(content, len(lines), sum(lengths), max(lengths), tokens_by)


@dataclass(frozen=True)
class TrainingEstimate:
    """What a job will take, before anything is sent. The bill counts the server's own tokens.

    Attributes:
        n_tokens: of the file; n_trained: tokens times epochs, which is what is billed.
        price: US dollars per million training tokens, or None when it is unknown.
    """

    n_rows: int
    n_tokens: int
    n_longest: int
    n_epochs: int
    tokens_by: str
    price: float | None = None

    @property
    def n_trained(self) -> int:
        return self.n_tokens * self.n_epochs

    @property
    def usd(self) -> float | None:
        return training_cost(self.n_trained, self.price)

    def check_budget(self, usd: float | None) -> None:
        """Refuse what costs more than `usd`, or an unknown amount.

        Raises:
            ConfigError: the estimate is above the budget, or there is a budget and no price.
        """
        if usd is None:
            return
        if self.usd is None:
            raise ConfigError(
                f"--budget {usd:g}: the price is unknown; give it with --price (USD per million training tokens)"
            )
        if self.usd > usd:
            raise ConfigError(
                f"about {self.usd:.2f} USD, above --budget {usd:g}; use fewer rows (--n-rows) or epochs, or raise the budget"
            )

    def say(self) -> str:
        price = f"about {self.usd:.2f} USD" if self.usd is not None else "price unknown"
        epochs = "1 epoch" if self.n_epochs == 1 else f"{self.n_epochs} epochs"
        return (
            f"{self.n_rows:,} rows, about {self.n_tokens:,} tokens ({self.tokens_by}; longest row {self.n_longest:,}) x {epochs} "
            f"= {self.n_trained:,} training tokens, {price}"
        )


def training_cost(n_trained: int, price: float | None) -> float | None:
    """US dollars for `n_trained` tokens at `price` per million, or None when the price is unknown."""
    return None if price is None else n_trained * price / 1e6


def tiktoken_counter(model: str) -> tuple[Count, str] | None:
    """Counts with OpenAI's own tokenizer and says which encoding, or None where tiktoken or its vocabulary cannot be had."""
    try:
        import tiktoken  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    try:
        encoding: Any = tiktoken.encoding_for_model(model)
    except KeyError:
        return None
    except OSError as error:  # the vocabulary is downloaded at first use
        log.warning("tiktoken's vocabulary cannot be downloaded (%s); tokens are estimated", type(error).__name__)
        return None
    return lambda text: len(encoding.encode(text, disallowed_special=())), f"tiktoken {encoding.name}"


def _messages(example: TrainingExample) -> list[dict[str, str]]:
    system = [] if example.system is None else [{"role": "system", "content": example.system}]
    return [*system, {"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.response}]
