"""Imports what commands import while they work, in the process that others are forked from (`forked`).

Scripts themselves are not imported: `cli` looks at the streams of the process when it is.
"""

import importlib

WORK = (
    *("emis_interp.config.run_changes", "emis_interp.config.run_folder", "emis_interp.config.run_inputs"),
    *("emis_interp.config.run_work", "emis_interp.report.stage", "evals.arms.stages", "evals.judges.making"),
    *("evals.judges.api_judge", "probes.stages.capture", "probes.stages.choices", "probes.stages.direction"),
    *("probes.stages.intervene", "probes.stages.likelihood", "probes.stages.probe", "training.learned"),
    *("training.finetuning.sft", "training.lint.copies", "training.stages", "transformers.models.llama.modeling_llama"),
)
for name in WORK:
    importlib.import_module(name)
