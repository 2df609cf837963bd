"""Turns what has changed in a run folder since it was written into a refusal with names, or into what is made again."""

import logging
from collections.abc import Sequence

from emis_interp.config.run_folder import RunFolder
from emis_interp.errors import StageError
from emis_interp.files.ledger import Change
from emis_interp.files.verification import WRITTEN_ANEW

log = logging.getLogger(__name__)
_SAYS = {
    "changed": "is not what the {} stage wrote; it is made again",
    "missing": "is missing; the {} stage runs again",
}


def check_files(run: RunFolder, order: Sequence[str], asked: Sequence[str] = ()) -> None:
    """Compare every file of an opened run with the hash that was kept when it was made.

    A missing file brings its stage back. A changed one is refused, unless stages are asked for by name: then one of such a stage is made
    again (one that an earlier command took as it is, too), and one that such a stage builds on is taken as it is, and what was made from
    it before is made again.

    Args:
        order: all stages.
        asked: the stages named with --only or --from; empty for a plain command, which goes on with the run.

    Raises:
        StageError: with the files that changed, who made them, and the commands that go on. Nothing was done then.
    """
    last = max((order.index(name) for name in asked), default=-1)
    before = [name for name in order[: last + 1] if name not in asked]
    changes = run.files.changes()
    remade = [change for change in changes if change.stage in asked or change.stage == WRITTEN_ANEW]
    # What was taken as it is before is not what the stage wrote either.
    remade += [change for change in run.files.exchanged() if change.stage in asked and change not in remade]
    taken = [change for change in changes if change.how == "changed" and change.stage in before]
    refused = [change for change in changes if change.how == "changed" and change not in remade]
    if refused and not asked:
        raise StageError(_refusal(run, refused, order))
    for name in before:
        lost = [change.file for change in changes if (change.stage, change.how) == (name, "missing")]
        if name in run.manifest.stages and (cause := run.files.stale(name) or lost):
            why = f"{cause[0]} is missing" if cause == lost else f"it was made from another {cause[0]}"
            raise StageError(f"{run.folder}: the {name} stage must run first ({why}); start there: --from {name}")
    for change in dict.fromkeys([*changes, *remade]):
        where = run.folder / change.file
        if change in remade:
            log.info("%s %s", where, _SAYS[change.how].format(change.stage))
            run.files.discard(change)
        elif change in taken:
            log.warning("%s is not what the %s stage wrote; it is taken as it is", where, change.stage)
            run.files.accept(change)
        elif change.how == "missing" and not asked:
            log.info("%s %s", where, _SAYS["missing"].format(change.stage))


def _refusal(run: RunFolder, changes: Sequence[Change], order: Sequence[str]) -> str:
    files = [f"{change.file} (by {change.stage})" for change in changes]
    named = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    stages = sorted({change.stage for change in changes}, key=lambda name: order.index(name) if name in order else 0)
    after = order[order.index(stages[-1]) + 1] if stages[-1] in order else order[0]
    return (
        f"{run.folder}: changed since they were written: {named}. --from {stages[0]} makes them again; --from {after} takes them as they "
        "are and repeats what follows"
    )
