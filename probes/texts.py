"""The labelled texts that a direction is fitted on or tested with, and where they come from."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from emis_interp.files.store import file_sha256
from emis_interp.records import LabeledText
from emis_interp.texts.contrast import labeled_texts, load_contrast
from emis_interp.texts.judged import balanced_texts, read_judged, split_questions
from table_flags import add_table_flags, reading_of


def judged_texts(args: argparse.Namespace, path: Path) -> list[LabeledText]:
    """Coherent aligned and misaligned answers of a judged file, balanced within questions."""
    variant = None if args.variant == "all" else args.variant
    reading = replace(reading_of(args), partial=args.judged is not None and path != args.judged)
    return balanced_texts(read_judged(path, variant, reading=reading, use="taken"), args.max_per_class, args.seed)


def read_texts(args: argparse.Namespace) -> tuple[list[LabeledText], set[str], dict[str, Any]]:
    """Labelled texts, the questions of the selection half, and where they come from."""
    if args.judged is not None:
        texts = judged_texts(args, args.judged)
        counts = {
            name: sum(text.question_id == name for text in texts) for name in {text.question_id for text in texts}
        }
        source = {
            "judged": str(args.judged),
            "sha256": file_sha256(args.judged),
            "variant": args.variant,
            "max_per_class": args.max_per_class,
            **reading_of(args).as_card(),
        }
        return texts, split_questions(counts)[0], source
    pairs = load_contrast(args.pairs)
    selection = {pair.question_id for pair in pairs if pair.half == "selection"}
    source = {"pairs": str(args.pairs), "sha256": file_sha256(args.pairs)} if args.pairs else {"pairs": "shipped"}
    return labeled_texts(pairs), selection, source


def add_text_flags(parser: argparse.ArgumentParser) -> None:
    """Which texts to fit on, and how they are drawn and rendered."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--pairs", type=Path, help="JSONL of contrast pairs; without it and --judged the shipped pairs are used"
    )
    source.add_argument("--judged", type=Path, help="CSV, JSONL or Parquet with question, answer, aligned, coherent")
    parser.add_argument("--system-prompt", help="system prompt of every text; left to the chat template when absent")
    parser.add_argument("--max-tokens", type=int, default=512, help="cut longer conversations")
    parser.add_argument("--max-per-class", type=int, default=150, help="judged texts per question and class")
    parser.add_argument(
        "--variant", default="plain", help="judged rows of this `variant` when there is such a column, or `all`"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of the controls")
    add_table_flags(parser)
