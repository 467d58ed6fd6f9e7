"""A headless Chromium for tests, steered over its debugging pipe: https://chromedevtools.github.io/devtools-protocol."""

from __future__ import annotations

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

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser with one tab; a context manager."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM
        (read, self._out), (self._in, write) = os.pipe(), os.pipe()
        reads, writes = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read, write))  # clear of 3 and 4
        os.close(read)
        os.close(write)
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run")
        # it reads its commands from descriptor 3 and answers on 4
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes} {reads}<&- {writes}>&-', "bash", PROGRAM, *options, "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(reads, writes), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self._answers = os.fdopen(self._in, "rb")
        self._number = 0
        self._heard: list[dict[str, Any]] = []
        self._session: dict[str, str] = {}
        self._target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]}
        self.call("Page.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)  # it ends with its pipe
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = json.dumps({"id": self._number, "method": method, "params": params, **self._session}).encode() + b"\0"
        while message:
            message = message[os.write(self._out, message) :]
        answer = self._until(lambda m: m.get("id") == self._number)
        assert "error" not in answer, answer
        return answer["result"]

    def _until(self, wanted) -> dict[str, Any]:
        while True:
            message = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                assert byte, "the browser has ended"
                message += byte
            parsed = json.loads(message)
            if parsed.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self._heard.append(parsed["params"])
            if wanted(parsed):
                return parsed

    def hear(self) -> list[dict[str, Any]]:
        """A list that fills with what pages write to the console from now on; `Log.enable` and `Runtime.enable` must have been called."""
        self._heard = []
        return self._heard

    def open(self, page: Path | str, width: int = 1280) -> None:
        """Show a file or an address, `width` CSS pixels wide, and wait until it and its pictures are loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._until(lambda m: m.get("method") == "Page.loadEventFired")

    def wait(self, expression: str, seconds: float = 20) -> Any:
        """Wait until a JavaScript expression gives something true in the page; returns that."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"the page never had {expression}"
            time.sleep(0.005)
        return found

    def press(self, key: str) -> None:
        """Press a key and let it go, as a keyboard does."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))

    @contextmanager
    def covered(self) -> Iterator[None]:
        """Another tab is in front meanwhile, so the page is hidden."""
        other = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.call("Target.activateTarget", targetId=other)
        self.wait("document.hidden")
        yield
        self.call("Target.activateTarget", targetId=self._target)
        self.call("Target.closeTarget", targetId=other)
        self.wait("!document.hidden")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives in the page; the debugger may ask even where the page may not run scripts."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))
