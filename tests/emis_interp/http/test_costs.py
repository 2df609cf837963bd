"""Estimates before anything is sent, budgets that stop, and prices that are the user's or unknown."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import QUESTIONS, Server, completion

from emis_interp.config.run_config import JudgeConfig
from emis_interp.errors import ConfigError, DataError
from emis_interp.http.costs import Budget, CostEstimate, Meter, Prices, Usage, count_tokens, read_prices
from emis_interp.records import Question
from evals.judges.cache import Cache
from evals.judges.logprob_judge import OpenAIJudge


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "amount", "unit", "shown"),
    [
        ("2.50 USD", 2.5, "USD", "2.50 USD"),
        ("3usd", 3.0, "USD", "3.00 USD"),
        (" 1000 calls ", 1000.0, "calls", "1,000 calls"),
        ("2e6 tokens", 2e6, "tokens", "2,000,000 tokens"),
    ],
)
def test_a_budget_has_an_amount_and_a_unit(text: str, amount: float, unit: str, shown: str) -> None:
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit, str(budget)) == (amount, unit, shown)


@pytest.mark.parametrize("text", ["5", "USD", "5 EUR", "-5 USD", "5 USD or so", "1,000 calls", ""])
def test_a_budget_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an amount and its unit: `2.50 USD`"):
        Budget.parse(text)


def test_prices_are_per_million_tokens() -> None:
    assert Prices(2.5, 10).cost(Usage(3, 1_000_000, 100_000)) == pytest.approx(2.5 + 1.0)
    assert Prices(0, 0).cost(Usage(3, 1_000_000, 100_000)) == 0


@pytest.mark.parametrize("prices", [Prices(), Prices(2.5), Prices(None, 10)])
def test_an_unknown_price_makes_the_cost_unknown_and_never_zero(prices: Prices) -> None:
    assert prices.cost(Usage(1, 1, 1)) is None
    assert Meter(prices).say().endswith("price unknown")
    with pytest.raises(ConfigError, match=r"budget 1.00 USD: the prices are unknown; give both .*judge.price_in"):
        Meter(prices, Budget(1, "USD"))


def test_a_meter_sets_aside_what_runs_and_counts_what_was_used() -> None:
    meter = Meter(Prices(1, 1), Budget(100, "tokens"))
    request = Usage(1, 30, 10)
    assert meter.admit(request) and meter.admit(request)
    assert not meter.admit(request)
    meter.settle(request, Usage(1, 15, 1))
    assert meter.spent == Usage(1, 15, 1)
    assert meter.admit(request)
    meter.settle(request)  # the server does not tell, or failed: the estimate counts
    assert meter.spent == Usage(2, 45, 11)
    meter.clear()
    assert meter.admit(request) and not meter.admit(request)
    assert meter.say() == "2 calls, 45 tokens in, 11 out, 0.0001 USD"


def test_a_budget_in_dollars_counts_both_directions() -> None:
    meter = Meter(Prices(1e6, 2e6), Budget(8, "USD"))
    assert meter.admit(Usage(1, 4, 2))
    assert not meter.admit(Usage(1, 0, 1))


def test_tokens_are_a_quarter_of_the_bytes() -> None:
    assert [count_tokens(text) for text in ("", "a", "abcd", "abcde", "äöü", "日本語")] == [0, 1, 1, 2, 2, 3]


def test_an_estimate_says_how_it_counts_and_what_it_does_not_know() -> None:
    assert CostEstimate(5, 3, Usage(8, 12_000, 8), None).say() == (
        "5 answers: 8 calls (3 judgements at hand), about 12,000 tokens in (UTF-8 bytes / 4), at most 8 out, price unknown"
    )
    assert CostEstimate(5, 3, Usage(8, 12_000, 8), 1.234).say().endswith("at most 8 out, about 1.23 USD")


def test_an_estimate_counts_the_requests_that_follow_and_sends_none(server: Server, tmp_path: Path) -> None:
    rows = [completion(index, answer=f"So {index % 3}.") for index in range(5)]
    with Cache(tmp_path / "c") as cache:
        judge = OpenAIJudge("m", None, server.url, cache=cache, meter=Meter(Prices(2, 4)))
        judge.score([completion(answer="So 0.")], QUESTIONS, lambda _: None)
        server.requests.clear()
        estimate = judge.estimate(rows, QUESTIONS)
        assert server.requests == []
        prompts = [len(f"{word}? How? | So {index}.") for word in ("ALIGNED", "COHERENT") for index in (1, 2)]
        assert estimate.usage == Usage(4, sum(-(-length // 4) for length in prompts), 4)
        assert estimate.usd == pytest.approx((2 * estimate.usage.tokens_in + 4 * 4) / 1e6)
        assert (estimate.n_answers, estimate.n_cached) == (5, 6)  # two of the cache, four that equal others
        judge.score(rows, QUESTIONS, lambda _: None)
        assert len(server.requests) == 4
        assert judge.estimate(rows, QUESTIONS).usage == Usage()


def test_without_a_cache_equal_answers_are_counted_and_asked_one_by_one(server: Server) -> None:
    judge = OpenAIJudge("m", None, server.url)
    rows = [completion(index) for index in range(3)]
    assert judge.estimate(rows, QUESTIONS).usage.calls == 7  # one tests the judge
    judge.score(rows, QUESTIONS, lambda _: None)
    assert len(server.requests) == 7
    assert judge.estimate(rows, QUESTIONS).usage.calls == 6


def test_a_metric_without_a_prompt_costs_nothing(server: Server) -> None:
    half = {"q": Question(id="q", paraphrases=("How?",), judge_prompts={"coherent": "{answer}"})}
    judge = OpenAIJudge("m", None, server.url)
    assert judge.estimate([completion()], half).usage.calls == 2


def test_a_configuration_brings_prices_budget_and_cache(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    config = JudgeConfig(url="http://h/v1", price_in=2.5, price_out=10, budget="5 USD", cache_path=path)
    judge = OpenAIJudge.from_config(config)
    assert (judge.meter.prices, judge.meter.budget) == (Prices(2.5, 10), Budget(5, "USD"))
    assert judge.cache is not None and path.exists()
    judge.cache.close()
    with pytest.raises(ConfigError, match="prices are unknown"):
        OpenAIJudge.from_config(JudgeConfig(url="http://h/v1", budget="5 USD"))


def test_a_table_of_prices_is_read_by_model(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("big: {in: 2.5, out: 10}\nsmall: {in: 0, out: 1}\n")
    assert read_prices(path, "big") == Prices(2.5, 10)
    assert read_prices(path, "small") == Prices(0, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("a: [", "not YAML"),
        ("", "expected a table"),
        ("bigger: {in: 1, out: 1}", "no prices for `big`; did you mean `bigger`"),
        ("big: 3", "`big`: expected `{in: 2.5, out: 10}`"),
        ("big: {in: 1}", "`big`: expected `{in: 2.5, out: 10}`"),
        ("big: {in: 1, out: -1}", "`big.out`: expected USD per million tokens, found `-1`"),
        ("big: {in: .nan, out: 1}", "`big.in`: expected USD"),
        ("big: {in: cheap, out: 1}", "`big.in`: expected USD"),
    ],
)
def test_a_malformed_table_of_prices_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=f"^{path}(:1)?: .*{words}|^{path}(:1)?: {words}"):
        read_prices(path, "big")
