"""Makes the environment of vLLM, and starts and ends a server in it; what `scripts/vllm_server.py` does."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.http.request_fields import parse_request
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import AUTO, dtype_name
from emis_interp.process import Bars, no_bars, only_writer
from evals.engines.environment import default_folder, find_environment, make_environment
from evals.engines.server import Serving, default_state, start_server, stop_server
from evals.settings.engines import EnvironmentSettings, StartServerSettings, StopServerSettings


def setup(settings: EnvironmentSettings, bars: Bars = no_bars) -> dict[str, Any]:
    folder, started = settings.env or default_folder(), time.monotonic()
    with only_writer(folder.parent, f"{folder.name}.setup"):
        made = make_environment(folder.absolute())
    return {"env": str(folder), "vllm": made.version, "device": made.device, "seconds": time.monotonic() - started}


def start(settings: StartServerSettings, bars: Bars = no_bars, *, of_run: Callable[[Path], Serving]) -> dict[str, Any]:
    """Start a server.

    Args:
        of_run: what is served of a run in a folder.
    """
    environment, state = find_environment(settings.env), settings.state or default_state()
    serving = of_run(settings.run) if settings.run is not None else Serving(EMBEDDED_NAME, dtype=dtype_name(AUTO))
    adapters = {**serving.adapters, **_adapters(settings.adapters)}
    flags = parse_request(settings.flags, "--flag") if settings.flags else {}
    chosen = Serving(
        settings.model or serving.model,
        adapters,
        dtype=serving.dtype if settings.dtype is None else dtype_name(settings.dtype),
        port=settings.port,
        flags={**serving.flags, **flags},
    )
    with only_writer(state.parent, state.name):
        found = start_server(chosen, environment, state.absolute(), patience_s=settings.patience)
    return {"state": str(state), **found.model_dump(mode="json")}


def stop(settings: StopServerSettings, bars: Bars = no_bars) -> dict[str, Any]:
    state = settings.state or default_state()
    with only_writer(state.parent, state.name):
        found = stop_server(state.absolute())
    return {"state": str(state), "stopped": None if found is None else found.url}


def say(result: dict[str, Any]) -> str:
    if "stopped" in result:
        return f"ended {result['stopped']}" if result["stopped"] else f"{result['state']}: no server was started"
    if "env" in result:
        return f"vllm {result['vllm']} for {result['device']} in {result['env']} ({result['seconds']:.0f} s)"
    lines = [f"{result['url']} serves {', '.join(result['names'])} (vllm {result['version']}, process {result['pid']})"]
    return "\n".join([*lines, f"log: {result['log']}", "python scripts/vllm_server.py stop ends it"])


def _adapters(given: tuple[str, ...]) -> Mapping[str, Path | str]:
    found = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not (separator and name and folder):
            raise ConfigError(f"--adapter {text}: expected NAME=FOLDER")
        if name in found:
            raise ConfigError(f"--adapter {name}: is given twice")
        found[name] = Path(folder) if Path(folder).expanduser().exists() else folder
    return found
