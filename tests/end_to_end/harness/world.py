"""A network namespace with everything that runs in it. Named after our pid, so that two can run at once; leaves nothing behind."""

import contextlib
import ctypes
import itertools
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile

from .processes import Child, Failed, run

CLONE_NEWNET = 0x40000000
NAMESPACES = pathlib.Path("/run/netns")
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]

# The kernel's end of the tap: where clients and servers live. All of it is reserved for benchmarks and documentation.
TAP = "sealane0"
HOST = "198.18.0.1"
HOST6 = "2001:db8::1"


class World:
    """Use it in a `with`. Inside, this thread and all threads and children that it makes are in a namespace of their own.

    The namespace is called `sealane-KIND-PID`, with a number behind it from the second on; `directory` holds every file and goes away too.
    """

    count = itertools.count(1)

    def __init__(self, kind):
        number = next(self.count)
        self.name = f"sealane-{kind}-{os.getpid()}" + (f"-{number}" if number > 1 else "")
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        sweep()
        with contextlib.ExitStack() as stack:
            home = os.open("/proc/self/ns/net", os.O_RDONLY)
            stack.callback(os.close, home)
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            # First the undoing, then the doing: a signal may come in between.
            stack.callback(run, "ip", "netns", "delete", self.name, check=False)
            run("ip", "netns", "add", self.name)
            inside = os.open(NAMESPACES / self.name, os.O_RDONLY)
            try:
                enter(inside)
            finally:
                os.close(inside)
            stack.callback(enter, home)
            run("ip", "link", "set", "lo", "up")
            # The tap comes and goes with the engine and would lose its IPv6 address for a second to duplicate detection.
            for key in ("all", "default"):
                pathlib.Path(f"/proc/sys/net/ipv6/conf/{key}/accept_dad").write_text("0")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        with uninterrupted():
            self.stack.close()
        return False

    def child(self, name, command, cwd=None):
        """Starts a process that is stopped before the namespace goes."""
        child = Child(name, command, self.directory / f"{name}.log", cwd)
        self.stack.callback(child.stop)
        return child

    def address(self, address):
        """Gives the host one more address, on the loopback interface, where it survives the engine's restarts."""
        run("ip", "address", "replace", f"{address}/128" if ":" in address else f"{address}/32", "dev", "lo")

    def plug(self):
        """Brings up the host's end of the tap, once the engine has made it. False while it has not."""
        if run("ip", "link", "show", TAP, check=False).returncode != 0:
            return False
        run("ip", "link", "set", TAP, "up")
        run("ip", "address", "replace", f"{HOST}/16", "dev", TAP)
        run("ip", "-6", "address", "replace", f"{HOST6}/64", "dev", TAP, "nodad")
        return True


def enter(descriptor):
    """Moves this process to a network namespace. Threads and children made later are there too.

    Unlike `ip netns exec` it leaves /sys as it is, where DPDK looks for hugepages.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def sweep():
    """Removes namespaces and directories of runs that were killed before they could clean up: those whose process is gone."""
    ours = re.compile(r"sealane-(?:demo|test|bench|vm)-(\d+)(?:-.*)?")
    leftovers = [*(NAMESPACES.iterdir() if NAMESPACES.is_dir() else ()), *pathlib.Path(tempfile.gettempdir()).glob("sealane-*")]
    for path in leftovers:
        match = ours.fullmatch(path.name)
        if not match or pathlib.Path("/proc", match[1]).exists():
            continue
        if path.parent == NAMESPACES:
            run("ip", "netns", "delete", path.name, check=False)
        else:
            shutil.rmtree(path, ignore_errors=True)


class Interrupted(KeyboardInterrupt):
    """A signal asked us to stop."""


def interruptible():
    """Makes SIGTERM and SIGHUP unwind like Ctrl-C does."""

    def stop(number, _):
        raise Interrupted(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


@contextlib.contextmanager
def uninterrupted():
    """Puts off signals while cleaning up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def require_root():
    """Ends with a sentence instead of a stack trace where namespaces cannot be made."""
    if os.geteuid() != 0:
        sys.exit("This makes a network namespace and a tap interface: run it as root.")


def binary():
    """The engine's program; the environment variable SEALANE names another one."""
    path = pathlib.Path(os.environ.get("SEALANE", REPOSITORY / "target/release/sealane"))
    if not path.exists():
        raise Failed(f"{path} is not there: run `cargo build --release` first")
    return path
