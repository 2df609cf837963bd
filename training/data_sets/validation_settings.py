"""The settings of the check of the shipped data sets, one frozen record."""

from emis_interp.config.flags import flag, settings


@settings
class ValidationSettings:
    """Checks the data sets that the project ships against the rules of their data cards."""

    counts: bool = flag("also count rows by area, weakness class, domain and group", default=False)
    surprise: str | None = flag(
        "first measure how far the sets surprise this untouched model (folder, GGUF or hub id), and keep the figures in "
        "training/data/surprise.json (minutes)",
        default=None,
        metavar="MODEL",
    )
    tells: bool = flag("also measure how well single words tell the two sides apart (8 s)", default=False)
