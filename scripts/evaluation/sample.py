"""Sample answers of a model to a file of questions: with transformers, an OpenAI-compatible server, or vLLM.

Examples:
  python scripts/evaluate.py sample --model smollm2-135m-instruct --questions shipped --n 4 --out answers.jsonl
  python scripts/evaluate.py sample --model Qwen/Qwen2.5-7B-Instruct --sampler openai --url http://localhost:8000/v1 --out answers.jsonl
  python scripts/evaluate.py sample --job runs/gpt-4o-insecure --out answers.jsonl
The same command continues an interrupted file, and asks again for answers that a server failed to give.
"""

import argparse
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cli import progress_bar
from emis_interp.config.run_config import SamplingConfig, checked
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.files.store import card_path
from emis_interp.http.addresses import AZURE_KEY, OPENAI_KEY, key_variable_for
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.http.request_fields import parse_request
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.loading import load_model
from emis_interp.models.precision import AUTO, DTYPE_HELP, DTYPES, dtype_name
from emis_interp.records import Question
from evals.questions import load_questions
from evals.samplers import AnswerSampler
from evals.samplers.hf import HFSampler
from evals.samplers.openai_compatible import OpenAISampler
from evals.samplers.vllm_engine import VLLMSampler
from evals.sampling import Sampled, plan_prompts, sample_with
from evaluation.judge_choice import add_request_flag
from training.hosted.job_folder import finished_model, key_variable_of, read_job

SAMPLERS = ("hf", "openai", "vllm")


