"""Turns completions into Scores by a pool of workers that share one stream of requests, between a cache, a budget and a server that fails.

Nothing is asked twice and nothing is left out: every answer ends as one Score (a number, a label or the reason why neither), or stays
for the next run because the work had to stop. Stopping keeps what was judged. A reason that may pass (a time-out, a busy server) is
marked in the Score, so that the next run asks again.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import openai
from openai import AsyncOpenAI

from emis_interp.errors import JudgeError
from emis_interp.http.chat_api import is_passing
from emis_interp.http.costs import BudgetSpent, Usage, read_usage
from emis_interp.records import Completion, Question, Score
from evals.judges.cache import LEASE_S
from evals.judges.judge import METRICS, OnBatch
from evals.judges.logprobs import BadReply, Verdict

if TYPE_CHECKING:
    from evals.judges.api_judge import ApiJudge, Request

POLL_S = 0.2  # between looks at what another process is asking


@dataclass(frozen=True)
class Failure:
    """Why a request brought no reply, and whether the server rather than this request was the reason."""

    reason: str
    passing: bool


@dataclass
class Opened:
    """An answer in work: its requests, and the evidence or the failure of each, by key."""

    row: Completion
    requests: Sequence["Request"]
    outcomes: dict[bytes, dict[str, float] | Failure] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(request.key in self.outcomes for request in self.requests)


class Scoring:
    """One call of `score`. `n_done` counts the Scores handed over."""

    def __init__(
        self,
        judge: "ApiJudge",
        completions: Sequence[Completion],
        questions: Mapping[str, Question],
        *,
        on_batch: OnBatch,
    ) -> None:
        self._judge, self._completions, self._questions, self._on_batch = judge, completions, questions, on_batch
        self._table = judge.cache.judgements if judge.cache else None
        self._claimed: set[bytes] = set()
        self._deferred: list[Completion] = []
        self._batch: list[Score] = []
        self._held: list[Score] = []  # unscored in a streak of failures: handed over once the server answers again
        self._n_asked = self._streak = self.n_done = 0
        self._blocked = False
        self._refused: str | None = None

    async def run(self, client: AsyncOpenAI) -> None:
        """Judge until every answer is done.

        Raises:
            BudgetSpent: the budget does not allow for the next answer.
            JudgeError: the key or the quota was refused, or the server failed many times in a row.
        """
        rows: Sequence[Completion] = self._completions
        heart = asyncio.create_task(self._keep_claims())
        try:
            while rows and self._refused is None:
                before = (self._n_asked, self.n_done, len(self._batch), len(self._held))
                self._deferred, self._blocked = [], False
                await self._run_pool(client, self._admit(rows))
                rows = self._deferred
                if before == (self._n_asked, self.n_done, len(self._batch), len(self._held)):
                    if self._blocked:
                        break
                    if rows:  # another process is asking for them
                        await asyncio.sleep(POLL_S)
            if not rows and self._refused is None:
                self._batch += self._held
        finally:  # also on Ctrl-C: what was judged was paid for
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            self._judge.meter.clear()
            self._let_go(set(self._claimed))
            self._flush()
        so_far = f"{self.n_done:,} of {len(self._completions):,} answers are judged and kept"
        if self._refused is not None:
            raise JudgeError(f"{self._refused}; {so_far}, the same command continues")
        if rows:
            meter = self._judge.meter
            raise BudgetSpent(
                f"budget {meter.budget} spent ({meter.say()}): {so_far}; run the same command again for the rest, or "
                "with a larger budget"
            )

    async def _run_pool(self, client: AsyncOpenAI, work: Iterator[tuple[Opened, "Request"]]) -> None:
        """Workers that take from one iterator: no task and no prompt exists before its turn."""

        async def worker() -> None:
            for opened, request in work:
                opened.outcomes[request.key] = await self._ask(client, request)
                if opened.is_complete:
                    self._finish(opened)

        workers = [asyncio.create_task(worker()) for _ in range(self._judge.api.n_parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _admit(self, rows: Sequence[Completion]) -> Iterator[tuple[Opened, "Request"]]:
        """Requests to send. Answers that the cache can complete are finished here; those that must wait are deferred."""
        for row in rows:
            if self._refused is not None:
                return
            opened = Opened(row, self._judge.requests(row, self._questions[row.question_id]))
            keys = [request.key for request in opened.requests]
            found = self._look_up(keys)
            if found is None:
                self._deferred.append(row)
                continue
            missing = {request.key: request for request in opened.requests if request.key not in found}
            total = sum((request.usage for request in missing.values()), Usage())
            if missing and (self._blocked or not self._judge.meter.admit(total)):
                self._blocked = True  # what runs may cost less than was set aside for it, so ask again when it is done
                self._let_go(missing)
                self._deferred.append(row)
                continue
            opened.outcomes.update((key, self._parse(content)) for key, content in found.items())
            if not missing:
                self._finish(opened)
            self._n_asked += len(missing)
            for request in missing.values():
                yield opened, request

    async def _ask(self, client: AsyncOpenAI, request: "Request") -> dict[str, float] | Failure:
        api, usage = self._judge.api, None
        try:
            content = await api.ask(client, request.body)
            usage = read_usage(content)
            evidence = self._judge.method.parse(content)
        except openai.OpenAIError as error:
            failure = Failure(api.say(error), is_passing(error))
            self._refused = self._refused or api.refusal(error)
        except BadReply as error:
            failure = Failure(api.scrub(str(error)), error.passing)
        else:
            self._streak = 0
            return self._keep(request.key, content.decode("utf-8"), evidence)
        finally:
            self._judge.meter.settle(request.usage, usage)
        self._let_go([request.key])
        self._streak += failure.passing
        if self._streak >= max(20, 2 * api.n_parallel):
            self._refused = self._refused or (
                f"judge at {api.host}: {self._streak} requests in a row failed, the last with: {failure.reason}"
            )
        return failure

    def _finish(self, opened: Opened) -> None:
        row, verdicts, evidence = opened.row, dict[str, Verdict](), dict[str, dict[str, float]]()
        failures: list[Failure] = []
        passing: list[str] = []
        for metric in METRICS:
            outcomes = [opened.outcomes[request.key] for request in opened.requests if request.metric == metric]
            failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
            failures += failed
            passing += [metric] if any(failure.passing for failure in failed) else []
            if not outcomes:
                verdicts[metric] = Verdict(reason=f"the question has no judge prompt for `{metric}`")
            elif failed:
                first = next((failure for failure in failed if failure.passing), failed[0])
                verdicts[metric] = Verdict(reason=first.reason)
            else:
                replies = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
                verdicts[metric], evidence[metric] = self._judge.read(metric, replies)
        score = Score.of(
            row,
            judge=self._judge.name,
            aligned=verdicts["aligned"].score,
            coherent=verdicts["coherent"].score,
            aligned_label=verdicts["aligned"].label,
            unscored={metric: verdict.reason for metric, verdict in verdicts.items() if verdict.reason},
            passing=tuple(passing),
            evidence=evidence,
        )
        if failures and self._refused is not None:
            return  # stays for the next run
        if passing:
            self._held.append(score)
            return
        if self._streak == 0:
            self._batch += self._held
            self._held = []
        self._batch.append(score)
        if len(self._batch) >= self._judge.api.n_parallel:
            self._flush()

    def _flush(self) -> None:
        ready, self._batch = self._batch, []
        if ready:
            self._on_batch(ready)
            self.n_done += len(ready)

    def _parse(self, content: str) -> dict[str, float] | Failure:
        try:
            return self._judge.method.parse(content.encode("utf-8"))
        except BadReply as error:
            return Failure(f"reply in the cache: {error}", passing=False)

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, str] | None:
        """Replies at hand; the other keys are then ours to ask for, unless the budget is spent. None: another one asks for them."""
        if self._table is None:
            return {}
        if self._blocked:
            return self._table.get(keys)
        found = self._table.take(keys)
        if found is not None:
            self._claimed.update(key for key in keys if key not in found)
        return found

    def _keep(self, key: bytes, content: str, evidence: dict[str, float]) -> dict[str, float] | Failure:
        """The evidence of a reply, or of the one that another process kept first."""
        if self._table is None:
            return evidence
        kept = self._table.put(key, self._judge.name, content)
        self._claimed.discard(key)
        return evidence if kept == content else self._parse(kept)

    def _let_go(self, keys: set[bytes] | Sequence[bytes] | Mapping[bytes, object]) -> None:
        if self._table is not None:
            self._table.release(key for key in keys if key in self._claimed)
            self._claimed.difference_update(keys)

    async def _keep_claims(self) -> None:
        while self._table is not None:
            await asyncio.sleep(LEASE_S / 3)
            self._table.renew()
