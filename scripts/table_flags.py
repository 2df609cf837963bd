"""Turns the flags that describe somebody else's table into a `Reading`; every command that reads a table has them."""

import argparse
from collections.abc import Sequence

from emis_interp.errors import ConfigError
from emis_interp.files.names import ARM_KEYS, METRICS
from emis_interp.files.reading import Reading

ESCAPES = {"auto": None, "yes": True, "no": False}


def add_table_flags(
    parser: argparse.ArgumentParser, *, scores: bool = True, arms: bool = True, judges: bool = False
) -> None:
    """Flags for names, scales and arms.

    Args:
        scores: whether the command reads scores.
        arms: whether it takes rows of several arms together, or apart.
        judges: whether --columns also takes two judges' columns in one file.
    """
    group = parser.add_argument_group("a table with other names, scales or arms")
    example = "answer=response aligned=100-evil" if scores else "answer=response question=prompt"
    group.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="OURS=THEIRS",
        help=("two judges' columns in one file, each aligned,coherent[,label]; or " if judges else "")
        + f"names of columns, such as {example}"
        + (" (100-NAME: high is bad there)" if scores else ""),
    )
    if scores:
        group.add_argument(
            "--scale",
            nargs="+",
            action="extend",
            default=[],
            metavar="METRIC=WORST-BEST",
            help="scale of aligned or coherent where it is not 0-100, such as aligned=0-1",
        )
        group.add_argument(
            "--invert",
            nargs="+",
            action="extend",
            default=[],
            choices=METRICS,
            help="metrics of which high is bad there",
        )
    if arms:
        known = ", ".join(ARM_KEYS)
        group.add_argument(
            "--by",
            metavar="COLUMN",
            help=f"column that tells arms apart, or several with commas; `none` pools all rows; looked for: {known}",
        )
        if not any("--runs" in action.option_strings for action in parser._actions):
            group.add_argument("--runs", default="*", metavar="PATTERN", help="only arms that match this pattern")
    group.add_argument(
        "--csv-escape",
        choices=tuple(ESCAPES),
        default="auto",
        help="whether a backslash in CSV escapes the next character; auto: where the file shows it",
    )


def reading_of(args: argparse.Namespace, columns: Sequence[str] | None = None) -> Reading:
    """What the flags say.

    Args:
        columns: words of --columns, where a command takes others too.

    Raises:
        ConfigError: a malformed flag, or a score's name for a command that reads no scores.
    """
    given = vars(args)
    words = given["columns"] if columns is None else columns
    if "scale" not in given:
        metric = next((word for word in words if word.partition("=")[0] in METRICS), None)
        if metric is not None:
            raise ConfigError(f"--columns {metric}: this command reads no scores; leave it out")
    return Reading.of(
        words,
        given.get("scale", ()),
        given.get("invert", ()),
        by=given.get("by"),
        runs=given.get("runs", "*"),
        escape=ESCAPES[args.csv_escape],
    )
