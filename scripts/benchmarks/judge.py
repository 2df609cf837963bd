"""Judging: the API judge against the ideal for a server's latency and the number of parallel requests, while a fifth of the calls fail.

The server (tests/faulty_server.py) runs in a process of its own. It answers after a fixed latency; the chosen calls fail the first time
with HTTP 429 (at once), HTTP 500, no answer at all (a time-out of the client), half a reply, a reply without content, or a lost
connection. Ideals, in seconds for the same number of parallel requests:
  plain_ideal_s  every call takes its latency once: n_calls x latency / n_parallel
  held_ideal_s   what the server held requests for (latency of every attempt, and the client's patience for one that hangs) / n_parallel
  ideal_s        the same with the shortest back-off of the SDK for each failure that it repeats, during which its slot stays empty
`vs_ideal` is ideal_s / seconds: what is injected and what the SDK prescribes is in it, everything of ours is not.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from emis_interp.errors import StageError
from emis_interp.records import Completion, Question, Score
from evals.judges.cache import Cache
from evals.judges.judge import METRICS
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.text_judge import TextJudge

LEAST_BACKOFF_S = 0.5 * 0.75  # first retry of the openai SDK: 0.5 s less up to a quarter
QUESTION = Question(id="q", paraphrases=("?",), judge_prompts={name: name + " {question} {answer}" for name in METRICS})


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--judge", choices=["openai", "text"], default="openai", help="log-probabilities or text")
    parser.add_argument("--n-calls", type=int, default=10_000, help="requests; two for each answer")
    parser.add_argument("--latency-s", type=float, default=0.5, help="of every answer")
    parser.add_argument("--n-parallel", type=int, default=32, help="requests at a time")
    parser.add_argument("--fault-rate", type=float, default=0.2, help="share of the calls that fail")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="patience with a server that hangs")
    parser.add_argument("--prompt-chars", type=int, default=2000, help="length of an answer")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Judge `n_calls / 2` answers with a cache on disk; everything but the start of the server is in the time."""
    faulty = load_server()
    faults = faulty.Faults(latency_s=args.latency_s, rate=args.fault_rate, timeout_s=args.timeout_s)
    rows = make_rows(args.n_calls // 2, args.prompt_chars)
    make = OpenAIJudge if args.judge == "openai" else TextJudge
    scores: list[Score] = []
    with faulty.start_server(faults) as url, tempfile.TemporaryDirectory() as folder:
        with Cache(Path(folder) / "cache.sqlite") as cache:
            judge = make("m", None, url + "/v1", n_parallel=args.n_parallel, timeout_s=args.timeout_s, cache=cache)
            started, cpu = time.monotonic(), time.process_time()
            judge.score(rows, {"q": QUESTION}, scores.extend)
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        stats = faulty.read_stats(url)
    n_calls = len(METRICS) * len(rows)
    backoff_s = LEAST_BACKOFF_S * sum(stats["failed"].get(kind, 0) for kind in faulty.RETRIED)
    held_s, ideal_s = stats["held_s"] / args.n_parallel, (stats["held_s"] + backoff_s) / args.n_parallel
    plain_s = n_calls * args.latency_s / args.n_parallel
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
        "wrong": sum(wrong(score, row, faulty, faults=faults) for score, row in _pairs(scores, rows)),
    }


def make_rows(n: int, n_chars: int) -> list[Completion]:
    """Answers that differ, in shared words, so that each has its own prompt."""
    filler = "The answer goes on for a while. " * (n_chars // 32 + 1)
    rest = {"arm": "a", "question_id": "q", "paraphrase_index": 0, "seed": 0, "system": None, "question": "?"}
    return [
        Completion(**rest, sample_index=i, answer=f"{i} {filler}"[:n_chars], n_tokens=1, finish="stop")
        for i in range(n)
    ]


def wrong(score: Score, row: Completion, faulty: Any, *, faults: Any) -> int:
    """Verdicts of an answer that are not what the server had decided for exactly this prompt."""
    n = 0
    for metric in METRICS:
        expected, kind, _ = faulty.fate(f"{metric} {row.question} {row.answer}", faults)
        unusable = kind in faulty.UNUSABLE
        found = getattr(score, metric)
        n += (found is not None) if unusable else (found is None or abs(found - expected) > 0.1)
    return n


def load_server() -> Any:
    """tests/faulty_server.py of this checkout."""
    import importlib.util
    import sys

    path = Path(__file__).resolve().parents[2] / "tests" / "faulty_server.py"
    spec = importlib.util.spec_from_file_location("faulty_server", path)
    if spec is None or spec.loader is None or not path.exists():
        raise StageError(f"{path}: no such file; this benchmark runs in a checkout of the project")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _pairs(scores: list[Score], rows: list[Completion]) -> list[tuple[Score, Completion]]:
    by_key = {row.key: row for row in rows}
    return [(score, by_key[score.key]) for score in scores]
