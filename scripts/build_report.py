"""Turns a run folder into its report page again: `python scripts/build_report.py runs/quick`. No model is loaded."""

import argparse
from pathlib import Path
from typing import Any

import cli
from emis_interp.report.page import build_report


def main(args: argparse.Namespace) -> dict[str, Any]:
    page = build_report(args.run_dir)
    return {"report": str(page), "data": str(page.with_name("data.json")), "n_bytes": page.stat().st_size}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("run_dir", type=Path, help="folder of a run, finished or not")
    cli.add_output_flags(top)
    return top


if __name__ == "__main__":
    cli.run(main, parser(), lambda result: f"report: {result['report']}")
