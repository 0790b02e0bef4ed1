"""Children that never outlive this process: stopped by their own pid, and killed by the kernel should we die first."""

import os
import signal
import subprocess


class Failed(Exception):
    """A command did not do what it was started for."""


def run(*command, seconds=30, check=True, stdin=None, cwd=None):
    """Runs a command to its end and gives its result, output as text."""
    command = [str(part) for part in command]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, input=stdin, cwd=cwd)
    if check and result.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {result.returncode}: {(result.stderr or result.stdout).strip()}")
    return result


class Child:
    """A background process with its output in a file."""

    def __init__(self, name, command, output, cwd=None):
        self.name = name
        self.output = output
        # setpriv asks the kernel to kill the child when we are gone, however that came about. A session of its own keeps the
        # terminal's Ctrl-C from it: we stop our children ourselves, in order.
        with open(output, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
            )

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process.poll() is None

    def send(self, number):
        if self.is_running():
            os.kill(self.pid, number)

    def stop(self, number=signal.SIGTERM, seconds=5.0):
        """Sends the signal and waits; after `seconds` kills. Gives the exit status, negative for a signal."""
        self.send(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)

    def tail(self, lines=15):
        """The last lines of its output."""
        try:
            with open(self.output, errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except OSError:
            return ""
