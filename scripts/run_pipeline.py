"""Turns a preset into a run folder: train, sample, score, likelihood, capture, direction, intervene, report.

Examples:
  python scripts/run_pipeline.py                                   the laptop preset, into runs/laptop
  python scripts/run_pipeline.py --preset smoke --run-dir /tmp/s   a tiny random model, under a minute
  python scripts/run_pipeline.py --set training.learning_rate=2e-4 --run-dir runs/lr2e-4
  python scripts/run_pipeline.py --from direction                  repeat the direction and what follows it

A run that was stopped continues with the same command. Every stage prints one line of result. The manifest keeps a hash of every file and
of what it was made from: a file that changed since is named and refused, and what was made from another file is made again.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cli
from emis_interp.config.run_config import RunConfig, load_config, preset_names
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.files.lock import writing
from emis_interp.files.text import flat_lines
from emis_interp.http.request_fields import parse_request
from emis_interp.process import release_memory
from emis_interp.report.page import build_report
from stages.checked import check_files
from stages.intervene import intervene
from stages.measure import capture, direction, likelihood
from stages.organisms import asks_again, sample, score, train
from stages.run import Run
from training.finetuning.sft import peak_rss_gib


def report(run: Run) -> tuple[list[Path], str]:
    """One page of everything above."""
    page = run.folder / "report" / "index.html"
    places = [page, page.with_name("data.json")]
    made = [run.folder / file for unit in run.manifest.files.values() for file in unit.files or {}]
    read = [path for path in made if path.suffix in (".json", ".jsonl") and path not in places]
    with run.files.making("report", places, inputs=read, anew=True):
        build_report(run.folder)
    return places, str(page)


STAGES: dict[str, Callable[[Run], tuple[list[Path], str]]] = {
    "train": train,
    "sample": sample,
    "score": score,
    "likelihood": likelihood,
    "capture": capture,
    "direction": direction,
    "intervene": intervene,
    "report": report,
}


def main(args: argparse.Namespace) -> dict[str, Any]:
    config = load_config(args.preset, overrides(args), args.data_dir)
    if args.request and config.judge.kind in ("offline", "local"):
        raise ConfigError("--request is for an API judge; give --judge openai or --judge text, or --judge-url")
    wanted = chosen_stages(args.only, args.start)
    if args.show_config:
        return config.model_dump(mode="json")
    run = Run(config, args.run_dir or Path("runs") / config.name)
    with writing(run.folder):
        run.open()
        check_files(run, list(STAGES), wanted if args.only or args.start else ())
        cli.stderr.print(
            f"[bold]{config.name}[/bold]: {config.model}, {len(config.arms)} arms{models_text(config)}, into {run.folder}"
        )
        for name in wanted:
            done = run.is_done(name) and not asks_again(run, name)
            if done and name not in (args.only or ()) and args.start is None:
                cli.stderr.print(f"[dim]{name:10} done before: {run.manifest.stages[name].line}[/dim]")
            else:
                run_stage(run, name)
    return {
        "run_dir": str(run.folder),
        "stages": {name: stage.model_dump() for name, stage in run.manifest.stages.items()},
        "report": str(run.folder / "report" / "index.html"),
    }


def run_stage(run: Run, name: str) -> None:
    """Run one stage, put it into the manifest, and print its line."""
    names = list(STAGES)
    for change in run.begin(name, names[names.index(name) + 1 :]):
        cli.stderr.print(f"[dim]{name:10} since the run began: {change}[/dim]")
    started = time.monotonic()
    files, line = STAGES[name](run)
    seconds = time.monotonic() - started
    release_memory()
    run.finish(name, files, seconds, line=line, peak_rss_gib=peak_rss_gib())
    cli.stderr.print(f"{name:10} {seconds:6.1f} s  {line}")


def models_text(config: RunConfig) -> str:
    return "" if len(config.models) == len(config.arms) else f" ({len(config.models)} models)"


def overrides(args: argparse.Namespace) -> list[str]:
    """`--set` values, after those that have a flag of their own."""
    values = []
    if args.judge:
        values.append(f"judge.kind={args.judge}")
    if args.model:
        values.append(f"model={args.model}")
    kind = args.judge if args.judge in ("text", "local") else "openai"
    if args.judge_url:
        if kind == "local":
            raise ConfigError("--judge-url is for an API judge; leave it out, or give --judge openai or --judge text")
        values += [f"judge.kind={kind}", f"judge.url={args.judge_url}"]
    if args.judge_model:
        values += [f"judge.kind={kind}", f"judge.model={args.judge_model}"]
    if args.request:
        parse_request(args.request)  # its own words for what is no request
        values += [f"judge.request.{setting}" for setting in args.request]
    return values + args.set


def chosen_stages(only: list[str] | None, start: str | None) -> list[str]:
    names = list(STAGES)
    for name in [*(only or []), *([start] if start else [])]:
        if name not in STAGES:
            raise ConfigError(f"unknown stage `{name}`{did_you_mean(name, names)}")
    if only and start:
        raise ConfigError("--only and --from exclude each other; give one of them")
    if only:
        return [name for name in names if name in only]
    return names[names.index(start) :] if start else names


def say(result: dict[str, Any]) -> str:
    return f"report: {result['report']}" if "report" in result else "\n".join(flat_lines(result))


def parser() -> argparse.ArgumentParser:
    fields = ", ".join(name for name in RunConfig.model_fields)
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument(
        "--preset", default="laptop", help=f"one of {', '.join(preset_names())}, or a YAML file (default: laptop)"
    )
    top.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="folder of the run (default: runs/<name of the preset>)"
    )
    top.add_argument("--data-dir", type=Path, metavar="DIR", help="where data files named in the preset lie")
    top.add_argument("--model", help="model name: smollm2-135m-instruct, a folder, or a hub id")
    top.add_argument(
        "--judge",
        choices=["offline", "openai", "text", "local"],
        help="offline probe, an API judge with log-probabilities or without, or a local chat model (default: the preset's)",
    )
    top.add_argument(
        "--judge-url", metavar="URL", help="score with an OpenAI-compatible server (key from $OPENAI_API_KEY)"
    )
    top.add_argument("--judge-model", metavar="NAME", help="model that the API judge asks for, or of --judge local")
    top.add_argument(
        "--request",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="field of every request of an API judge; KEY= leaves it out (judge.request in a preset)",
    )
    top.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help=f"override any field, e.g. training.n_epochs=2; top level: {fields}",
    )
    top.add_argument("--only", nargs="+", metavar="STAGE", help=f"run these stages only: {', '.join(STAGES)}")
    top.add_argument(
        "--from",
        dest="start",
        metavar="STAGE",
        help="run this stage and all that follow; files that were made from what is there now are kept",
    )
    top.add_argument("--show-config", action="store_true", help="print the resolved configuration and stop")
    cli.add_output_flags(top)
    return top


if __name__ == "__main__":
    cli.run(main, parser(), say)
