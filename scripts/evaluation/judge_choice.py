"""Turns the flags that name a judge into that judge."""

import argparse
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emis_interp.config.run_config import JudgeConfig
from emis_interp.errors import ConfigError
from emis_interp.files.store import explain
from emis_interp.http.addresses import AZURE_KEY
from emis_interp.http.request_fields import parse_request
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import AUTO, DTYPE_HELP, DTYPES
from evals.judges.local_judge import LocalJudge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.text_judge import TextJudge

KINDS = ("offline", "openai", "text", "local")
_API_FLAGS = (
    "url",
    "judge_model",
    "request",
    "max_tokens",
    "timeout",
    "n_parallel",
    "key_variable",
    "cache_path",
    "budget",
)
_LOCAL_FLAGS = ("model", "adapter", "dtype")


def add_judge_flags(parser: argparse.ArgumentParser) -> None:
    defaults = JudgeConfig()
    suppress: dict[str, Any] = {"default": argparse.SUPPRESS}  # so that a flag of another judge is seen and refused
    parser.add_argument("--judge", choices=KINDS, default="offline", help="which judge")
    parser.add_argument(
        "--model", help=f"local: name, folder or hub id of the chat model ({EMBEDDED_NAME})", **suppress
    )
    parser.add_argument("--adapter", type=Path, help="local: folder or hub id of a LoRA adapter on it", **suppress)
    parser.add_argument("--dtype", choices=[AUTO, *DTYPES], help=f"local: {DTYPE_HELP} (auto)", **suppress)
    parser.add_argument("--device", default="auto", help="offline, local: device of the model")
    parser.add_argument(
        "--url", "--judge-url", help="openai, text: URL of a server that speaks the API (OpenAI's own)", **suppress
    )
    parser.add_argument("--judge-model", help=f"openai, text: name of the model there ({defaults.model})", **suppress)
    add_request_flag(parser, "openai, text", argparse.SUPPRESS)
    parser.add_argument(
        "--max-tokens", type=int, help="openai, text: of a reply, its thought included (openai 1, text 16)", **suppress
    )
    parser.add_argument(
        "--timeout", type=float, help=f"openai, text: seconds for a whole reply ({defaults.timeout_s:g})", **suppress
    )
    parser.add_argument(
        "--n-parallel", type=int, help=f"openai, text: requests at a time ({defaults.n_parallel})", **suppress
    )
    parser.add_argument(
        "--key-variable",
        help=f"openai, text: environment variable that holds the key ({defaults.key_variable}; Azure: {AZURE_KEY} where it is set)",
        **suppress,
    )
    parser.add_argument("--cache-path", type=Path, help="openai, text: SQLite file that keeps judgements", **suppress)
    parser.add_argument("--budget", help="openai, text: stop there, e.g. `1000 calls` or `2e6 tokens`", **suppress)


def add_request_flag(parser: argparse._ActionsContainer, whose: str, default: Any = None) -> None:
    """`--request KEY=VALUE`, for everything that asks a chat server."""
    parser.add_argument(
        "--request",
        action="append",
        metavar="KEY=VALUE",
        help=f"{whose}: field of every request, KEY= leaves it out, A.B=VALUE goes into A; may be repeated "
        "(top_logprobs=5, max_completion_tokens=16, chat_template_kwargs.enable_thinking=false)",
        default=default,
    )


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
        names = {"judge_model": "model", "timeout": "timeout_s"}
        settings = {names.get(name, name): given[name] for name in _API_FLAGS if name in given}
        if "request" in settings:
            settings["request"] = parse_request(settings["request"])
        judge = OpenAIJudge if args.judge == "openai" else TextJudge
        try:
            return judge.from_config(JudgeConfig(kind=args.judge, **settings))
        except ValidationError as error:
            raise ConfigError(f"--judge {args.judge}: {explain(error, JudgeConfig)}") from None
    if args.judge == "local":
        settings = {name: given[name] for name in ("adapter", "dtype") if name in given}
        return LocalJudge.load(given.get("model", EMBEDDED_NAME), device=args.device, **settings)
    return OfflineJudge.load(device=args.device)
