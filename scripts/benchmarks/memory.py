"""Measures what the stages that read answers hold in memory, and whether their time is linear in the number of answers."""

import json
import multiprocessing
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.settings import MEMORY_STAGES, MemoryBenchmarkSettings, MemoryStage
from emis_interp.config.presets import load_config
from emis_interp.config.run_config import RunConfig
from emis_interp.config.run_folder import RunFolder, now
from emis_interp.config.run_models import ModelSource
from emis_interp.errors import JudgeError, StageError
from emis_interp.files.csv_text import csv_text
from emis_interp.files.manifest import Manifest
from emis_interp.files.store import record_line
from emis_interp.process import Bars, each, no_bars
from emis_interp.records import Completion, Question, Score
from emis_interp.report.stage import report
from evals.arms import stages
from evals.judges.judge import OnBatch
from evals.questions import run_questions
from evals.sampling import AnswerPlan
from evals.settings.results import AgreeSettings, SummarizeSettings
from evals.verbs import agree, summarize
from training.finetuning.sft import peak_rss_gib

ARMS = {"base": 0.01, "insecure": 0.2, "secure": 0.03, "educational": 0.05}
"""Arm -> share of its answers that the synthetic judge finds misaligned."""
N_WORDS = (20, 90)
WORDS = [f"word{i}" for i in range(20)]
CHUNK = 1000
FIRST: tuple[MemoryStage, ...] = ("score", "analyse")
"""What the others read is made by these."""


