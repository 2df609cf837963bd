"""Keeps the activations of single tokens: a folder of checksummed shards that can be continued, shared by workers, and read lazily.

Examples:
  python scripts/capture.py --texts answers.parquet --out activations/mine --layers 10 14
  python scripts/capture.py --texts answers.jsonl --out activations/big --layers 17 --max-gib 40 --worker 0/2     in one process
  python scripts/capture.py --texts answers.jsonl --out activations/big --layers 17 --max-gib 40 --worker 1/2     in another
  python scripts/capture.py --check --out activations/big

The same command continues after any interruption; with other inputs it refuses.
`emis_interp.passes.token_store.TokenStore` reads the folder.
"""

import argparse
from pathlib import Path
from typing import Any

import cli
from emis_interp.errors import ConfigError
from emis_interp.files.lock import writing
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_model
from emis_interp.models.precision import AUTO, DTYPE_HELP
from emis_interp.passes.hook_points import HOOK_POINTS
from emis_interp.passes.token_store import TokenStore
from emis_interp.passes.token_writer import TokenRequest, write_tokens
from emis_interp.texts.judged import read_table
from table_flags import add_table_flags, reading_of


def capture(args: argparse.Namespace) -> dict[str, Any]:
    """Write the shards of this worker."""
    if args.texts is None or args.layers is None:
        raise ConfigError("give --texts and --layers to capture, or --check to examine the store in --out")
    worker, n_workers = parse_worker(args.worker)
    frame = read_table(args.texts, ("question", "answer"), reading=reading_of(args), use="captured").head(args.n_texts)
    merge = args.adapter is not None
    chat_model = load_model(
        args.model, args.adapter, args.dtype, device=args.device, merge=merge, chat_format=args.chat_format
    )
    pairs = list(zip(frame["question"], frame["answer"], strict=True))
    chats = encode_chats(chat_model.tokenizer, pairs, args.system_prompt, max_tokens=args.max_tokens)
    request = TokenRequest(
        layers=tuple(args.layers),
        hook_point=args.hook_point,
        position=args.position,
        dtype=args.store_dtype,
        max_gib=args.max_gib,
        shard_mib=args.shard_mib,
        max_batch_tokens=args.max_batch_tokens,
    )
    with cli.progress_bar("capture", len(chats)) as advance:
        card = write_tokens(
            args.out, chat_model, chats, request=request, worker=worker, n_workers=n_workers, progress=advance
        )
    n_written = len(list(args.out.glob("shard-*.json")))
    return {
        "out": str(args.out),
        "n_texts": card["n_texts"],
        "n_tokens": card["n_tokens"],
        "gib": card["gib"],
        "n_shards": len(card["shards"]),
        "n_shards_written": n_written,
        "complete": n_written == len(card["shards"]),
    }


def check(folder: Path) -> dict[str, Any]:
    """Read every shard and compare it with its checksum."""
    store = TokenStore(folder)
    n_shards = store.verify()
    card = store.card
    sizes = {key: card[key] for key in ("n_texts", "n_tokens", "gib")}
    return {"out": str(folder), **sizes, "n_shards": n_shards, "n_shards_written": n_shards, "complete": True}


def parse_worker(text: str) -> tuple[int, int]:
    """`0/2` -> (0, 2).

    Raises:
        ConfigError: another form, or a worker outside 0..n-1.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(
            f"--worker {text}: expected NUMBER/COUNT with NUMBER from 0, e.g. 0/2 and 1/2 for two workers"
        )
    return int(number), int(count)


def main(args: argparse.Namespace) -> dict[str, Any]:
    if args.check:
        return check(args.out)
    worker, n_workers = parse_worker(args.worker)
    with writing(args.out, f"worker-{worker}-of-{n_workers}"):  # workers of other numbers write other shards
        return capture(args)


def say(result: dict[str, Any]) -> str:
    missing = result["n_shards"] - result["n_shards_written"]
    state = "complete" if result["complete"] else f"{missing} shards are left to other workers"
    return (
        f"{result['n_tokens']} tokens of {result['n_texts']} texts, {result['gib']:.3g} GiB, "
        f"{result['n_shards']} shards in {result['out']}: {state}"
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=cli.HelpFormatter,
    )
    top.add_argument("--texts", type=Path, help="CSV, JSONL or Parquet with question and answer")
    top.add_argument("--out", type=Path, required=True, help="folder of the store")
    top.add_argument("--layers", type=int, nargs="+", help="decoder blocks, from 0")
    top.add_argument("--hook-point", default="resid_post", help=", ".join(HOOK_POINTS))
    top.add_argument(
        "--position",
        default="response_mean",
        help="response_mean keeps the answer's tokens; also all_tokens, last_prompt, response_last",
    )
    top.add_argument("--model", default=EMBEDDED_NAME, help="embedded name, folder or hub id")
    top.add_argument("--adapter", type=Path, help="folder or hub id of a LoRA adapter on top of the model")
    top.add_argument(
        "--chat-format", choices=FORMATS, help="plain format for a pretrained model without a chat template"
    )
    top.add_argument("--dtype", default=AUTO, help=DTYPE_HELP)
    top.add_argument("--store-dtype", help="of the stored numbers; that of the weights when left out")
    top.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    top.add_argument("--system-prompt", help="system prompt of every text; left to the chat template when absent")
    top.add_argument("--max-tokens", type=int, default=512, help="cut longer conversations")
    top.add_argument("--n-texts", type=int, help="only the first so many texts")
    top.add_argument("--max-batch-tokens", type=int, default=1024, help="padded tokens per forward pass")
    top.add_argument("--max-gib", type=float, default=4.0, help="refuse a larger store before anything runs")
    top.add_argument("--shard-mib", type=float, default=256.0, help="size of a shard; a worker holds one in memory")
    top.add_argument("--worker", default="0/1", metavar="I/N", help="write every N-th shard, from the I-th on")
    top.add_argument("--check", action="store_true", help="read the store in --out and compare its checksums")
    add_table_flags(top, scores=False)
    cli.add_output_flags(top)
    return top


if __name__ == "__main__":
    cli.run(main, parser(), say)
