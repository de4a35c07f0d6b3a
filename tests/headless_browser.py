"""A headless Chromium, spoken to in the DevTools protocol over a pipe: no driver, no websocket.

Commands are JSON objects that end in a zero byte, written to its descriptor 3 and answered on 4.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


class Tab:
    """One tab; `heard` is every event of it so far, as (method, parameters)."""

    def __init__(self, to, back, patience_s):
        self.to, self.back, self.patience_s = to, back, patience_s
        self.n, self.rest, self.session = 0, b"", None
        self.events = []

    def ask(self, method, **parameters):
        """The result of a command; RuntimeError if it is refused or does not come."""
        self.n += 1
        message = {"id": self.n, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        return self._until(lambda told: told.get("id") == self.n)

    def wait_for(self, method):
        """The parameters of the next such event, or of the last one heard."""
        for name, parameters in reversed(self.events):
            if name == method:
                return parameters
        return self._until(lambda told: told.get("method") == method)

    def settle(self, seconds=0.5):
        """Hears what comes within so many quiet seconds."""
        while select.select([self.back], [], [], seconds)[0]:
            self._read()

    def open(self, path, width=1280, height=900, **media):
        """Shows a file; `media` are features such as `prefers_color_scheme="dark"`."""
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        self.ask("Emulation.setEmulatedMedia", media="", features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        self.settle()

    def evaluate(self, script):
        """The value of a JavaScript expression."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return told["result"].get("value")

    def screenshot(self, path, whole=True):
        """The page as a PNG file, down to its end if `whole`."""
        told = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))
        return path

    def press(self, key, code):
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )  # fmt: skip

    def printed(self, path):
        """The page as a PDF file."""
        path.write_bytes(base64.b64decode(self.ask("Page.printToPDF", paperWidth=8.27)["data"]))
        return path

    def _until(self, holds):
        end = time.monotonic() + self.patience_s
        while time.monotonic() < end:
            if select.select([self.back], [], [], 1.0)[0]:
                for told in self._read():
                    if "error" in told:
                        raise RuntimeError(told["error"])
                    if holds(told):
                        return told.get("result", told.get("params"))
        raise RuntimeError("Chromium does not answer")

    def _read(self):
        *whole, self.rest = (self.rest + os.read(self.back, 1 << 20)).split(b"\0")
        told = [json.loads(text) for text in whole]
        self.events += [(t["method"], t["params"]) for t in told if "method" in t]
        return told


@contextmanager
def open_tab(folder, patience_s=120):
    """A tab of a Chromium that keeps its things in `folder` and ends with the block."""
    its_input, to = os.pipe()
    back, its_output = os.pipe()
    ours = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (its_input, its_output)]
    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        preexec_fn=lambda: [os.dup2(end, place) for end, place in zip(ours, (3, 4), strict=True)],
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (its_input, its_output, *ours):
        os.close(end)
    try:
        here = Tab(to, back, patience_s)
        target = here.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = here.ask("Target.attachToTarget", targetId=target, flatten=True)
        here.session = attached["sessionId"]
        for part in ("Page", "Network", "Runtime", "Log"):
            here.ask(f"{part}.enable")
        yield here
        here.session = None
        here.ask("Browser.close")
    finally:
        process.terminate()
        process.wait(30)
        os.close(to)
        os.close(back)
