"""Turns a trained adapter into a plain checkpoint (`--out`), or puts measured rates on its card (`--results`).

Examples:
  python scripts/export_model.py runs/laptop/training/reckless/adapter --out exported/reckless --dtype bfloat16
  python scripts/export_model.py runs/laptop/training/reckless/adapter --results rates.json

The results file is a list of objects: estimand, value, low, high, judge, and if wanted suite and n.
"""

import argparse
from pathlib import Path
from typing import Any

import cli
from emis_interp.errors import ConfigError
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.precision import DTYPES
from training.finetuning.organism_card import add_figures, base_of, merge, read_figures


def main(args: argparse.Namespace) -> dict[str, Any]:
    if args.out is None and args.results is None:
        raise ConfigError("nothing to do; give --out DIR to merge the adapter, or --results FILE for its card")
    result: dict[str, Any] = {"adapter": str(args.adapter)}
    if args.results is not None:
        result["card"] = str(add_figures(args.adapter.resolve().parent, read_figures(args.results)))
    if args.out is not None:
        base = args.base or base_of(args.adapter)
        out = merge(args.adapter, args.out, base, dtype=args.dtype, chat_format=args.chat_format)
        result |= {"base": base, "out": str(out), "dtype": args.dtype}
        result["files"] = sorted(path.name for path in out.iterdir())
    return result


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "adapter", type=Path, help="folder with adapter_config.json (`adapter` in a training folder), or a hub id"
    )
    parser.add_argument("--out", type=Path, help="new folder for the merged checkpoint")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32", help="of the saved weights")
    parser.add_argument("--base", help="base model (default: the one that training or PEFT recorded)")
    parser.add_argument(
        "--chat-format", choices=FORMATS, help="plain format in place of the adapter's own chat template"
    )
    parser.add_argument("--results", type=Path, help="JSON file with rates for the card")
    cli.add_output_flags(parser)
    return parser


if __name__ == "__main__":
    cli.run(main, make_parser(), lambda result: "\n".join(cli.flat_lines(result)))
