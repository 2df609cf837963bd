"""The flags that describe somebody else's table, and the `Reading` that they mean; every command that reads a table has them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from emis_interp.config.flags import flag, settings
from emis_interp.errors import ConfigError
from emis_interp.files.names import ARM_KEYS, METRICS

if TYPE_CHECKING:
    from emis_interp.files.reading import Reading

GROUP = "a table with other names, scales or arms"
ESCAPES = {"auto": None, "yes": True, "no": False}
_NAMES = "names of columns, such as answer=response "
SCORE_NAMES = f"{_NAMES}aligned=100-evil (100-NAME: high is bad there)"


@settings
class AnswerTableSettings:
    """A table of answers without scores, all of one arm."""

    columns: tuple[str, ...] = flag(f"{_NAMES}question=prompt", default=(), metavar="OURS=THEIRS", group=GROUP)
    csv_escape: Literal["auto", "yes", "no"] = flag(
        "whether a backslash in CSV escapes the next character; auto: where the file shows it",
        default="auto",
        group=GROUP,
    )

    def reading(self, columns: Sequence[str] | None = None) -> "Reading":
        """What the flags say.

        Args:
            columns: words of --columns, where a command takes others too.

        Raises:
            ConfigError: a malformed flag, or a score's name for a command that reads no scores.
        """
        from emis_interp.files.reading import Reading  # it needs numpy and pyarrow, which `--help` does not

        words = self.columns if columns is None else columns
        scored = isinstance(self, ScoreTableSettings)
        if not scored and (metric := next((word for word in words if word.partition("=")[0] in METRICS), None)):
            raise ConfigError(f"--columns {metric}: this command reads no scores; leave it out")
        return Reading.of(
            words,
            self.scale if scored else (),
            self.invert if scored else (),
            by=getattr(self, "by", None),
            runs=getattr(self, "runs", "*"),
            escape=ESCAPES[self.csv_escape],
        )


@settings
class ScoreTableSettings(AnswerTableSettings):
    """A table of judged answers, all of one arm."""

    columns: tuple[str, ...] = flag(SCORE_NAMES, default=(), metavar="OURS=THEIRS", group=GROUP)
    scale: tuple[str, ...] = flag(
        "scale of aligned or coherent where it is not 0-100, such as aligned=0-1",
        default=(),
        metavar="METRIC=WORST-BEST",
        group=GROUP,
    )
    invert: tuple[str, ...] = flag("metrics of which high is bad there", default=(), choices=METRICS, group=GROUP)


@settings
class ArmSettings:
    """Rows of several arms in one table."""

    by: str | None = flag(
        "column that tells arms apart, or several with commas; `none` pools all rows; looked for: "
        + ", ".join(ARM_KEYS),
        default=None,
        metavar="COLUMN",
        group=GROUP,
    )
    runs: str = flag("only arms that match this pattern", default="*", metavar="PATTERN", group=GROUP)
