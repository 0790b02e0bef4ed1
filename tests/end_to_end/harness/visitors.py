"""Clients that keep an engine busy while a case looks at it."""

import contextlib
import threading


@contextlib.contextmanager
def visitors(trial, resets=False):
    """Clients that come again and again, one with its tickets, one without, and one that stays. Their servers may be disabled where `resets` says so."""
    stop, failed = threading.Event(), []

    def visit(keep):
        client = trial.client()
        while not stop.is_set():
            result = client.visit(keep=keep)
            if result.error and not (resets and result.error == "reset"):
                failed.append(result)
                return

    def stay():
        # Until its server is disabled.
        with contextlib.suppress(OSError), trial.client().connect() as tls:
            tls.sendall(b"echo\n")
            while not stop.wait(0.05):
                tls.sendall(b"still")
                tls.recv(5)

    threads = [threading.Thread(target=visit, args=(keep,)) for keep in (True, False)] + [threading.Thread(target=stay)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert not failed, failed[0]
