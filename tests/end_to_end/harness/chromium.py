"""Debian's chromium behind one JSON object a line: commands on standard input, answers on standard output. `browser` starts it, with the Python that has playwright.

Playwright speaks to the browser over a pipe, so nothing of this needs a network.
"""

import json
import sys

from playwright.sync_api import sync_playwright


class Window:
    """A page in a context of its own, and what it has asked for and complained of."""

    def __init__(self, browser, width, height, scheme):
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1)
        self.page = self.context.new_page()
        self.requests, self.answers, self.complaints = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("response", lambda response: self.answers.append([response.request.method, response.url, response.status]))
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, url):
        response = self.page.goto(url)
        return response and {"status": response.status, "headers": response.headers}

    def evaluate(self, script):
        return self.page.evaluate(script)

    def click(self, selector):
        self.page.click(selector, timeout=10000)

    def fill(self, selector, text):
        self.page.fill(selector, text, timeout=10000)

    def screenshot(self, path):
        self.page.screenshot(path=path, full_page=True)

    def press(self, key):
        self.page.keyboard.press(key)

    def seen(self):
        """What has been seen since this was asked last."""
        # Playwright hears of events only while it is asked something.
        self.page.evaluate("0")
        seen = {"requests": self.requests[:], "answers": self.answers[:], "complaints": self.complaints[:]}
        for noted in (self.requests, self.answers, self.complaints):
            noted.clear()
        return seen

    def close(self):
        self.context.close()


def main(executable):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        windows = {}
        print(json.dumps({"is": browser.version}), flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            name, do, arguments = command["window"], command["do"], command["with"]
            try:
                if do == "new":
                    windows[name], answer = Window(browser, *arguments), None
                else:
                    answer = getattr(windows[name], do)(*arguments)
                print(json.dumps({"is": answer}), flush=True)
            except Exception as error:  # the case that asked is told
                print(json.dumps({"error": f"{do}: {error}"}), flush=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