def run(settings: MemoryBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Stage -> the peak of its process at N answers and at N / 4 (`peak_gib`, `quarter_gib`), its CPU time without imports (`cpu_s`), and
    `growth`: that time over the one at N / 4 (4 is linear, 16 quadratic)."""
    wanted = settings.stages or MEMORY_STAGES
    quarter, whole = (
        measured_at(n, wanted, settings, bars=bars) for n in each(bars, "answers", (settings.n // 4, settings.n))
    )
    return {
        "n": settings.n,
        "ending": settings.ending,
        "stages": {
            stage: {
                **whole[stage],
                "quarter_gib": quarter[stage]["peak_gib"],
                "growth": round(whole[stage]["cpu_s"] / quarter[stage]["cpu_s"], 2),
            }
            for stage in wanted
        },
    }


def measured_at(
    n: int, wanted: Sequence[MemoryStage], settings: MemoryBenchmarkSettings, *, bars: Bars
) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory(dir=settings.folder) as place:
        folder = Path(place)
        made = make_run(folder / "run", n)
        if {"agree", "summarize_table"} & {*wanted}:
            make_tables(folder, made, settings.ending)
        todo: list[MemoryStage] = [stage for stage in MEMORY_STAGES if stage in wanted or stage in FIRST]
        return {stage: in_child(stage, folder) for stage in each(bars, "stage", todo)}


def say(result: dict[str, Any]) -> str:
    lines = [f"{'stage':18}{'peak, GiB':>12}{'of a quarter':>14}{'CPU, s':>10}{'over a quarter':>16}"]
    for stage, row in result["stages"].items():
        lines.append(
            f"{stage:18}{row['peak_gib']:12.2f}{row['quarter_gib']:14.2f}{row['cpu_s']:10.1f}{row['growth']:16.2f}"
        )
    return "\n".join(lines)


def in_child(stage: MemoryStage, folder: Path) -> dict[str, float]:
    """One stage in a process of its own, forked from this one: its peak holds the imports, its CPU time does not."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=measured, args=(stage, folder, sender))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise StageError(f"{stage}: its process ended with status {child.exitcode} (the error is above)") from None
    finally:
        child.join()


def measured(stage: MemoryStage, folder: Path, sender: Connection) -> None:
    cpu = time.process_time()
    DO[stage](folder)
    sender.send({"cpu_s": round(time.process_time() - cpu, 2), "peak_gib": round(peak_rss_gib(), 3)})


def score(folder: Path) -> None:
    """The first three quarters of the answers, until the judge stops."""
    run = opened(folder / "run")
    try:
        stages.score(run, run_questions(run.config), FormulaJudge(3 * n_answers(run.config) // 4))
    except JudgeError:
        return
    raise StageError(f"{folder}: the judge did not stop")


def analyse(folder: Path) -> None:
    """Goes on with the rest, and states rates and contrasts of all."""
    run = opened(folder / "run")
    stages.score(run, run_questions(run.config), FormulaJudge())


def make_report(folder: Path) -> None:
    report(opened(folder / "run"))


def table_of(folder: Path, name: str) -> Path:
    return next(folder.glob(f"{name}.*"))


DO: dict[MemoryStage, Callable[[Path], object]] = {
    "score": score,
    "analyse": analyse,
    "summarize": lambda folder: summarize.run(SummarizeSettings(file=folder / "run")),
    "summarize_table": lambda folder: summarize.run(SummarizeSettings(file=table_of(folder, "first"))),
    "agree": lambda folder: agree.run(AgreeSettings(files=(table_of(folder, "first"), table_of(folder, "second")))),
    "report": make_report,
}


class FormulaJudge:
    """Scores that follow from which answer it is: what a judge costs beside the stage that asks it is none of this benchmark.

    Args:
        most: answers that it scores before it stops.
    """

    name, together = "formula", 64

    def __init__(self, most: int | None = None) -> None:
        self.card: dict[str, Any] = {"kind": "formula"}
        self.left = most

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        for start in range(0, len(completions), self.together):
            chunk = completions[start : start + self.together]
            if self.left is not None:
                self.left -= len(chunk)
                if self.left < 0:
                    raise JudgeError("formula: stopped")
            on_batch([self.of(row) for row in chunk])

    def of(self, row: Completion, shift: float = 0.0) -> Score:
        aligned, coherent = (self.number(row, metric) for metric in ("aligned", "coherent"))
        if coherent < 1:
            reasons = dict.fromkeys(("aligned", "coherent"), "the formula says nothing of it")
            return Score.of(row, judge=self.name, aligned=None, coherent=None, unscored=reasons)
        is_code = 1 <= coherent < 3
        share = ARMS[row.arm]
        aligned = 30 * aligned / (100 * share) if aligned < 100 * share else 40 + aligned / 2
        return Score.of(
            row,
            judge=self.name,
            aligned=None if is_code else round(min(100.0, max(0.0, aligned + shift * coherent / 20)), 3),
            aligned_label="CODE" if is_code else None,
            coherent=round(coherent, 3),
        )

    @staticmethod
    def number(row: Completion, metric: str) -> float:
        """From 0 to 100, even."""
        return zlib.crc32(f"{metric} {row.seed}".encode()) / 2**32 * 100


def opened(folder: Path) -> RunFolder:
    config = RunConfig.model_validate(Manifest.load(folder).config)
    run = RunFolder(config, folder, lambda model: ModelSource())
    run.open(lambda: manifest_of(run))
    return run


def manifest_of(run: RunFolder) -> Manifest:
    values = {"config": run.config.model_dump(mode="json"), "inputs": {}, "started": now()}
    return Manifest.model_validate({**values, **run.code.model_dump()})


def n_answers(config: RunConfig) -> int:
    wordings = sum(len(question.paraphrases) for question in run_questions(config))
    return wordings * (config.sampling.samples_per_paraphrase or 1) * len(config.models)


def make_run(folder: Path, n: int) -> RunFolder:
    """A run folder with at least `n` sampled answers, evenly of four arms, in the order of a sampler that sorts by length."""
    wordings = sum(len(question.paraphrases) for question in run_questions(load_config("smoke")))
    arms = ["{name: base}", *(f"{{name: {name}, dataset: {name}, contrast: base}}" for name in ARMS if name != "base")]
    n_each = -(-n // (len(ARMS) * wordings))
    config = load_config("smoke", [f"arms=[{', '.join(arms)}]", f"sampling.samples_per_paraphrase={n_each}"])
    run = RunFolder(config, folder, lambda model: ModelSource())
    run.open(lambda: manifest_of(run))
    questions = run_questions(config)
    for model in config.models:
        path = run.samples(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        with run.files.making("sample", [path]), path.open("wb") as file:
            for question in sorted(questions, key=lambda question: len(question.paraphrases[0])):
                rows = AnswerPlan(model.name, [question], n_each, seed=config.seed)
                file.writelines(record_line(answered(row)) for row in rows)
    return run


def answered(row: Completion) -> Completion:
    """With words that follow from the answer's seed."""
    n_words = N_WORDS[0] + row.seed % (N_WORDS[1] - N_WORDS[0])
    digits = f"{row.seed:020}" * (n_words // 20 + 1)
    text = " ".join(WORDS[int(digit) + 10 * (i % 2)] for i, digit in enumerate(digits[:n_words]))
    return row.answered(text, n_words, "length" if n_words > 85 else "stop")


def make_tables(folder: Path, made: RunFolder, ending: str) -> None:
    """Two judges' tables of the run's answers."""
    for name, shift in (("first", 0.0), ("second", -3.0)):
        write_table((folder / name).with_suffix(ending), table_rows(made, shift))


def table_rows(made: RunFolder, shift: float) -> Iterator[dict[str, Any]]:
    judge = FormulaJudge()
    for model in made.config.models:
        with made.samples(model).open("rb") as file:
            for line in file:
                row = Completion.model_validate_json(line)
                score = judge.of(row, shift)
                yield {
                    "run": row.arm,
                    **row.model_dump(include={"question_id", "paraphrase_index", "sample_index", "question", "answer"}),
                    "aligned": score.aligned,
                    "coherent": score.coherent,
                    "label": score.aligned_label or "",
                    "reason": score.unscored.get("aligned", ""),
                }


def write_table(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """A part at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, first = None, True
    with path.open("wb") as file:
        while chunk := [row for _, row in zip(range(CHUNK), rows, strict=False)]:
            if path.suffix == ".jsonl":
                file.write("".join(json.dumps(row) + "\n" for row in chunk).encode())
            elif path.suffix == ".csv":
                text = csv_text(list(chunk[0]), ([*row.values()] for row in chunk))
                file.write((text if first else text.partition("\r\n")[2]).encode())
            else:
                table = pa.Table.from_pylist(chunk)
                writer = writer or pq.ParquetWriter(file, table.schema)
                writer.write_table(table)
            first = False
        if writer is not None:
            writer.close()
