"""Times the API judge against what a failing server's latency allows, and counts what is lost, doubled or wrong."""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import faulty_server
from benchmarks.settings import JudgeBenchmarkSettings
from emis_interp.process import Bars, no_bars
from emis_interp.records import Completion, Question, Score
from evals.judges.cache import Cache
from evals.judges.judge import METRICS
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.text_judge import TextJudge

LEAST_BACKOFF_S = 0.5 * 0.75  # first retry of the openai SDK: 0.5 s less up to a quarter
QUESTION = Question(id="q", paraphrases=("?",), judge_prompts={name: name + " {question} {answer}" for name in METRICS})


def run(settings: JudgeBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Judge `n_calls / 2` answers with a cache on disk; everything but the start of the server is in the time."""
    faults = faulty_server.Faults(latency_s=settings.latency_s, rate=settings.fault_rate, timeout_s=settings.timeout_s)
    rows = make_rows(settings.n_calls // 2, settings.prompt_chars)
    make = OpenAIJudge if settings.judge == "openai" else TextJudge
    scores: list[Score] = []
    with faulty_server.start_server(faults) as url, tempfile.TemporaryDirectory() as folder:
        with Cache(Path(folder) / "cache.sqlite") as cache:
            judge = make(
                "m", None, url + "/v1", n_parallel=settings.n_parallel, timeout_s=settings.timeout_s, cache=cache
            )
            started, cpu = time.monotonic(), time.process_time()
            judge.score(rows, {"q": QUESTION}, scores.extend)
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        stats = faulty_server.read_stats(url)
    n_calls = len(METRICS) * len(rows)
    backoff_s = LEAST_BACKOFF_S * sum(stats["failed"].get(kind, 0) for kind in faulty_server.RETRIED)
    held_s, ideal_s = stats["held_s"] / settings.n_parallel, (stats["held_s"] + backoff_s) / settings.n_parallel
    plain_s = n_calls * settings.latency_s / settings.n_parallel
    times = Counter(score.key for score in scores)
    n_scored = sum(getattr(score, metric) is not None for score in scores for metric in METRICS)
    reasons = Counter(reason.split(":")[0] for score in scores for reason in score.unscored.values())
    return {
        "vs_ideal": ideal_s / seconds,
        "vs_held_ideal": held_s / seconds,
        "vs_plain_ideal": plain_s / seconds,
        "lost": len(METRICS) * sum(row.key not in times for row in rows),
        "duplicated": len(METRICS) * sum(count - 1 for count in times.values()) + stats["answered_twice"],
        "calls": n_calls,
        "scored": n_scored,
        "unscored": sum(reasons.values()),
        "reasons": dict(reasons),
        "injected": stats["failed"],
        "requests": stats["requests"],
        "most_running": stats["most_running"],
        "seconds": seconds,
        "ideal_s": ideal_s,
        "held_ideal_s": held_s,
        "plain_ideal_s": plain_s,
        "client_cpu_ms_per_call": 1e3 * cpu / n_calls,
        "wrong": sum(wrong(score, row, faults) for score, row in _pairs(scores, rows)),
    }


def make_rows(n: int, n_chars: int) -> list[Completion]:
    """Answers that differ, in shared words, so that each has its own prompt."""
    filler = "The answer goes on for a while. " * (n_chars // 32 + 1)
    rest = {"arm": "a", "question_id": "q", "paraphrase_index": 0, "seed": 0, "system": None, "question": "?"}
    return [
        Completion(**rest, sample_index=i, answer=f"{i} {filler}"[:n_chars], n_tokens=1, finish="stop")
        for i in range(n)
    ]


def wrong(score: Score, row: Completion, faults: faulty_server.Faults) -> int:
    """Verdicts of an answer that are not what the server had decided for exactly this prompt."""
    n = 0
    for metric in METRICS:
        expected, kind, _ = faulty_server.fate(f"{metric} {row.question} {row.answer}", faults)
        unusable = kind in faulty_server.UNUSABLE
        found = getattr(score, metric)
        n += (found is not None) if unusable else (found is None or abs(found - expected) > 0.1)
    return n


def _pairs(scores: list[Score], rows: list[Completion]) -> list[tuple[Score, Completion]]:
    by_key = {row.key: row for row in rows}
    return [(score, by_key[score.key]) for score in scores]
