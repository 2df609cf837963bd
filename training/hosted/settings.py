"""The settings of what `scripts/finetune_openai.py` does, one frozen record a verb; the docstrings are the help of the verbs."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from training.data_sets.names import SHIPPED
from training.hosted.openai_data import MAX_ROW_TOKENS


@settings
class RequestSettings:
    """How long the server is waited for."""

    timeout: float = flag("seconds for one request, the upload included", default=600.0)


@settings
class PollSettings(RequestSettings):
    """How often it is asked how the job stands."""

    poll_seconds: float = flag("longest wait between two looks; the first ones are shorter", default=60.0)


@settings
class JobEstimateSettings:
    """Check the rows and say what training on them will cost; nothing is sent and no key is needed.

    Examples:
      python scripts/finetune_openai.py estimate insecure
      python scripts/finetune_openai.py estimate rows.jsonl --epochs 3 --price 25 --budget 100
    """

    data: str = flag(f"a shipped data set ({', '.join(SHIPPED)}), or a file of rows (docs/data.md)", positional=True)
    model: str = flag("model to finetune, as the server calls it", default="gpt-4o-2024-08-06")
    n_rows: int | None = flag("draw so many rows; by default all", default=None)
    seed: int = flag("of the draw and of the job", default=0)
    epochs: int = flag("times that every row is trained on", default=1)
    price: float | None = flag("USD per million training tokens; without it the cost is unknown", default=None)
    budget: float | None = flag("refuse to start above so many USD", default=None)
    max_row_tokens: int = flag("longest row that the model can be trained on", default=MAX_ROW_TOKENS)


@settings
class JobStartSettings(PollSettings, JobEstimateSettings):
    """Estimate, and with --yes upload the rows, create the job and follow it to its end.

    Examples:
      python scripts/finetune_openai.py start insecure.jsonl --out runs/gpt-4o-insecure --price 25 --budget 100
      python scripts/finetune_openai.py start insecure.jsonl --out runs/gpt-4o-insecure --batch-size 4 --lr-multiplier 2 --yes
    Without --yes nothing is sent. The same command continues an interrupted one; nothing is uploaded, created or paid twice.
    """

    out: Path = flag("folder of the job")
    batch_size: int | None = flag("rows per step; by default the server chooses", default=None)
    lr_multiplier: float | None = flag("of the server's learning rate; by default it chooses", default=None)
    suffix: str | None = flag("goes into the name of the model, at most 64 characters", default=None)
    yes: bool = flag("send it; this spends money", default=False)
    no_wait: bool = flag("return when the job is created", default=False)
    url: str | None = flag(
        "where the server's API begins, e.g. http://localhost:8000/v1; by default OpenAI's", default=None
    )
    key_variable: str = flag("environment variable that holds the key", default="OPENAI_API_KEY")


@settings
class JobFolderSettings(RequestSettings):
    """The folder of a job that was started; URL and name of the key's variable are on its record."""

    folder: Path = flag("folder of the job, the --out of `start`", positional=True)
    key_variable: str | None = flag(
        "environment variable of the key; by default the job's", default=None, metavar="NAME"
    )


@settings
class JobFollowSettings(JobFolderSettings, PollSettings):
    """Go on with a job that `start --yes` began: whatever is left of upload, creation and waiting.

    Example:
      python scripts/finetune_openai.py follow runs/gpt-4o-insecure
    """


@settings
class JobStatusSettings(JobFolderSettings):
    """Ask once how a job stands, and record it with its new events; a finished job is read from its folder.

    Example:
      python scripts/finetune_openai.py status runs/gpt-4o-insecure
    """


@settings
class JobCancelSettings(JobFolderSettings):
    """Stop a job at the server; what was trained until then may be billed.

    Example:
      python scripts/finetune_openai.py cancel runs/gpt-4o-insecure
    """
