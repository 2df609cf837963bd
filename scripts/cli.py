"""What every script shares: logging on standard error, one JSON object on standard output, errors in one line, progress."""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from emis_interp import ending, process
from emis_interp.config.flags import add_flags, read_flags
from emis_interp.config.help_text import CommandParser
from emis_interp.ending import end_in_order, say_last
from emis_interp.errors import EmisError, printable
from emis_interp.files.store import PATH_FAULTS, is_disk_full
from emis_interp.files.text import flat_lines
from emis_interp.process import Bars
from emis_interp.terminal import Terminal, fitted, log_to, put, width_of

terminal = Terminal()
"""Standard error, for everything that scripts say while they work."""


def run(
    main: Callable[[argparse.Namespace], dict[str, Any]],
    parser: argparse.ArgumentParser,
    say: Callable[[dict[str, Any]], str],
    *,
    status: Callable[[dict[str, Any]], int] = lambda result: 0,
) -> None:
    """Parse, run, print: `say(result)` as text, or the result as one JSON object with `--json`.

    Exit status: 0 done, or `status(result)`; 2 a mistake that the user can mend; 130 interrupted, 143 ended by SIGTERM, 129 by SIGHUP
    (the same command continues).
    """
    args = parser.parse_args()
    end_in_order(lambda number: say_last(terminal, ending.name_of(number)))
    process.settle_in()
    log_to(terminal, args.verbose)
    try:
        process.check_packages()
        result = main(args)
    except EmisError as error:
        fail(str(error), args)
    except KeyboardInterrupt as end:
        name, code = (end.name, end.status) if isinstance(end, ending.Ended) else ("interrupted", 130)
        say_last(terminal, name)
        sys.exit(code)
    except Exception as error:
        terminal.close()
        if is_disk_full(error):
            fail("the disk is full; free some space and run the same command again, finished work is kept", args)
        if isinstance(error, OSError) and error.errno in PATH_FAULTS and error.filename is not None:
            fail(f"{printable(str(error.filename), 300)}: cannot be used ({error.strerror}); give another path", args)
        raise
    if process.is_main_process():
        put(json.dumps(result) if args.json else fitted(say(result), width_of(sys.stdout)))
    if code := status(result):
        sys.exit(code)


def fail(text: str, args: argparse.Namespace) -> NoReturn:
    """End with status 2 and one line, with `--json` as an object on standard output too."""
    terminal.close()
    if args.json:
        put(json.dumps({"error": text}))
    terminal.say(f"error: {text}")
    sys.exit(2)


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--verbose`, which every script has."""
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")
    parser.add_argument("--verbose", action="store_true", help="show debug messages")


@dataclass(frozen=True)
class Verb:
    """One thing that a command does.

    Attributes:
        settings: the record that its flags fill; the docstring is its help.
        module: has `run(settings, bars) -> dict` and `say(result) -> str`; it is imported when the verb is used. Without `say` the result
            is shown as lines.
        run: instead of the module's, where a script has to bring two packages together.
        status: exit status of a command that is done, from its result.
    """

    settings: type
    module: str
    run: Callable[[Any, Bars], dict[str, Any]] | None = None
    status: Callable[[dict[str, Any]], int] = lambda result: 0

    def do(self, args: argparse.Namespace) -> dict[str, Any]:
        run = self.run or importlib.import_module(self.module).run
        return run(read_flags(args, self.settings), terminal.bar)

    def say(self, result: dict[str, Any]) -> str:
        say = getattr(importlib.import_module(self.module), "say", None)
        return "\n".join(flat_lines(result)) if say is None else say(result)


def parser_of(verb: Verb, description: str | None) -> argparse.ArgumentParser:
    """The parser of a command that does one thing; `description` is the script's docstring."""
    parser = CommandParser(description=description)
    add_flags(parser, verb.settings)
    add_output_flags(parser)
    return parser


def run_verb(verb: Verb, description: str | None) -> None:
    """A command that does one thing."""
    run(verb.do, parser_of(verb, description), verb.say, status=verb.status)


def verb_parser(description: str | None, verbs: Mapping[str, Any]) -> argparse.ArgumentParser:
    """A parser with one verb for each `Verb`."""
    top = CommandParser(description=description)
    subparsers = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in verbs.items():
        text = inspect.cleandoc(str(verb.settings.__doc__))
        # argparse formats helps with %, but not descriptions.
        first_line = text.partition("\n")[0].replace("%", "%%")
        parser = subparsers.add_parser(name, help=first_line, description=text)
        add_flags(parser, verb.settings)
        add_output_flags(parser)
    return top


def run_verbs(description: str | None, verbs: Mapping[str, Verb], default: str | None = None) -> None:
    """A command with verbs; `default` is the one that is meant when the first word is a flag."""
    words = sys.argv[1:]
    if default is not None and (not words or (words[0].startswith("-") and words[0] not in ("-h", "--help"))):
        sys.argv.insert(1, default)
    parser = verb_parser(description, verbs)
    chosen = verbs[parser.parse_args().verb]
    run(chosen.do, parser, chosen.say, status=chosen.status)
