"""Turns the folder of a training's checkpoints into the one to go on from, with every file known and every pickle read as data alone.

transformers keeps the optimiser, its schedule and the states of the random generators with `torch.save`: pickles, which can name any
function to be called while they are read. Three things stand before that. A checkpoint is sealed with the hashes of its files. One
without a seal, with another file or with one more is passed over. Its pickles are then read here, by torch's restricted unpickler, which
makes tensors, numbers and NumPy arrays and calls nothing else. transformers reads them the same way afterwards.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_pt_utils import safe_globals

from emis_interp.errors import DataError, StageError
from emis_interp.files.hashes import first_difference, hashes
from emis_interp.files.ledger import remove
from emis_interp.files.store import read_object, write_json
from emis_interp.files.strict_json import read_json_object
from emis_interp.models.weight_files import PICKLED
from training.finetuning.weights import TRAINING_ARGUMENTS

log = logging.getLogger(__name__)

SEAL = "sealed.json"
KEPT = 2
"""Checkpoints that stay; the one before the newest is for when that one is damaged."""
STATE = ("optimizer.pt", "scheduler.pt", "scaler.pt")
STATE_OF_PROCESS = "rng_state"
"""How the files of the random generators begin: one file, or one for each process."""


class Sealer(TrainerCallback):
    """Writes beside every checkpoint's files their hashes, and removes checkpoints that are no longer needed.

    The trainer's own rotation goes by the time of files, so that after a clock was set back it would remove the newest.
    """

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        processes = PartialState()
        processes.wait_for_everyone()  # every process writes a part
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if processes.is_main_process and folder.is_dir():
            (folder / TRAINING_ARGUMENTS).unlink(missing_ok=True)  # nobody reads this pickle
            write_json(folder / SEAL, hashes(folder, contents(folder)))
            for old in by_step(folder.parent)[KEPT:]:
                remove(old)


def last_checkpoint(folder: Path, *, sharded: bool = False) -> Path | None:
    """The newest checkpoint that is whole, as it was sealed and safe to read; None where there is none.

    Args:
        sharded: under FSDP or DeepSpeed, whose own readers unpickle what they wrote: the hashes are checked, the content is not.

    Raises:
        StageError: a checkpoint that is as it was sealed holds a pickle of something else than tensors and numbers. Nothing of it was run.
    """
    for path in by_step(folder):
        try:
            read_json_object(path / "trainer_state.json", loose=True)
        except DataError:
            log.warning("ignoring unfinished checkpoint %s", path)
            continue
        if damage := broken_seal(path):
            log.warning("ignoring damaged checkpoint %s (%s)", path, damage)
            continue
        if not sharded:
            check_pickles(path)
        return path
    return None


def by_step(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()}
    return sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: -int(steps[path]))


def broken_seal(checkpoint: Path) -> str | None:
    """Which file of a checkpoint is not as it was written, or None."""
    seal = checkpoint / SEAL
    if not seal.exists():
        return f"{SEAL} is missing: the training was killed before it was whole"
    try:
        sealed = read_object(seal)
    except DataError as error:
        return str(error)
    if not all(
        isinstance(sha, str) and (checkpoint / file).resolve().is_relative_to(checkpoint.resolve())
        for file, sha in sealed.items()
    ):
        return f"{SEAL} names files elsewhere"
    if difference := first_difference(checkpoint, sealed):
        return difference
    added = [name for path in contents(checkpoint) if (name := path.relative_to(checkpoint).as_posix()) not in sealed]
    return f"{added[0]} was added" if added else None


def contents(checkpoint: Path) -> list[Path]:
    """Every file of a checkpoint but its seal, hidden ones too: FSDP keeps one that is read."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / SEAL)


def check_pickles(checkpoint: Path) -> None:
    """Read every pickle of a checkpoint with torch's restricted unpickler (the tensors' bytes stay on the disk).

    Raises:
        StageError: weights as a pickle, a pickle of an unknown name, or one that holds something else than tensors, numbers and arrays.
    """
    for path in contents(checkpoint):
        if path.suffix not in PICKLED:
            continue
        if path.name not in STATE and not path.name.startswith(STATE_OF_PROCESS):
            raise StageError(
                f"{path}: is a pickle that no training of this project leaves; {_ADVICE.format(checkpoint)}"
            )
        try:
            with safe_globals():
                torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)  # noqa: TID251
        except Exception as error:  # torch raises UnpicklingError, RuntimeError and others for what it does not read
            raise StageError(
                f"{path}: holds something else than tensors and numbers{_named(path)}; it was not read. {_ADVICE.format(checkpoint)}"
            ) from error


_ADVICE = "Somebody may have put it there: delete {} to go on from the checkpoint before it, and ask who can write to this folder"


def _named(path: Path) -> str:
    """What a pickle would have called, as far as its text says so."""
    try:
        with safe_globals():
            found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # no file of torch.save's form; there is nothing more to say than that
        return ""
    return f" (it names {', '.join(found[:3])})" if found else ""
