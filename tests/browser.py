"""A headless Chromium, driven over its DevTools protocol through a pipe."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A page in a browser of its own; a context manager.

    Attributes:
        errors: texts of the page's exceptions and of its errors and warnings in the console.
        requests: addresses of all that it asked for, data: URIs aside.
        downloads: the folder of the files that it saved.
    """

    def __init__(self, profile, width=1200, height=900, mobile=False, dark=False):
        read, self.to = os.pipe()
        self.come, write = os.pipe()
        # The browser reads its file descriptor 3 and writes 4; these copies can't be one of the two themselves.
        read, write = (move(fd) for fd in (read, write))

        def give():
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=give, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        self.numbers, self.buffer, self.errors, self.requests, self.session = itertools.count(1), b"", [], [], None
        self.downloads = profile.with_name(f"{profile.name}_downloads")
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.ask("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.ask("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.come)

    def ask(self, method, **params):
        """Call a method of the protocol and return its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self, seconds=120):
        """The next message of the browser."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.come], [], [], max(0, end - time.monotonic()))
            read = os.read(self.come, 2**20) if ready else b""
            assert read, "the browser does not answer"
            self.buffer += read
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(str(params["entry"]))
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self.requests.append(params["request"]["url"])
        return message

    def open(self, url):
        """Load a page, and wait for it."""
        self.ask("Page.navigate", url=url)
        while self.receive().get("method") != "Page.loadEventFired":
            pass

    def run(self, script):
        """The value of a JavaScript expression in the page, once it has drawn what it has to."""
        expression = ("new Promise((done, fail) => requestAnimationFrame(() => setTimeout(() => "
                      f"{{ try {{ done({script}); }} catch (error) {{ fail(error); }} }})))")
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, script):
        """Press the mouse on the middle of the element that a JavaScript expression gives."""
        place = self.run(f"(node => {{ node.scrollIntoView({{block: 'center'}}); const box = "
                         f"node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; "
                         f"}})({script})")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def escape(self):
        """Press the Escape key."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)

    def use_everything(self):
        """Choose each option of each select box, and click each button there is then; an open dialog is closed."""
        self.run("""(() => {
          const boxes = () => document.querySelectorAll("select");
          for (let k = 0; k < boxes().length; k++) {
            for (let i = 0; i < boxes()[k].options.length; i++) {
              boxes()[k].selectedIndex = i;
              boxes()[k].dispatchEvent(new Event("change", {bubbles: true}));
            }
          }
          for (const node of document.querySelectorAll("button, summary")) {
            node.click();
            document.querySelector("dialog[open]")?.close();
          }
        })()""")

    def choose(self, script, value):
        """Choose an option of the select box that a JavaScript expression gives."""
        self.run(f"(node => {{ node.value = {json.dumps(str(value))}; "
                 f"node.dispatchEvent(new Event('change', {{bubbles: true}})); }})({script})")

    def picture(self, path, whole=True):
        """Save the page as PNG."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))


def move(fd):
    """A copy of a file descriptor with a number above 9, instead of it."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return copy
