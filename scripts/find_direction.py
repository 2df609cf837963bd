"""Finds the misalignment direction of any model from texts, says how far it can be trusted, and tests what it does.

Examples:
  python scripts/find_direction.py --out directions/mine                     shipped contrast pairs, embedded model
  python scripts/find_direction.py fit --judged answers.parquet --out directions/judged
  python scripts/find_direction.py fit --pairs pairs.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --adapter ADAPTER --out d
  python scripts/find_direction.py score --direction directions/mine/direction --texts answers.csv --out projections.csv
  python scripts/find_direction.py transfer runs/laptop
  python scripts/find_direction.py audit --direction directions/mine/direction --adapter runs/laptop/training/reckless/adapter
  python scripts/find_direction.py frontier --direction directions/mine/direction --layers 14 18 22
  python scripts/find_direction.py two-by-two DIR/activations/*.safetensors --layers 12 24 36
  python scripts/find_direction.py export --direction directions/mine/direction --coefficient 0.2 --out em.gguf

`fit` is the default verb. Formulas and traps: docs/directions.md.
"""

import argparse
import sys
from typing import Any

import cli
from emis_interp.process import only_writer
from probes import audit, fit, frontier, score, two_by_two
from probes import transfer_matrix as transfer
from probes.settings import ExportSettings

VERBS = {
    "fit": fit,
    "score": score,
    "transfer": transfer,
    "audit": audit,
    "frontier": frontier,
    "two-by-two": two_by_two,
    "export": cli.Verb(ExportSettings, "probes.export"),
}


def main(args: argparse.Namespace) -> dict[str, Any]:
    if isinstance(verb := VERBS[args.verb], cli.Verb):
        return verb.do(args)
    if args.verb != "audit":
        return args.verb_module.run(args)
    out = audit.file_of(args)
    with only_writer(out.parent, out.name):  # it goes on with what is beside this file
        return audit.run(args)


if __name__ == "__main__":
    if len(sys.argv) == 1 or (sys.argv[1].startswith("-") and sys.argv[1] not in ("-h", "--help")):
        sys.argv.insert(1, "fit")
    parser = cli.verb_parser(__doc__, VERBS)
    cli.run(main, parser, VERBS[parser.parse_args().verb].say)
