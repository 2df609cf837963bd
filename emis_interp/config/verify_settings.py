"""The settings of what looks whether a run folder is still what its stages made, one frozen record."""

from pathlib import Path

from emis_interp.config.flags import flag, settings


@settings
class VerifyRunSettings:
    """Hashes every file of a run anew and sets it against the manifest; with --again, makes stages again elsewhere and compares."""

    run_dir: Path = flag("folder of a run, finished or not", positional=True)
    again: tuple[str, ...] = flag(
        "make these stages again, into a temporary folder, from what is there, and compare figure by figure",
        default=(),
        metavar="STAGE",
    )
    sources: bool = flag(
        "also read the data sets, questions and model that the run began with, and compare their hashes", default=False
    )