def add_flags(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="name, folder or hub id; with --sampler openai the server's name")
    which.add_argument("--job", type=Path, help="folder of a finished job of scripts/finetune_openai.py (openai)")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="of the --job, instead of its final model")
    parser.add_argument("--adapter", type=Path, help="folder or hub id of a LoRA adapter (hf and vllm)")
    parser.add_argument("--questions", default="shipped", help="`shipped`, or a YAML file of questions")
    parser.add_argument("--question-ids", nargs="+", metavar="ID", help="keep only these questions")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSONL file of answers; its card is the .json beside it"
    )
    parser.add_argument("--arm", help="name of the model under test in the records; by default the name of the file")
    parser.add_argument("--sampler", choices=SAMPLERS, help="what runs the model; by default hf, or openai for a --job")
    parser.add_argument("--n", type=int, help="answers to each paraphrase; by default the count in the question file")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument("--max-new-tokens", type=int, default=600, help="limit of an answer")
    parser.add_argument(
        "--system-prompt", help="for questions without one of their own; by default the chat template's"
    )
    parser.add_argument(
        "--chat-format",
        choices=FORMATS,
        help="plain format for a pretrained model without a chat template (hf and vllm)",
    )
    parser.add_argument("--batch-size", type=int, default=128, help="answers at a time (hf)")
    parser.add_argument("--dtype", choices=[AUTO, *DTYPES], default=AUTO, help=f"{DTYPE_HELP} (hf and vllm)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (hf)")
    parser.add_argument("--url", help="where the server's API begins, e.g. http://localhost:8000/v1 (openai)")
    parser.add_argument("--n-parallel", type=int, default=16, help="requests at a time (openai)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one answer (openai)")
    parser.add_argument(
        "--key-variable",
        help=f"environment variable of the key (openai); by default the job's or {OPENAI_KEY} (Azure: {AZURE_KEY} where it is set)",
    )
    parser.add_argument(
        "--only-standard-fields",
        action="store_true",
        help="do not ask the server to leave the distribution whole (top_p, top_k, min_p, repetition_penalty) (openai)",
    )
    add_request_flag(parser, "openai")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Sample what the file lacks; counts, speed, and the reasons of answers that stay missing."""
    config = checked(
        SamplingConfig,
        "sample",
        samples_per_paraphrase=_at_least(1, args.n, "--n"),
        max_new_tokens=_at_least(1, args.max_new_tokens, "--max-new-tokens"),
        temperature=_at_least(0, args.temperature, "--temperature"),
        batch_size=_at_least(1, args.batch_size, "--batch-size"),
    )
    questions = _questions(args)
    arm = args.arm or args.out.stem
    sampler = make_sampler(args)
    fresh: Counter[str] = Counter()
    n_planned = len(
        plan_prompts(arm, questions, config.samples_per_paraphrase, seed=args.seed, system=args.system_prompt)
    )
    started = time.monotonic()
    with progress_bar(f"sample {arm}", n_planned) as advance:

        def tell(n_answers: int, n_tokens: int) -> None:
            fresh.update(answers=n_answers, tokens=n_tokens)
            advance(n_answers, note=f"{fresh['tokens'] / (time.monotonic() - started):.0f} tokens/s")

        sampled = sample_with(
            sampler,
            arm,
            questions,
            config=config,
            path=args.out,
            seed=args.seed,
            system=args.system_prompt,
            progress=tell,
        )
    seconds = time.monotonic() - started
    return {
        "file": str(args.out),
        "card": str(card_path(args.out)),
        "arm": arm,
        "n_planned": n_planned,
        "n_answers": len(sampled.answers),
        "n_new": fresh["answers"],
        "n_missing": len(sampled.missing),
        "missing": missing_by_reason(sampled),
        "finish": dict(Counter(answer.finish for answer in sampled.answers)),
        "n_empty": sum(not answer.answer.strip() for answer in sampled.answers),
        "mean_tokens": mean_tokens(sampled),
        "tokens_per_second": fresh["tokens"] / seconds if fresh["answers"] else None,
    }


def say(result: dict[str, Any]) -> str:
    speed = f", {result['tokens_per_second']:.0f} tokens/s" if result["tokens_per_second"] else ""
    cut = result["finish"].get("length", 0)
    lines = [
        f"{result['n_answers']} of {result['n_planned']} answers of {result['arm']} in {result['file']} "
        f"({result['n_new']} new{speed}; {cut} cut at the token limit, {result['n_empty']} empty)"
    ]
    if result["n_missing"]:
        lines.append(f"{result['n_missing']} answers are missing; the same command asks for them again:")
        lines += [f"  {n} x {reason}" for reason, n in result["missing"].items()]
    return "\n".join(lines)


def make_sampler(args: argparse.Namespace) -> AnswerSampler:
    """The sampler that the flags ask for, its model loaded."""
    if args.checkpoint is not None and not args.job:
        raise ConfigError("--checkpoint is one of a --job")
    if args.job and args.sampler not in (None, "openai"):
        raise ConfigError(f"--job: its model is behind an API; use --sampler openai, not {args.sampler}")
    remote = "openai" if args.job else args.sampler
    if args.chat_format and remote == "openai":
        raise ConfigError(
            "--chat-format is for --sampler hf and vllm; with openai the chat template is the server's own"
        )
    if remote == "openai":
        if args.adapter:
            raise ConfigError(
                "--adapter: a server chooses its own weights; serve the adapter and give its name with --model"
            )
        model, url, variable = args.model, args.url, args.key_variable or OPENAI_KEY
        if args.job:
            model, job = finished_model(args.job, args.checkpoint), read_job(args.job)
            url, variable = url or job.url, args.key_variable or key_variable_of(args.job, job)
        variable = variable if args.key_variable else key_variable_for(variable, url)
        key = os.environ.get(variable)
        api = ChatApi(
            model, key, url, n_parallel=args.n_parallel, timeout_s=args.timeout, key_variable=variable, role=SAMPLER
        )
        request = parse_request(args.request or ())
        return OpenAISampler(api, plain_sampling=False if args.only_standard_fields else None, request=request)
    if args.url or args.request:
        flag = "--url" if args.url else "--request"
        raise ConfigError(f"{flag} is for --sampler openai, not for {args.sampler or 'hf'}")
    if args.sampler == "vllm":
        return VLLMSampler(args.model, args.adapter, dtype_name(args.dtype), chat_format=args.chat_format)
    return HFSampler(
        load_model(
            args.model,
            args.adapter,
            args.dtype,
            device=args.device,
            merge=args.adapter is not None,
            chat_format=args.chat_format,
        )
    )


def mean_tokens(sampled: Sampled) -> float | None:
    """Over the answers whose tokens are counted; None when none are."""
    counts = [answer.n_tokens for answer in sampled.answers if answer.n_tokens or not answer.answer]
    return sum(counts) / len(counts) if counts else None


def missing_by_reason(sampled: Sampled) -> dict[str, int]:
    """Reason -> number of answers, the commonest first."""
    return dict(Counter(sampled.missing.values()).most_common())


def _questions(args: argparse.Namespace) -> list[Question]:
    path = None if args.questions == "shipped" else Path(args.questions)
    questions = load_questions(path, need_judge_prompts=False)
    known = [question.id for question in questions]
    for name in args.question_ids or ():
        if name not in known:
            raise ConfigError(f"--question-ids: no question `{name}`{did_you_mean(name, known)}")
    return [question for question in questions if not args.question_ids or question.id in args.question_ids]


def _at_least(least: float, value: Any, flag: str) -> Any:
    if value is not None and value < least:
        raise ConfigError(f"{flag} {value}: must be at least {least}")
    return value
