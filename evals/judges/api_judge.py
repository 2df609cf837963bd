"""Turns completions into Scores through a chat API, by a Method that says what is asked and how the reply is read.

Whatever goes wrong with one answer leaves it unscored with the reason, no number is ever made up; what cannot work for any answer stops
before the first one. An answer is judged whole or not at all: its requests are admitted together by the cache and by the budget.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import openai
from openai import AsyncOpenAI

from emis_interp.config.run_config import JudgeConfig, judge_key, judge_key_variable
from emis_interp.errors import JudgeError
from emis_interp.http.blocking import wait_for
from emis_interp.http.chat_api import ChatApi
from emis_interp.http.costs import Budget, BudgetSpent, CostEstimate, Meter, Prices, Usage, count_tokens, read_usage
from emis_interp.http.replies import THINKS, BadReply, UnfinishedThought
from emis_interp.http.request_fields import say_request, token_limit
from emis_interp.records import Completion, Question, Score
from evals.judges.cache import Cache, request_key
from evals.judges.judge import METRICS, OnBatch, blank_scores, check_questions, why_unjudgeable
from evals.judges.logprobs import LABELS, NoLogprobs, Verdict
from evals.judges.methods import Evidence, Failure, Method, Outcome, Request
from evals.judges.requests import Asking
from evals.questions import render_judge_prompt

log = logging.getLogger(__name__)
TOKENS_WITHOUT_LIMIT = (
    1000  # set aside for a reply whose length the request leaves open, until the server has counted it
)


class ApiJudge:
    """A judge behind a chat API.

    Attributes:
        name: goes into every Score.
        card: kind, model, host and settings, for the run's record. Neither holds the key.
        meter: what was spent so far, over all calls of `score`.
    """

    together = 1

    def __init__(
        self,
        method: Method,
        api: ChatApi,
        name: str,
        *,
        card: Mapping[str, Any],
        cache: Cache | None = None,
        meter: Meter | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.card: dict[str, Any] = {"kind": method.kind, "model": api.model, "host": api.host, **card}
        if request:  # another request may be judged otherwise, and then it is another judge
            self.name += f" ({say_request(request)})"
            self.card["request"] = dict(request)
        self.method, self.api, self.cache = method, api, cache
        self.meter = meter or Meter()
        self._tested = False

    def estimate(self, completions: Sequence[Completion], questions: Mapping[str, Question]) -> CostEstimate:
        """Calls, tokens and price of `score` with the same arguments; sends nothing.

        Raises:
            JudgeError: a question does not fit the judge.
        """
        check_questions(completions, questions)
        usage, n_cached, seen = Usage(), 0, set[bytes]()
        for row in completions:
            if why_unjudgeable(row.question, row.answer):
                continue
            requests = self.requests(row, questions[row.question_id])
            if self.cache:
                seen |= self.cache.judgements.get(request.key for request in requests).keys()
            for request in requests:
                if request.key in seen:
                    n_cached += 1
                    continue
                usage += request.usage
                if self.cache:  # without one, equal answers are asked about one by one
                    seen.add(request.key)
        if usage.calls and not self._tested:
            usage += self._test_request().usage
        return CostEstimate(len(completions), n_cached, usage, self.meter.prices.cost(usage))

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        """Judge every completion; finished Scores go to `on_batch` as they come in, in no particular order. What nobody can
        judge (`why_unjudgeable`) is not sent and stays unscored with that reason.

        Raises:
            JudgeError: before anything is judged, when the judge cannot be used at all or a question does not fit it; later, when the
                server no longer answers. BudgetSpent is one too.
        """
        wait_for(self.score_async(completions, questions, on_batch))

    async def score_async(
        self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch
    ) -> None:
        """`score` for callers that go on with other work meanwhile."""
        estimate = self.estimate(completions, questions)
        if blank := blank_scores(self.name, completions):
            on_batch(blank)
            done = {score.key for score in blank}
            completions = [row for row in completions if row.key not in done]
        if not completions:
            return
        log.info("%s: %s", self.name, estimate.say())
        before = self.meter.spent
        async with self.api.connect() as client:
            if estimate.usage.calls and not self._tested:
                await self._test(client)
            asking = Asking(
                self.api,
                completions,
                requests=lambda row: self.requests(row, questions[row.question_id]),
                parse=self.method.parse,
                finish=self._score_of,
                on_batch=on_batch,
                name=self.name,
                meter=self.meter,
                table=self.cache.judgements if self.cache else None,
            )
            try:
                await asking.run(client)
            finally:
                spent = Meter(self.meter.prices, spent=self.meter.spent - before)
                log.info("%s: %s of %s answers judged; %s", self.name, asking.n_done, len(completions), spent.say())

    def requests(self, row: Completion, question: Question) -> list[Request]:
        """Everything that is asked about one answer."""
        return [
            self._request(metric, render_judge_prompt(question, metric, row.question, answer=row.answer), sample)
            for metric in METRICS
            if metric in question.judge_prompts
            for sample in range(self.method.n_samples)
        ]

    def _request(self, metric: str, prompt: str, sample: int = 0) -> Request:
        body = {"messages": [{"role": "user", "content": prompt}], **self.method.settings}
        key = request_key(
            "judgement", self.api.model, self.api.host, request=body, version=self.method.version, sample=sample
        )
        limit = token_limit(self.method.settings) or TOKENS_WITHOUT_LIMIT
        return Request(metric, key, body, Usage(1, count_tokens(prompt), limit))

    def _score_of(self, row: Completion, asked: Sequence[tuple[Request, Outcome]]) -> Score:
        """What the outcomes of an answer's requests make of it."""
        verdicts, evidence, passing = dict[str, Verdict](), dict[str, Evidence](), list[str]()
        for metric in METRICS:
            outcomes = [outcome for request, outcome in asked if request.metric == metric]
            failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
            passing += [metric] if any(failure.passing for failure in failed) else []
            if not outcomes:
                verdicts[metric] = Verdict(reason=f"the question has no judge prompt for `{metric}`")
            elif failed:
                first = next((failure for failure in failed if failure.passing), failed[0])
                verdicts[metric] = Verdict(reason=first.reason)
            else:
                replies = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
                verdicts[metric], evidence[metric] = self.read(metric, replies)
        return Score.of(
            row,
            judge=self.name,
            aligned=verdicts["aligned"].score,
            coherent=verdicts["coherent"].score,
            aligned_label=verdicts["aligned"].label,
            unscored={metric: verdict.reason for metric, verdict in verdicts.items() if verdict.reason},
            passing=tuple(passing),
            evidence=evidence,
        )

    def read(self, metric: str, replies: Sequence[Mapping[str, float]]) -> tuple[Verdict, Evidence]:
        """The verdict on one metric, and the evidence averaged over its samples."""
        evidence: Evidence = {}
        for reply in replies:
            for text, mass in reply.items():
                evidence[text] = evidence.get(text, 0.0) + mass / len(replies)
        return self.method.read(evidence, LABELS if metric == "aligned" else ()), evidence

    def _test_request(self) -> Request:
        return self._request("", "Write only the number 73 and nothing else.")

    async def _test(self, client: AsyncOpenAI) -> None:
        """A request that fails now if thousands would fail later; passing troubles (429, 5xx) are let through."""
        request = self._test_request()
        for _ in range(2):  # a reply without log-probabilities may be an accident, two are not
            if not self.meter.admit(request.usage):
                raise BudgetSpent(f"budget {self.meter.budget} does not allow for the first request; nothing is judged")
            usage = None
            try:
                content = await self.api.ask(client.with_options(max_retries=0), request.body)
                usage = read_usage(content)
                evidence = self.method.parse(content)
            except openai.OpenAIError as error:
                if reason := self.api.refusal(error, self.method.settings):
                    raise JudgeError(reason) from None
                return
            except NoLogprobs:
                continue
            except UnfinishedThought as error:
                more = THINKS.format(flag="--max-tokens 4096")
                raise JudgeError(
                    f"judge at {self.api.host}: `{self.api.model}` thinks first: {error}; {more}"
                ) from None
            except BadReply:
                return
            finally:
                self.meter.settle(request.usage, usage)
            if reason := self.method.refuse(evidence):
                raise JudgeError(f"judge at {self.api.host}: `{self.api.model}` {reason}")
            self._tested = True
            return
        raise JudgeError(
            f"judge at {self.api.host}: replies come without log-probabilities; ask `{self.api.model}` for its answer as text "
            "instead (--judge text)"
        )


def options_from(config: JudgeConfig) -> dict[str, Any]:
    """Arguments that every API judge takes, from a configuration; the key from its environment variable.

    Raises:
        ConfigError: the budget cannot be read, or is in dollars without prices.
    """
    prices = Prices(config.price_in, config.price_out)
    return {
        "key": judge_key(config),
        "url": config.url,
        "n_parallel": config.n_parallel,
        "timeout_s": config.timeout_s,
        "key_variable": judge_key_variable(config),
        "request": config.request,
        "max_tokens": config.max_tokens,
        "requests_per_minute": config.requests_per_minute,
        "cache": Cache(config.cache_path) if config.cache_path else None,
        "meter": Meter(prices, Budget.parse(config.budget) if config.budget else None),
    }
