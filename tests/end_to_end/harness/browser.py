"""A headless chromium for the cases. Windows are told what to do; `chromium` does it, in a process of its own."""

import contextlib
import itertools
import json
import pathlib
import subprocess

from .processes import Failed
from .wait import TimedOut, until
from .world import REPOSITORY

PYTHON = REPOSITORY / "target/playwright/bin/python"
CHROMIUM = pathlib.Path("/usr/bin/chromium")


class Browser:
    """Use it in a `with`."""

    def __init__(self, world):
        self.log = world.directory / "chromium.log"
        self.names = itertools.count(1)

    def __enter__(self):
        for program in (PYTHON, CHROMIUM):
            if not program.exists():
                raise Failed(f"{program} is not there: run scripts/setup")
        command = ["setpriv", "--pdeathsig", "KILL", "--", PYTHON, "-B", pathlib.Path(__file__).with_name("chromium.py"), CHROMIUM]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self._answer()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        return False

    def ask(self, window, do, *arguments):
        self.process.stdin.write(json.dumps({"window": window, "do": do, "with": arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the browser is gone: {self.log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"the browser says: {answer['error']}")
        return answer["is"]

    def window(self, width=1440, height=900, scheme="light"):
        name = next(self.names)
        self.ask(name, "new", width, height, scheme)
        return Window(self, name)


class Window:
    """One page, as nobody has seen it before."""

    def __init__(self, browser, name):
        self.browser, self.name = browser, name

    def __getattr__(self, do):
        return lambda *arguments: self.browser.ask(self.name, do, *arguments)

    def text(self, selector):
        """What the first element that fits says, if it is shown; else an empty string."""
        return self.evaluate(f"(document.querySelector({json.dumps(selector)})?.checkVisibility() && document.querySelector({json.dumps(selector)}).innerText) || ''")

    def shows(self, selector, *words, seconds=15):
        """Waits until an element is shown that says all of this."""
        said = []

        def does():
            said[:] = [self.text(selector)]
            return said[0] and all(word in said[0] for word in words)

        try:
            until(f"{selector} to say {words}", does, seconds)
        except TimedOut as error:
            raise AssertionError(f"{error}; it said {said[0]!r}") from None
        return said[0]
