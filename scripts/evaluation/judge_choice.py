"""Turns the flags that name a judge into that judge."""

import argparse
from pathlib import Path
from typing import Any

from emis_interp.config import JudgeConfig
from emis_interp.embedded import EMBEDDED_NAME
from emis_interp.errors import ConfigError
from emis_interp.precision import AUTO, DTYPE_HELP, DTYPES
from evals.judges import OpenAIJudge
from evals.local_judge import LocalJudge
from evals.offline_judge import OfflineJudge
from evals.text_judge import TextJudge

KINDS = ("offline", "openai", "text", "local")
_API_FLAGS = ("url", "judge_model", "n_parallel", "key_variable", "cache_path", "budget")
_LOCAL_FLAGS = ("model", "adapter", "dtype")


def add_judge_flags(parser: argparse.ArgumentParser) -> None:
    defaults = JudgeConfig()
    suppress: dict[str, Any] = {"default": argparse.SUPPRESS}  # so that a flag of another judge is seen and refused
    parser.add_argument("--judge", choices=KINDS, default="offline", help="which judge")
    parser.add_argument(
        "--model", help=f"local: name, folder or hub id of the chat model ({EMBEDDED_NAME})", **suppress
    )
    parser.add_argument("--adapter", type=Path, help="local: folder of a PEFT adapter on it", **suppress)
    parser.add_argument("--dtype", choices=[AUTO, *DTYPES], help=f"local: {DTYPE_HELP} (auto)", **suppress)
    parser.add_argument("--device", default="auto", help="offline, local: device of the model")
    parser.add_argument("--url", help="openai, text: URL of a server that speaks the API (OpenAI's own)", **suppress)
    parser.add_argument("--judge-model", help=f"openai, text: name of the model there ({defaults.model})", **suppress)
    parser.add_argument(
        "--n-parallel", type=int, help=f"openai, text: requests at a time ({defaults.n_parallel})", **suppress
    )
    parser.add_argument(
        "--key-variable",
        help=f"openai, text: environment variable that holds the key ({defaults.key_variable})",
        **suppress,
    )
    parser.add_argument("--cache-path", type=Path, help="openai, text: SQLite file that keeps judgements", **suppress)
    parser.add_argument("--budget", help="openai, text: stop there, e.g. `1000 calls` or `2e6 tokens`", **suppress)


def make_judge(args: argparse.Namespace) -> Any:
    """The judge that the flags name.

    Raises:
        ConfigError: a flag of another judge.
    """
    given = vars(args)
    mine = {"openai": _API_FLAGS, "text": _API_FLAGS, "local": _LOCAL_FLAGS}.get(args.judge, ())
    for name in (*_API_FLAGS, *_LOCAL_FLAGS):
        if name in given and name not in mine:
            raise ConfigError(f"--{name.replace('_', '-')} is not for --judge {args.judge}")
    if args.judge in ("openai", "text"):
        names = {"judge_model": "model"}
        settings = {names.get(name, name): given[name] for name in _API_FLAGS if name in given}
        judge = OpenAIJudge if args.judge == "openai" else TextJudge
        return judge.from_config(JudgeConfig(kind=args.judge, **settings))
    if args.judge == "local":
        settings = {name: given[name] for name in ("adapter", "dtype") if name in given}
        return LocalJudge.load(given.get("model", EMBEDDED_NAME), device=args.device, **settings)
    return OfflineJudge.load(device=args.device)
