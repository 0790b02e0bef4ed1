"""The status page in a headless chromium, over a live engine with clients: on the admin address to look at, on the API's to change things, too."""

import contextlib
import http.client
import http.server
import json
import threading

from harness.browser import Browser
from harness.trial import REFUSING, WEB
from harness.visitors import visitors
from harness.wait import until

ADMIN, API = "http://127.0.0.1:9900/", "http://127.0.0.1:9911/"
TOKEN = "0123456789abcdef0123456789abcdef"
PHONE, DESK = (390, 844), (1440, 900)
# WCAG 2.2, 1.4.3, for text of ordinary size.
CONTRAST_MIN = 4.5

# Ratios of text that is shown to what is behind it, the lowest first, as WCAG 2.2 defines them.
CONTRASTS = """() => {
  const parts = color => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ({ r, g, b }) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = node => { for (let at = node; at; at = at.parentElement) { const color = parts(getComputedStyle(at).backgroundColor); if (color.a) return color; } throw "no background"; };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, words = walker.currentNode.data.trim();
    if (!words || ["SCRIPT", "NOSCRIPT"].includes(node.tagName) || !node.checkVisibility()) continue;
    const front = parts(getComputedStyle(node).color), back = behind(node);
    if (front.a !== 1 || back.a !== 1) throw `${words}: colours that are not solid`;
    const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), words, node.className]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


def the_status_page_shows_everything_and_changes_nothing_at_the_admin_address(trial):
    with visitors(trial), Browser(trial.world) as browser:
        window = browser.window(*DESK)
        opened = window.open(ADMIN)
        assert opened["status"] == 200, opened
        policy = opened["headers"]["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy, policy
        window.shows("#fit", "ready")
        _shows_the_engine(trial, window)
        assert window.text("#mode") == "read-only"
        assert not window.evaluate("[...document.querySelectorAll('button')].some(one => one.checkVisibility())"), "there are buttons"
        _is_quiet(window, ADMIN)
        # Nobody can set the page into his own.
        with _elsewhere() as url:
            window.open(url)
            window.evaluate(f"document.body.append(Object.assign(document.createElement('iframe'), {{ src: {json.dumps(ADMIN)} }}))")
            until("the frame to be refused", lambda: any("frame-ancestors" in one for one in window.seen()["complaints"]), 10)
    assert _admin_asked_as("evil.example:9900") == 421 and _admin_asked_as("localhost:9900") == 200


def the_status_page_fits_a_phone_and_a_desk_in_light_and_dark(trial):
    lowest = []
    with visitors(trial), Browser(trial.world) as browser:
        for width, height in (PHONE, DESK):
            for scheme, is_lit in (("light", True), ("dark", False)):
                window = browser.window(width, height, scheme)
                window.open(ADMIN)
                window.shows("#lanes", "core")
                _has_rates(window)
                overflow = window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert overflow == 0, f"{overflow} px do not fit into {width}"
                # What is cut off within a card would not show there.
                cut = window.evaluate("[...document.querySelectorAll('.card *')].filter(one => one.getBoundingClientRect().right > innerWidth).map(one => one.outerHTML.slice(0, 99))")
                assert not cut, f"beyond the edge at {width} px: {cut[:3]}"
                page = window.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
                assert all((part > 127) == is_lit for part in page), f"{scheme} is {page}"
                contrasts = window.evaluate(CONTRASTS)
                assert len(contrasts) > 100 and contrasts[0][0] >= CONTRAST_MIN, f"{scheme}: {contrasts[:3]}"
                lowest.append(contrasts[0][0])
                _is_quiet(window, ADMIN)
    return f"the lowest contrast is {min(lowest):.1f}"


def the_status_page_drains_servers_and_the_engine_for_whoever_has_the_token(trial):
    """Where the API is cannot change while the engine runs, so it is started anew; a drain from the page ends it."""
    with _api_over_tcp(trial), Browser(trial.world) as browser:
        window = browser.window(*DESK)
        assert window.open(API)["status"] == 200
        window.shows("#access", "API token")
        _is_quiet(window, API)
        for wrong in ("0" * 32, TOKEN[1:]):
            _type(window, wrong)
            window.shows("#refused", "does not accept")
            assert not _buttons(window) and window.text("main") == "" and trial.engine.settings["engine"]["name"] not in window.text("body")
        # Chromium tells of each refusal, as it should.
        seen = window.seen()
        assert len(seen["complaints"]) == 2 and all("401" in one for one in seen["complaints"]), seen["complaints"]
        assert window.evaluate("sessionStorage.length + localStorage.length") == 0, "a wrong token is kept"
        _type(window, TOKEN)
        window.shows("#fit", "ready")
        assert window.evaluate("Object.values(sessionStorage)") == [TOKEN]
        with visitors(trial, resets=True):
            _shows_the_engine(trial, window)
            _drains_and_enables(trial, window)
            _tells_why_a_server_is_down(trial, window)
        # Another tab of the same page has no token, this one after a reload has.
        window.open(API)
        window.shows("#fit", "ready")
        _is_quiet(window, API)
        _names_are_text(browser)
        _other_sites_change_nothing(trial, browser)
        window.click("#drain")
        window.shows("#sure", "Drain engine-1?")
        window.click("#sure-no")
        assert trial.engine.is_healthy()
        with trial.client().connect() as tls:
            tls.sendall(b"echo\nbefore")
            assert tls.recv(100) == b"before"
            window.click("#drain")
            window.click("#sure-yes")
            window.shows("#fit", "draining")
            assert not trial.engine.is_healthy()
        assert trial.engine.child.process.wait(20) == 0
        window.shows("#lost", "has not answered")
        trial.engine.start()
        window.shows("#fit", "ready")
        until("the page to have recovered", lambda: window.text("#lost") == "", 10)


def _drains_and_enables(trial, window):
    server = "/v1/pools/web/servers/b"
    row = "[...document.querySelectorAll('.servers tr')].find(row => row.querySelector('[aria-label$=\"server b of pool web\"]'))"
    says = lambda *words: until(f"the page to say {words}", lambda: all(word in window.evaluate(f"{row}.innerText") for word in words), 15)  # noqa: E731
    window.click('[aria-label="Drain server b of pool web"]')
    window.shows("#said", "web/b is draining, on all lanes", "Not saved")
    says("draining", "Enable", "Disable")
    assert trial.engine.api.get(server)["state"]["state"] == "draining"
    assert {trial.client().visit().server for _ in range(6)} == set(WEB) - {"b"}
    window.click('[aria-label="Disable server b of pool web"]')
    window.shows("#sure", "Disable web/b?")
    window.click("#sure-yes")
    says("disabled", "Enable", "Drain")
    assert trial.engine.api.get(server)["state"]["state"] == "disabled"
    window.click('[aria-label="Enable server b of pool web"]')
    says("up")
    assert trial.engine.api.get(server)["state"]["state"] == "enabled"
    # What came over the API shows here, too, and can be saved.
    trial.engine.api.change("PATCH", server, {"max_connections": 77})
    says("of 77")
    window.shows("#facts", "not saved")
    window.click("#save")
    window.shows("#said", "Saved")
    until("the file to say so", lambda: "max_connections = 77" in trial.engine.file.read_text(), 5)


def _tells_why_a_server_is_down(trial, window):
    server = "/v1/pools/web/servers/shut"
    trial.engine.api.change("PUT", server, {"address": "{}:{}".format(*REFUSING)})
    try:
        window.shows(".servers", "shut", "connect: ", "✕ down")
        cause = trial.engine.api.get(server)["state"]["findings"][0]["cause"]
        window.shows(".servers", f"connect: {cause}", "3 of 4 usable")
    finally:
        trial.engine.api.change("DELETE", server)
    until("the server to be gone", lambda: "shut" not in window.text(".servers"), 10)


def _names_are_text(browser):
    """An engine that says anything at all cannot make the page run it."""
    window = browser.window(*DESK)
    window.open(API)
    evil = "<img src=x onerror=hit=1><script>hit=1</script>"
    window.evaluate(
        """async () => { const real = fetch; window.fetch = async (...all) => {
          const answer = await real(...all), evil = EVIL, said = await answer.json();
          for (const pool of said.pools ?? []) { pool.name += evil; for (const one of pool.servers) { one.name += evil; one.address = one.health = one.state = evil; } }
          for (const one of said.virtual_services ?? []) one.name = one.pool = evil;
          if (said.engine) said.engine.engine = said.engine.unfit = said.engine.file = evil;
          return new Response(JSON.stringify(said), answer);
        } }""".replace("EVIL", json.dumps(evil).replace("</", "<\\/"))
    )
    _type(window, TOKEN)
    window.shows("#engine", evil)
    window.shows(".servers", evil)
    assert window.evaluate("window.hit === undefined && document.images.length === 0 && document.scripts.length === 1")
    assert window.evaluate("(() => { try { document.body.innerHTML = 'x'; return false; } catch { return true; } })()"), "HTML can be made of strings"


def _other_sites_change_nothing(trial, browser):
    """A page from elsewhere has chromium send what needs no permission: a POST without a body. It must be refused before anybody asks who it is from."""
    window = browser.window(*DESK)
    with _elsewhere() as url:
        window.open(url)
        window.seen()
        window.evaluate(f"fetch('{API}v1/drain', {{ method: 'POST', mode: 'no-cors', credentials: 'include' }}).then(() => 1, () => 0)")
        answers = until("an answer", lambda: window.seen()["answers"], 10)
    assert answers == [["POST", f"{API}v1/drain", 403]], answers
    assert trial.engine.is_healthy() and not trial.engine.api.get("/v1/status")["draining"]


def _shows_the_engine(trial, window):
    overview = trial.engine.api.get("/v1/overview")
    window.shows("#engine", overview["engine"]["engine"], overview["engine"]["cluster"])
    window.shows("#facts", overview["engine"]["version"], str(overview["engine"]["configuration_version"]))
    for pool in overview["pools"]:
        window.shows(".servers", pool["name"], *(server["name"] for server in pool["servers"]), *(server["address"] for server in pool["servers"]))
    window.shows("#services", *(service["name"] for service in overview["virtual_services"]), "29 d left")
    window.shows("#keys", *(key["id"] for key in overview["ticket_keys"]["keys"]), "active")
    lanes = window.evaluate("[...document.querySelectorAll('#lanes tr')].map(row => row.innerText)")
    assert len(lanes) == len(overview["lanes"]) and all(f"core {lane['core']}" in row for lane, row in zip(overview["lanes"], lanes)), lanes
    _has_rates(window)
    # What the page says grows with what the engine counts.
    served = sum(lane["accepted"] for lane in trial.engine.api.get("/v1/overview")["lanes"])
    told = "shown.now.lanes.reduce((sum, lane) => sum + lane.accepted, 0)"
    assert served > 0
    until(f"{served} clients or more to be told", lambda: window.evaluate(told) >= served, 10)


def _has_rates(window):
    """Full and resumed handshakes, connections, bytes and busy lanes, in numbers and as curves of three points or more."""
    keys = "[...document.querySelectorAll('.plots .key')].map(key => key.innerText)"
    for name in ("full", "resumed", "open", "to clients", "from clients", "lane 0", "lane 1"):
        until(f"the rate of {name}", lambda: any(one.startswith(name) and any(digit in one.removeprefix(name) for digit in "123456789") for one in window.evaluate(keys)), 20)
    curves = "[...document.querySelectorAll('.plots .curve')].map(path => path.getAttribute('d').split('L').length)"
    until("curves", lambda: len(window.evaluate(curves)) == 7 and min(window.evaluate(curves)) >= 3, 20)


def _is_quiet(window, place):
    """Nothing was complained of, and nothing asked for elsewhere."""
    seen = window.seen()
    assert not seen["complaints"], seen["complaints"]
    outside = [url for url in seen["requests"] if not url.startswith((place, "data:image/svg+xml"))]
    assert seen["requests"] and not outside, outside


def _buttons(window):
    return window.evaluate("[...document.querySelectorAll('main button, header button')].filter(one => one.checkVisibility()).map(one => one.innerText)")


def _type(window, token):
    window.fill("#token", token)
    window.click("#access button")


@contextlib.contextmanager
def _elsewhere():
    """A page of another site, on this host: chromium lets no page from further away ask for loopback addresses."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<!doctype html><link rel="icon" href="data:,"><title>elsewhere</title>')

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://elsewhere.localhost:{server.server_address[1]}/"
        finally:
            server.shutdown()


def _admin_asked_as(host):
    connection = http.client.HTTPConnection("127.0.0.1", 9900, timeout=5)
    try:
        connection.request("GET", "/v1/overview", headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


@contextlib.contextmanager
def _api_over_tcp(trial):
    """The API on a loopback address with a token."""
    engine, before = trial.engine, dict(trial.engine.settings["engine"]["api"])
    token = trial.world.directory / "page.token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    assert engine.stop() == 0
    try:
        engine.settings["engine"]["api"] = before | {"listen": "127.0.0.1:9911", "token_file": "page.token"}
        engine.start()
        for server in WEB:
            engine.wait_for_server("web", server, True)
        yield
    finally:
        engine.stop()
        engine.settings["engine"]["api"] = before
        engine.start()
        for server in WEB:
            engine.wait_for_server("web", server, True)
