"""A headless Chromium that a test drives as a reader does: clicks, keys, sizes, themes, print; over a pipe, with no other package."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
KEYS = {"Escape": 27, "Enter": 13, "Tab": 9}


class Tab:
    """One page. `run` evaluates JavaScript and waits for promises; `until` waits for an expression to be true."""

    def __init__(self, pipe: "_Pipe", session: str) -> None:
        self._pipe, self._session = pipe, session
        for domain in ("Page", "Runtime", "Performance", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        return self._pipe.ask(method, parameters, session=self._session)

    def open(self, address: str | Path, *, until: str = "document.readyState === 'complete'") -> None:
        self.do("Page.navigate", url="about:blank")
        self.do("Page.navigate", url=str(address) if "://" in str(address) else f"file://{address}")
        self.until(f"location.href !== 'about:blank' && ({until})")

    def run(self, expression: str) -> Any:
        told = self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.03)

    def size(self, width: int, height: int) -> None:
        """The window in CSS pixels."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, is_dark: bool = True) -> None:
        value = "dark" if is_dark else "light"
        self.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of the first element that the selector finds, once that is in view."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center', "
            "behavior: 'instant'}); const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.click_at(*place)

    def click_at(self, x: float, y: float) -> None:
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        time.sleep(0.1)
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            self.do("Input.dispatchKeyEvent", type=kind, **code, **(text if kind == "keyDown" else {}))

    def draw(self) -> None:
        """Scroll through the page until every figure is drawn, and back to its top."""
        self.run(
            "(async () => { for (const plot of document.querySelectorAll('.plot')) { plot.scrollIntoView({behavior: 'instant'});"
            " for (let i = 0; i < 300 && !plot.querySelector('.main-svg'); i += 1) await new Promise((done) => setTimeout(done, 100)); }"
            " window.scrollTo({top: 0, behavior: 'instant'}); })()"
        )

    def document(self) -> str:
        return self.run("document.documentElement.outerHTML")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    def pdf(self) -> bytes:
        return base64.b64decode(self.do("Page.printToPDF", printBackground=True)["data"])

    @property
    def complaints(self) -> list[str]:
        """What scripts threw, and what the content security policy refused, since the tab was opened."""
        logs = [e["params"]["entry"] for e in self._pipe.events if e["method"] == "Log.entryAdded"]
        thrown = [e["params"] for e in self._pipe.events if e["method"] == "Runtime.exceptionThrown"]
        return [log["text"] for log in logs if log["level"] == "error"] + [json.dumps(e) for e in thrown]


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[Tab]:
    """A browser with one empty tab of 1200 x 900; it ends with the block."""
    to_browser, from_browser = os.pipe(), os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_browser[0], from_browser[1])]

    def place_ends() -> None:
        os.dup2(ends[0], 3)
        os.dup2(ends[1], 4)

    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *flags]
    process = subprocess.Popen(
        [*words, "--remote-debugging-pipe", "about:blank"],
        preexec_fn=place_ends,
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (*ends, to_browser[0], from_browser[1]):
        os.close(end)
    pipe = _Pipe(to_browser[1], from_browser[0])
    try:
        target = pipe.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        tab = Tab(pipe, pipe.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])
        tab.size(1200, 900)
        yield tab
        pipe.ask("Browser.close", {})
    finally:
        os.close(to_browser[1])
        os.close(from_browser[0])
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Pipe:
    """Commands and answers as JSON, each ended by a NUL."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._n = to_browser, from_browser, b"", 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, parameters: dict[str, Any], *, session: str | None = None) -> dict[str, Any]:
        self._n += 1
        asked = {"id": self._n, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        data = json.dumps(asked).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while (told := self._next()).get("id") != self._n:
            if "method" in told:
                self.events.append(told)
        assert "error" not in told, (method, told["error"])
        return told["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._from, 1 << 20)
            assert read, "the browser went away"
            self._rest += read
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)
