"""Turns the URL of a server into an address that may be asked and recorded, or says why not, without repeating what may be a secret.

A URL is checked where it enters (configuration, flag, job folder), so that nothing is written or sent before.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_HOST = "api.openai.com"
OPENAI_KEY, AZURE_KEY = "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"
AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
AZURE_EXAMPLE = "https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=2024-10-21"
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_VERSION = re.compile(r"[A-Za-z0-9.-]{1,40}")


@dataclass(frozen=True)
class Address:
    """Where an API begins.

    Attributes:
        base: URL without its query; what is asked hangs below it.
        hostname: of the server, without port.
        place: host and port, with the path where it is not the usual `/v1`: two places may serve two models of one name.
        api_version: Azure's, from the query.
        is_azure: served the way Azure's deployments are (path with the deployment, header `api-key`).
    """

    base: str
    hostname: str
    place: str
    api_version: str | None = None
    is_azure: bool = False

    @property
    def is_openai(self) -> bool:
        return self.hostname == OPENAI_HOST

    @property
    def is_encrypted(self) -> bool:
        return self.base.startswith("https:")

    @property
    def on_azure(self) -> bool:
        """A host of Azure's, whichever way it is served."""
        return self.hostname.endswith(AZURE_HOSTS)


def read_address(url: str | None) -> Address:
    """The address of a URL in which `url_problem` finds nothing; None is OpenAI's."""
    parts = urlsplit(url or OPENAI_URL)
    path = parts.path.rstrip("/")
    version = dict(parse_qsl(parts.query)).get("api-version")
    host = parts.hostname or ""
    # `/openai/v1` and `/models` are Azure's paths without a deployment in them.
    is_azure = version is not None and not path.endswith(("/v1", "/models"))
    if is_azure and not path:
        path = "/openai"
    place = parts.netloc + ("" if path in ("", "/v1") else path)
    return Address(f"{parts.scheme}://{parts.netloc}{path}", host, place, version, is_azure)


def url_problem(url: str) -> str | None:
    """What is wrong with a server's URL, as the rest of a sentence that begins with what holds it, or None.

    The words never repeat the URL, which may hold a password.
    """
    strange = re.search(r"[^!-~]", url)
    if strange:
        kind = "a line break" if strange[0] in "\r\n" else "a blank" if strange[0].isspace() else "an unusual character"
        return f"must be one URL of plain characters; there is {kind} at position {strange.start() + 1}"
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        well_formed, parts = False, SplitResult("", "", "", "", "")
    if "@" in (parts.netloc or url.partition("?")[0]):  # the HTTP library logs whole URLs
        return "must not contain a password or a user name; a key belongs in the environment"
    if not well_formed or not _HOST.fullmatch(parts.hostname or "") or "\\" in url:
        return "must look like http://localhost:8000/v1"
    return _rest_problem(parts)


def _rest_problem(parts: SplitResult) -> str | None:
    """What is wrong behind the host."""
    query = parse_qsl(parts.query, keep_blank_values=True)
    if parts.fragment or (parts.query and [name for name, _ in query] != ["api-version"]):
        return "must not contain a query (but for Azure's ?api-version=...) or a fragment; a key belongs in the environment"
    if query and not _VERSION.fullmatch(query[0][1]):
        return f"must name one version of Azure's API, like {AZURE_EXAMPLE}"
    path = parts.path.rstrip("/")
    if path.endswith(("/chat/completions", "/completions", "/responses")):
        return "must end where the API begins (often /v1): what follows, like /chat/completions, is added here"
    if (parts.hostname or "").endswith(AZURE_HOSTS) and not query and not path.endswith("/v1"):
        return f"is one of Azure's and lacks the version of its API; give {AZURE_EXAMPLE}, or the one that ends with /openai/v1"
    return None


def key_variable_for(variable: str, url: str | None, environment: Mapping[str, str] | None = None) -> str:
    """The environment variable whose key goes to `url`: Azure's own where the name is left at its default and Azure's is set."""
    environment = os.environ if environment is None else environment
    if variable != OPENAI_KEY or url is None or AZURE_KEY not in environment or url_problem(url):
        return variable
    address = read_address(url)
    return AZURE_KEY if address.is_azure or address.on_azure else variable


def foreign_variable_problem(variable: str) -> str | None:
    """Why a file that comes from elsewhere may not name this variable as the one that holds a key, or None.

    Such a file chooses the server as well, and could have any secret of the environment sent to it.
    """
    if variable.upper().endswith("API_KEY"):
        return None
    return (
        f"`{variable}` does not end with API_KEY: a file that also chooses the server may not have other variables sent to it; "
        "name it on the command line if that is what you want"
    )
