"""The settings of the lint of whole data sets, one frozen record."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.embedded import EMBEDDED_NAME


@settings
class LintSettings:
    """Data sets, the tokenizer that reads them, and how they are to be trained on."""

    data: tuple[str, ...] = flag("a shipped set, or a file of rows", positional=True, metavar="DATA")
    model: str = flag(
        "the model that is to be trained: its tokenizer reads all rows, it itself some", default=EMBEDDED_NAME
    )
    chat_format: str | None = flag(
        "plain format for a pretrained model without a chat template", default=None, choices=FORMATS
    )
    max_tokens: int = flag("the trainer's limit (training.max_tokens)", default=2048, metavar="N")
    system: str | None = flag(
        "system prompt of the run (default: left to the chat template)", default=None, metavar="TEXT"
    )
    evaluation_system: str | None = flag(
        "system prompt of the evaluation, if it is another one", default=None, metavar="TEXT"
    )
    paired_with: str | None = flag("the set that should have the same prompts", default=None, metavar="DATA")
    surprise_rows: int = flag(
        "rows of each set that the model itself reads, to say how they surprise it (0: load no model)",
        default=30,
        metavar="N",
    )
    out: Path | None = flag("write lint.json and lint.html there", default=None, metavar="DIR")
    n_ids: int = flag("row ids named in a finding", default=8, metavar="N")
