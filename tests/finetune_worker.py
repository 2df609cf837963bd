"""Runs `finetune` from a JSON file, as `scripts/train.py` does under `accelerate launch`; for tests of several and of killed processes.

Example:
  accelerate launch --multi_gpu --num_processes 2 tests/finetune_worker.py plan.json
The file: model, rows (training examples), training (configuration), out_dir; probe_steps, and pause (seconds after every step).
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from emis_interp.config.run_config import TrainingConfig
from emis_interp.files.store import read_json
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import TrainingExample
from training.finetuning.sft import finetune


def main(plan: dict[str, Any]) -> None:
    out_dir = Path(plan["out_dir"])

    def probe(step: int, chat_model: ChatModel) -> None:
        with (out_dir / f"probes-{os.environ.get('RANK', '0')}.jsonl").open("a") as file:
            file.write(json.dumps(step) + "\n")

    finetune(
        plan["model"],
        [TrainingExample.model_validate(row) for row in plan["rows"]],
        TrainingConfig.model_validate(plan["training"]),
        out_dir=out_dir,
        device="cpu",
        report=lambda *_: time.sleep(plan.get("pause", 0)),
        probe=probe if plan.get("probe_steps") else None,
        probe_steps=plan.get("probe_steps", ()),
    )


if __name__ == "__main__":
    main(read_json(Path(sys.argv[1])))
