"""Imports what commands import while they work, in the process that others are forked from (`forked`).

Scripts themselves are not imported: `cli` looks at the streams of the process when it is.
"""

import importlib

WORK = (
    *("emis_interp.config.run_changes", "emis_interp.config.run_folder", "emis_interp.config.run_inputs"),
    *("emis_interp.report.stage", "evals.arms.planned", "evals.arms.stages", "evals.judges.api_judge"),
    *("evals.judges.making", "evals.judges.offline_judge", "probes.stages.capture", "probes.stages.choices"),
    *("probes.stages.direction", "probes.stages.intervene", "probes.stages.likelihood", "probes.stages.probe"),
    *("training.finetuning.sft", "training.learned", "training.lint.copies", "training.stages"),
    "transformers.models.llama.modeling_llama",
)
for name in WORK:
    try:
        importlib.import_module(name)
    except ImportError as error:  # which the server of forks would pass over, and all that stands behind it
        raise RuntimeError(f"tests/warm_imports.py: {name}: {error}") from error
