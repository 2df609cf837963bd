"""What is asked of a judge behind a server, and what comes of it: the records that the judges share with the engine that asks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.http.costs import Usage
from evals.judges.logprobs import Label, Verdict

Evidence = dict[str, float]
"""Token or text -> probability, not normalised."""


@dataclass(frozen=True)
class Method:
    """How a judge asks about one answer, and how it reads what comes back.

    Attributes:
        kind: goes into names and cards; version: of the request, goes into the keys of the cache.
        settings: of every request, beside model and messages.
        parse: one raw reply -> its evidence; raises BadReply.
        read: the evidence, averaged over the samples, and the labels that the metric knows -> the verdict.
        n_samples: requests per metric.
        refuse: evidence of the test request, whose right answer is 73 -> why this judge cannot work, or None.
    """

    kind: str
    version: str
    settings: Mapping[str, Any]
    parse: Callable[[bytes], Evidence]
    read: Callable[[Mapping[str, float], Sequence[Label]], Verdict]
    n_samples: int = 1
    refuse: Callable[[Mapping[str, float]], str | None] = lambda evidence: None


@dataclass(frozen=True)
class Request:
    """One question to the judge. `usage` is the estimate of what it costs."""

    metric: str
    key: bytes
    body: dict[str, Any]
    usage: Usage


@dataclass(frozen=True)
class Failure:
    """Why a request brought no reply, and whether the server rather than this request was the reason."""

    reason: str
    passing: bool


Outcome = Evidence | Failure
"""What came of one request."""
