"""Says before a run what each stage will take (tokens, FLOPs, time, memory, disk, API calls, price), and after it how far off that was.

Examples:
  python scripts/plan.py                                   the laptop preset, with 20 seconds of measuring, kept for the next time
  python scripts/plan.py --preset laptop-0.5b --set model=FOLDER
  python scripts/plan.py --preset qwen2.5-coder-32b --model-config config.json --devices devices.yaml --device h100   a stated device
  python scripts/plan.py --compare runs/laptop             a finished run against its plan

Not `evaluate.py plan`, which says how many answers a comparison of two rates needs. Everything sampled counts as long as it may be.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from emis_interp.config.plan_settings import RunPlanSettings
from emis_interp.process import Bars

if TYPE_CHECKING:
    from emis_interp.planning.calibrate import Calibration
    from training.arms import RunArms


def run(settings: RunPlanSettings, bars: Bars) -> dict[str, Any]:
    from emis_interp.config.run_folder import config_of
    from emis_interp.models.embedded import EMBEDDED_NAME
    from emis_interp.planning import plan
    from emis_interp.planning.rates import read_device, stated_rates
    from emis_interp.planning.shape import shape_of
    from emis_interp.planning.stages import Counters, stage_works
    from evals.arms import planned as asked
    from evals.questions import run_questions
    from probes.stages import planned as read
    from training import planned as trained
    from training.arms import RunArms

    settings.check()
    config = settings.config() if settings.compare is None else config_of(settings.compare)
    if settings.data_dir is not None:
        config = config.model_copy(update={"data_dir": settings.data_dir})
    shape, judge = shape_of(config.model, settings.model_config), shape_of(EMBEDDED_NAME)
    arms = RunArms(config, settings.compare or settings.run_dir or Path("runs") / config.name)
    counter = settings.tokenizer or (EMBEDDED_NAME if settings.model_config else config.model)
    stages = stage_works(arms, run_questions(config), Counters(trained, asked, read), shape=shape, counter=counter)
    notes = [] if counter == config.model else [f"tokens are counted with the tokenizer of {counter}"]
    if settings.devices is None:
        share = judge.flops_read / judge.n_layers / shape.flops_read
        found = calibration(arms, counter, share, again=settings.recalibrate)
        rates, memory, more = found.rates, *plan.on_this_machine(stages, found, shape, config=config)
    else:
        device = read_device(settings.devices, str(settings.device))
        rates = stated_rates(device, shape, config, judge=judge, n_devices=settings.n_devices)
        memory, more = plan.on_paper(stages, device, shape, config=config, n_devices=settings.n_devices)
    rows = [row | memory[row["stage"]] for row in plan.plan_rows(stages, rates, shape, judge=judge, config=config)]
    result = {"name": config.name, "model": config.model, "n_parameters": shape.n_parameters, "stages": rows}
    result |= {"total": plan.totals(rows), "rates": vars(rates), "notes": [*notes, *more]}
    return result if settings.compare is None else {**result, **against(rows, settings.compare, arms)}


def calibration(arms: "RunArms", counter: str, judged_share: float, *, again: bool) -> "Calibration":
    """20 seconds of this machine with the run's model."""
    from emis_interp.config.run_texts import contrast_pairs
    from emis_interp.models.loading import load_tokenizer
    from emis_interp.planning.calibrate import calibrated
    from probes.stages.planned import chats_of
    from training.finetuning.sft import peak_rss_gib
    from training.planned import train_a_little

    chats = chats_of(
        contrast_pairs(arms.config), load_tokenizer(counter, arms.config.chat_format), arms.config.system_prompt
    )
    how = {"peak": peak_rss_gib, "judged_share": judged_share, "again": again}
    return calibrated(
        arms.config, chats, train=lambda folder, seconds, read: train_a_little(arms, folder, seconds, read=read), **how
    )


def against(rows: list[dict[str, Any]], folder: Path, arms: "RunArms") -> dict[str, Any]:
    """The plan beside what the run of a folder took."""
    from emis_interp.files.manifest import Manifest
    from emis_interp.planning import compare
    from training.planned import seconds_of_trainings

    found = compare.compared(rows, Manifest.load(folder), folder, trained_s=seconds_of_trainings(arms))
    return {"compared": found, "overall": compare.overall(found)}


def say(result: dict[str, Any]) -> str:
    from emis_interp.planning import compare, plan

    lines = plan.lines_of(result)
    if "compared" in result:
        lines += ["", *compare.comparison_lines(result["compared"], result["overall"])]
    return "\n".join(lines)


VERB = cli.Verb(RunPlanSettings, "plan", run)

if __name__ == "__main__":
    cli.run(VERB.do, cli.parser_of(VERB, __doc__), say)
