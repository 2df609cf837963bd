"""Imports what a run of the pipeline imports while it works, in the process that others are forked from (`killing.Warm`)."""

import importlib

import run_pipeline as run_pipeline

WORK = (
    *("emis_interp.config.run_changes", "emis_interp.config.run_folder", "emis_interp.config.run_inputs"),
    *("emis_interp.config.run_work", "emis_interp.report.stage", "evals.arms.stages", "evals.judges.making"),
    *("evals.judges.api_judge", "probes.stages.capture", "probes.stages.choices", "probes.stages.direction"),
    *("probes.stages.intervene", "probes.stages.likelihood", "probes.stages.probe", "training.learned"),
    *("training.finetuning.sft", "training.lint.copies", "training.stages", "transformers.models.llama.modeling_llama"),
)
for name in WORK:
    importlib.import_module(name)
