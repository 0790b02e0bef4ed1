"""A program on a terminal of its own: a pseudo-terminal (pty(7)) on one side, Debian's pyte, which knows what escape sequences do, on the other."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios

import pyte

from .wait import TimedOut, until


class Terminal:
    """Use it in a `with`. `log` keeps every byte that the program has written."""

    def __init__(self, command, columns, lines):
        self.screen, self.log = pyte.Screen(columns, lines), b""
        self.stream = pyte.ByteStream(self.screen)
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        self._set_size(columns, lines)
        os.set_blocking(self.master, False)
        environment = os.environ | {"TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "setsid", "--ctty", "--wait", *map(str, command)],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env=environment,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        os.close(self.master)
        os.close(self.slave)
        return False

    def _set_size(self, columns, lines):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        self.read()
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)

    def type(self, keys):
        os.write(self.master, keys.encode())

    def read(self):
        """Takes what the program has written, and gives the picture."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.master, 65536):
                self.log += data
                self.stream.feed(data)
        return "\n".join(self.screen.display)

    def shows(self, *words, seconds=15):
        """Waits until the picture has all of this."""
        try:
            return until(f"a terminal to show {words}", lambda: all(word in self.read() for word in words) and self.read(), seconds)
        except TimedOut as error:
            raise AssertionError(f"{error}; it shows:\n{self.read()}") from None

    def foreground(self):
        """The process group that the terminal's signals go to."""
        return os.tcgetpgrp(self.master)

    def ends(self, number=None, seconds=15):
        """Waits for the end, after a signal if there is one; gives the status and whether the terminal is as it was before."""
        if number is not None:
            os.killpg(self.foreground(), number)
        until("the program to end", lambda: (self.read(), self.process.poll())[1] is not None, seconds)
        self.read()
        is_back = self.log.rfind(b"\x1b[?1049l") > self.log.rfind(b"\x1b[?1049h") and self.log.rfind(b"\x1b[?25h") > self.log.rfind(b"\x1b[?25l")
        return self.process.returncode, is_back and termios.tcgetattr(self.slave) == self.settings


HANGUP, TERMINATE = signal.SIGHUP, signal.SIGTERM
