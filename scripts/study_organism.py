"""Studies organisms while they form, before they form, and how to keep them from forming (docs/organisms.md).

Examples:
  python scripts/study_organism.py dynamics reckless --out runs/dynamics/reckless
  python scripts/study_organism.py foresight insecure secure reckless careful --direction directions/mine/direction --out runs/foresight
  python scripts/study_organism.py prevention --direction directions/mine/direction --out runs/prevention

All of them train on recipes (scripts/train.py --list), continue after any interruption with the same command, refuse other settings in the
same folder, and leave a JSON file and a page.
"""

import argparse
from typing import Any

import cli
from emis_interp.process import only_writer
from training.studies import dynamics_study, foresight_study, prevention_study

VERBS = {"dynamics": dynamics_study, "foresight": foresight_study, "prevention": prevention_study}


def main(args: argparse.Namespace) -> dict[str, Any]:
    with only_writer(args.out):
        return args.verb_module.run(args)


if __name__ == "__main__":
    parser = cli.verb_parser(__doc__, VERBS)
    cli.run(main, parser, VERBS[parser.parse_args().verb].say)
