"""Turns requests into calls, tokens and dollars: an estimate before anything is sent, a count while it is, and a budget that stops it.

Tokens are estimated as UTF-8 bytes / 4; once a reply tells its `usage`, that is what counts. Prices are the user's: none are built in,
and without them a cost is unknown.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from emis_interp.errors import ConfigError, DataError, JudgeError, did_you_mean, shown
from emis_interp.files.strict_yaml import kind_of_yaml, read_yaml
from emis_interp.http.replies import usage_of

TOKENS_BY = "UTF-8 bytes / 4"
Unit = Literal["USD", "calls", "tokens"]
_UNITS: dict[str, Unit] = {"usd": "USD", "calls": "calls", "tokens": "tokens"}


@dataclass(frozen=True)
class Usage:
    """Requests and tokens. A request that the SDK had to repeat counts once."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.calls + other.calls, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.calls - other.calls, self.tokens_in - other.tokens_in, self.tokens_out - other.tokens_out)


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; None is unknown."""

    tokens_in: float | None = None
    tokens_out: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """US dollars, or None when a price that matters is unknown."""
        if self.tokens_in is None or self.tokens_out is None:
            return None
        return (usage.tokens_in * self.tokens_in + usage.tokens_out * self.tokens_out) / 1e6


@dataclass(frozen=True)
class Budget:
    """What may be spent, in one of three units."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """From "2.50 USD", "1000 calls" or "2e6 tokens".

        Raises:
            ConfigError: another form or unit.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:[eE]\d+)?)\s*([A-Za-z]+)\s*", text)
        unit = _UNITS.get(match[2].lower()) if match else None
        amount = float(match[1]) if match else math.inf
        if match is None or unit is None or math.isinf(amount):
            raise ConfigError(
                f"budget {shown(text)}: expected an amount and its unit: `2.50 USD`, `1000 calls`, `2e6 tokens`"
            )
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:.2f} USD" if self.unit == "USD" else f"{self.amount:,.0f} {self.unit}"


class BudgetSpent(JudgeError):
    """The next request would exceed the budget; what was judged is kept and the rest can be resumed."""


@dataclass
class Meter:
    """What one judge has spent, and what its running requests may still cost.

    Raises:
        ConfigError: at once, for a budget in dollars without prices.
    """

    prices: Prices = Prices()
    budget: Budget | None = None
    spent: Usage = Usage()
    _reserved: Usage = field(default=Usage(), repr=False)

    def __post_init__(self) -> None:
        if self.budget and self.budget.unit == "USD" and self.prices.cost(Usage()) is None:
            raise ConfigError(
                f"budget {self.budget}: the prices are unknown; give both in USD per million tokens (judge.price_in, "
                "judge.price_out), or a budget in calls or tokens"
            )

    def admit(self, estimate: Usage) -> bool:
        """Set `estimate` aside when the budget allows it."""
        if self.budget and self._amount(self.spent + self._reserved + estimate) > self.budget.amount:
            return False
        self._reserved += estimate
        return True

    def settle(self, estimate: Usage, actual: Usage | None = None) -> None:
        """A request is over: `actual` is what the server counted; without it the estimate stands, also for one that failed."""
        self._reserved -= estimate
        self.spent += actual or estimate

    def clear(self) -> None:
        """Nothing runs any more: what is still set aside was never sent."""
        self._reserved = Usage()

    def _amount(self, usage: Usage) -> float:
        if self.budget is None or self.budget.unit == "calls":
            return usage.calls
        if self.budget.unit == "tokens":
            return usage.tokens_in + usage.tokens_out
        cost = self.prices.cost(usage)
        return cost if cost is not None else float("inf")

    def say(self) -> str:
        """What was spent: calls, tokens and, with prices, dollars."""
        return say_usage(self.spent, self.prices)


@dataclass(frozen=True)
class CostEstimate:
    """What judging some answers will take, before anything is sent.

    Attributes:
        n_answers: answers to judge.
        n_cached: judgements that the cache holds or that equal another one of this run; they cost nothing.
        usage: requests still to be sent, with the one that tests the judge, and their tokens (output: the most that they may give).
        usd: their price, or None when it is unknown.
    """

    n_answers: int
    n_cached: int
    usage: Usage
    usd: float | None
    tokens_by: str = TOKENS_BY

    def say(self) -> str:
        tokens = f"about {self.usage.tokens_in:,} tokens in ({self.tokens_by}), at most {self.usage.tokens_out:,} out"
        price = f"about {self.usd:.2f} USD" if self.usd is not None else "price unknown"
        return f"{self.n_answers:,} answers: {self.usage.calls:,} calls ({self.n_cached:,} judgements at hand), {tokens}, {price}"


def say_usage(usage: Usage, prices: Prices) -> str:
    cost = prices.cost(usage)
    price = f"{cost:.4f} USD" if cost is not None else "price unknown"
    return f"{usage.calls:,} calls, {usage.tokens_in:,} tokens in, {usage.tokens_out:,} out, {price}"


def count_tokens(text: str) -> int:
    """Tokens of a text, estimated as UTF-8 bytes / 4, rounded up; a lone surrogate counts as three bytes."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def read_prices(path: Path, model: str) -> Prices:
    """Prices of `model` from a YAML or JSON table `model: {in: 2.5, out: 10}`, in US dollars per million tokens.

    Raises:
        DataError: the file is missing or malformed, or has no such model.
    """
    document = read_yaml(path)
    table = document.value
    if not isinstance(table, Mapping) or not table:
        raise DataError(f"{path}: expected a table `model: {{in: 2.5, out: 10}}`, found {kind_of_yaml(table)}")
    if model not in table:
        raise DataError(f"{path}: no prices for `{model}`{did_you_mean(model, table)}")
    entry: Any = table[model]
    where = document.place((model,)).where
    if not isinstance(entry, Mapping) or set(entry) != {"in", "out"}:
        raise DataError(
            f"{where}: `{model}`: expected `{{in: 2.5, out: 10}}` (USD per million tokens), found {shown(entry, 80)}"
        )
    for key, price in entry.items():
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
            raise DataError(f"{where}: `{model}.{key}`: expected USD per million tokens, found {shown(price)}")
    return Prices(float(entry["in"]), float(entry["out"]))


def read_usage(content: bytes) -> Usage | None:
    """What a reply says it cost, or None when it does not say."""
    counts = usage_of(content)
    return None if counts is None else Usage(1, *counts)
