"""`sealane top` on a pseudo-terminal, over a live engine with clients."""

import re
import subprocess

from harness.terminal import TERMINATE, Terminal
from harness.trial import WEB
from harness.visitors import visitors
from harness.wait import until
from harness.world import binary

END = "\x1b[F"


def top_shows_a_live_engine_and_leaves_the_terminal_as_it_was(trial):
    with visitors(trial), Terminal(_command(trial), 120, 36) as terminal:
        terminal.shows("engine-1 trial  ready", "1 Overview", "q quit")
        until("rates", lambda: re.search(r"full [1-9][\d.]*  resumed [1-9]", terminal.read()) and re.search(r"in [1-9][\d.]* k?B  out [1-9]", terminal.read()), 20)
        assert re.search("[▁▂▃▄▅▆▇█]", terminal.read()), f"there is no curve:\n{terminal.read()}"
        terminal.type("2")
        terminal.shows("RESUMED/S", "Busy, by lane", "lane 1")
        terminal.type("3")
        terminal.shows("POOL/SERVER", *(f"web/{server}" for server in WEB), "ANSWERS/S")
        trial.engine.api.change("PATCH", "/v1/pools/web/servers/b", {"state": "draining"})
        try:
            until("the drain to be shown", lambda: re.search(r"web/b +198\.18\.1\.12:8000 +draining", terminal.read()), 10)
            terminal.type("1")
            terminal.shows("! server web/b: draining", "! configuration: has changes that are not saved")
        finally:
            trial.engine.api.change("PATCH", "/v1/pools/web/servers/b", {"state": "enabled"})
        terminal.type("4")
        terminal.shows("SERVICE", "shop", "29 d left")
        terminal.type("5")
        terminal.shows(*(key["id"] for key in trial.engine.api.get("/v1/ticket_keys")["keys"]), "active")
        # Smaller, and as small as nobody reads; then large again.
        terminal.type("3")
        terminal.resize(46, 12)
        until("the foot to be where it belongs", lambda: terminal.read().splitlines()[11].startswith("q quit"), 10)
        assert "ADDRESS" not in terminal.read(), terminal.read()
        # Other cases have brought pools of theirs, which stand before this one.
        terminal.type(END)
        until("the last servers to be seen", lambda: "web/a" in terminal.read(), 10)
        terminal.resize(5, 2)
        terminal.resize(120, 36)
        until("the foot to be back", lambda: terminal.read().splitlines()[35].startswith("q quit"), 10)
        terminal.type("?")
        terminal.shows("choose a view")
        terminal.type("x")
        until("the help to be gone", lambda: "choose a view" not in terminal.read(), 10)
        terminal.type("q")
        assert terminal.ends() == (0, True)


def top_says_when_the_engine_is_away_and_follows_the_next_one(trial):
    with Terminal(_command(trial), 120, 30) as terminal:
        terminal.shows("engine-1 trial  ready")
        assert trial.engine.stop() == 0
        terminal.shows("no answer for", "asking on", "engine-1 trial")
        trial.engine.start()
        terminal.shows("the engine has started again")
        terminal.shows("engine-1 trial  ready", "q quit")
        assert terminal.ends(TERMINATE) == (0, True), "a signal should end it in order"
    for server in WEB:
        trial.engine.wait_for_server("web", server, True)


def top_prints_one_snapshot_and_wants_a_terminal_for_more(trial):
    command = _command(trial)
    with visitors(trial):
        once = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=30)
    assert once.returncode == 0 and "\x1b" not in once.stdout, once
    for words in ("engine-1 of cluster trial, ready", "handshakes ", "LANE  CORE", "SERVICE", "active"):
        assert words in once.stdout, once.stdout
    assert re.search(r"^web/a +198\.18\.1\.11:8000 +up ", once.stdout, re.MULTILINE), once.stdout
    piped = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert piped.returncode == 1 and piped.stdout == "" and "there is none; --once prints one snapshot" in piped.stderr, piped
    nobody = subprocess.run([binary(), "top", "--once", "--socket", "/nowhere.sock"], capture_output=True, text=True, timeout=30)
    assert nobody.returncode == 1 and "no engine listens at /nowhere.sock" in nobody.stderr, nobody


def _command(trial):
    return [binary(), "top", "--socket", trial.engine.api.path]
