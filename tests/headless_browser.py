"""A headless Chromium, controlled with the DevTools protocol over a pipe: no driver, no websocket.

Commands are JSON objects that end in a zero byte. Chromium reads them from its descriptor 3 and
answers on descriptor 4.
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
    """One tab. `events` has all of its events so far as (method, parameters)."""

    def __init__(self, input_fd, output_fd, timeout_s):
        self.input_fd, self.output_fd, self.timeout_s = input_fd, output_fd, timeout_s
        self.n_commands, self.rest, self.session = 0, b"", None
        self.events = []

    def send(self, method, **parameters):
        """The result of a command. RuntimeError if it is refused or there is no result."""
        self.n_commands += 1
        message = {"id": self.n_commands, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.input_fd, json.dumps(message).encode() + b"\0")
        return self._wait_until(lambda message: message.get("id") == self.n_commands)

    def wait_for(self, method):
        """The parameters of the last such event, or of the next one if there was none."""
        for name, parameters in reversed(self.events):
            if name == method:
                return parameters
        return self._wait_until(lambda message: message.get("method") == method)

    def settle(self, seconds=0.5):
        """Read events until there was none for this number of seconds."""
        while select.select([self.output_fd], [], [], seconds)[0]:
            self._read()

    def open(self, path, width=1280, height=900, **media):
        """Open a file. `media` are features such as `prefers_color_scheme="dark"`."""
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        self.send("Emulation.setEmulatedMedia", media="", features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        self.settle()

    def evaluate(self, script):
        """The value of a JavaScript expression."""
        reply = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        return reply["result"].get("value")

    def screenshot(self, path, full_page=True):
        """Write the page, or only the visible part of it, as a PNG file."""
        reply = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full_page)
        path.write_bytes(base64.b64decode(reply["data"]))
        return path

    def press(self, key, code):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )  # fmt: skip

    def _wait_until(self, is_wanted):
        end = time.monotonic() + self.timeout_s
        while time.monotonic() < end:
            if select.select([self.output_fd], [], [], 1.0)[0]:
                for message in self._read():
                    if "error" in message:
                        raise RuntimeError(message["error"])
                    if is_wanted(message):
                        return message.get("result", message.get("params"))
        raise RuntimeError("Chromium does not answer")

    def _read(self):
        *texts, self.rest = (self.rest + os.read(self.output_fd, 1 << 20)).split(b"\0")
        messages = [json.loads(text) for text in texts]
        self.events += [(m["method"], m["params"]) for m in messages if "method" in m]
        return messages


@contextmanager
def open_tab(folder, timeout_s=120):
    """A tab of a Chromium that stores its profile in `folder` and ends with the block."""
    child_input, input_fd = os.pipe()
    output_fd, child_output = os.pipe()
    copies = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (child_input, child_output)]
    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        preexec_fn=lambda: [os.dup2(copy, fd) for copy, fd in zip(copies, (3, 4), strict=True)],
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (child_input, child_output, *copies):
        os.close(end)
    try:
        tab = Tab(input_fd, output_fd, timeout_s)
        target = tab.send("Target.createTarget", url="about:blank")["targetId"]
        attached = tab.send("Target.attachToTarget", targetId=target, flatten=True)
        tab.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.send(f"{domain}.enable")
        yield tab
        tab.session = None
        tab.send("Browser.close")
    finally:
        process.terminate()
        process.wait(30)
        os.close(input_fd)
        os.close(output_fd)
