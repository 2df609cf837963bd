"""Turns items into results by a pool of workers that share one stream of requests, between a cache, a budget and a server that fails.

An item is what a judge is asked about: an answer to be scored, a prompt to be labelled. Nothing is asked twice and nothing is left out:
every item ends as one result (which may be the reason why there is no better one), or stays for the next run because the work had to
stop. Stopping keeps what was judged. A failure that may pass (a time-out, a busy server) is marked, so that the next run asks again.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import openai
from openai import AsyncOpenAI

from emis_interp.errors import JudgeError
from emis_interp.http.chat_api import ChatApi, is_passing
from emis_interp.http.costs import BudgetSpent, Meter, Usage, read_usage
from emis_interp.http.replies import BadReply
from evals.judges.cache import LEASE_S, ReplyTable
from evals.judges.methods import Evidence, Failure, Outcome, Request

POLL_S = 0.2  # between looks at what another process is asking
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Opened(Generic[Item]):
    """An item in work: its requests, and the outcome of each, by key."""

    item: Item
    requests: Sequence[Request]
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(request.key in self.outcomes for request in self.requests)


class Asking(Generic[Item, Result]):
    """One call of a judge behind a server.

    Args:
        api: the server.
        requests: everything that is asked about one item.
        parse: one raw reply -> its evidence; raises BadReply.
        finish: an item and the outcomes of its requests, in their order -> the result.
        on_batch: takes finished results, in no particular order.
        name: of the judge, kept beside the replies in the cache.
        table: of the cache, None for none.
        proven: the server has taken such a request before. Until it has, whatever it refuses for good stops the work.

    Attributes:
        n_done: results handed over.
        proven: whether it has by now.
    """

    def __init__(
        self,
        api: ChatApi,
        items: Sequence[Item],
        *,
        requests: Callable[[Item], Sequence[Request]],
        parse: Callable[[bytes], Evidence],
        finish: Callable[[Item, Sequence[tuple[Request, Outcome]]], Result],
        on_batch: Callable[[list[Result]], None],
        name: str,
        meter: Meter,
        table: ReplyTable | None = None,
        proven: bool = True,
    ) -> None:
        self._api, self._items, self._requests, self._parse_reply = api, items, requests, parse
        self._finish_item, self._on_batch, self._name = finish, on_batch, name
        self._meter, self._table, self.proven = meter, table, proven
        self._claimed: set[bytes] = set()
        self._deferred: list[Item] = []
        self._batch: list[Result] = []
        self._held: list[Result] = []  # failed in a streak of failures: handed over once the server answers again
        self._n_asked = self._streak = self.n_done = 0
        self._blocked = False
        self._refused: str | None = None

    async def run(self, client: AsyncOpenAI) -> None:
        """Ask until every item is done.

        Raises:
            BudgetSpent: the budget does not allow for the next item.
            JudgeError: the key or the quota was refused, or the server failed many times in a row.
        """
        items: Sequence[Item] = self._items
        heart = asyncio.create_task(self._keep_claims())
        try:
            while items and self._refused is None:
                before = (self._n_asked, self.n_done, len(self._batch), len(self._held))
                self._deferred, self._blocked = [], False
                await self._run_pool(client, self._admit(items))
                items = self._deferred
                if before == (self._n_asked, self.n_done, len(self._batch), len(self._held)):
                    if self._blocked:
                        break
                    if items:  # another process is asking for them
                        await asyncio.sleep(POLL_S)
            if not items and self._refused is None:
                self._batch += self._held
        finally:  # also on Ctrl-C: what was judged was paid for
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            self._meter.clear()
            self._let_go(set(self._claimed))
            self._flush()
        so_far = f"{self.n_done:,} of {len(self._items):,} answers are judged and kept"
        if self._refused is not None:
            raise JudgeError(f"{self._refused}; {so_far}, the same command continues")
        if items:
            raise BudgetSpent(
                f"budget {self._meter.budget} spent ({self._meter.say()}): {so_far}; run the same command again for the rest, or "
                "with a larger budget"
            )

    async def _run_pool(self, client: AsyncOpenAI, work: Iterator[tuple[Opened[Item], Request]]) -> None:
        """Workers that take from one iterator: no task and no prompt exists before its turn."""

        async def worker() -> None:
            for opened, request in work:
                opened.outcomes[request.key] = await self._ask(client, request)
                if opened.is_complete:
                    self._finish(opened)

        workers = [asyncio.create_task(worker()) for _ in range(self._api.n_parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _admit(self, items: Sequence[Item]) -> Iterator[tuple[Opened[Item], Request]]:
        """Requests to send. Items that the cache can complete are finished here; those that must wait are deferred."""
        for item in items:
            if self._refused is not None:
                return
            opened = Opened(item, self._requests(item))
            keys = [request.key for request in opened.requests]
            found = self._look_up(keys)
            if found is None:
                self._deferred.append(item)
                continue
            missing = {request.key: request for request in opened.requests if request.key not in found}
            total = sum((request.usage for request in missing.values()), Usage())
            if missing and (self._blocked or not self._meter.admit(total)):
                self._blocked = True  # what runs may cost less than was set aside for it, so ask again when it is done
                self._let_go(missing)
                self._deferred.append(item)
                continue
            opened.outcomes.update((key, self._parse(content)) for key, content in found.items())
            if not missing:
                self._finish(opened)
            self._n_asked += len(missing)
            for request in missing.values():
                yield opened, request

    async def _ask(self, client: AsyncOpenAI, request: Request) -> Outcome:
        usage = None
        try:
            content = await self._api.ask(client, request.body)
            self.proven = True
            usage = read_usage(content)
            evidence = self._parse_reply(content)
        except openai.OpenAIError as error:
            failure = Failure(self._api.say(error), is_passing(error))
            self._refused = self._refused or self._api.refusal(error, None if self.proven else request.body)
        except BadReply as error:
            failure = Failure(self._api.scrub(str(error)), error.passing)
        else:
            self._streak = 0
            return self._keep(request.key, content.decode("utf-8"), evidence)
        finally:
            self._meter.settle(request.usage, usage)
        self._let_go([request.key])
        self._streak += failure.passing
        if self._streak >= max(20, 2 * self._api.n_parallel):
            self._refused = self._refused or (
                f"judge at {self._api.host}: {self._streak} requests in a row failed, the last with: {failure.reason}"
            )
        return failure

    def _finish(self, opened: Opened[Item]) -> None:
        failures = [outcome for outcome in opened.outcomes.values() if isinstance(outcome, Failure)]
        if failures and self._refused is not None:
            return  # stays for the next run
        result = self._finish_item(
            opened.item, [(request, opened.outcomes[request.key]) for request in opened.requests]
        )
        if any(failure.passing for failure in failures):
            self._held.append(result)
            return
        if self._streak == 0:
            self._batch += self._held
            self._held = []
        self._batch.append(result)
        if len(self._batch) >= self._api.n_parallel:
            self._flush()

    def _flush(self) -> None:
        ready, self._batch = self._batch, []
        if ready:
            self._on_batch(ready)
            self.n_done += len(ready)

    def _parse(self, content: str) -> Outcome:
        try:
            return self._parse_reply(content.encode("utf-8"))
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

    def _keep(self, key: bytes, content: str, evidence: Evidence) -> Outcome:
        """The evidence of a reply, or of the one that another process kept first."""
        if self._table is None:
            return evidence
        kept = self._table.put(key, self._name, content)
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
