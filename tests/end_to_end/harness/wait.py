"""Waiting for a condition, with a deadline that fails. Nothing here or above sleeps for a fixed time and hopes."""

import time


class TimedOut(AssertionError):
    """A condition did not come true in time."""


def until(what, condition, seconds=10.0, every=0.05):
    """Gives the first true value of `condition()`; raises `TimedOut` naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimedOut(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)


def settled(what, read, still_seconds=1.0, seconds=20.0, every=0.1):
    """Gives the value of `read()` once it has not changed for `still_seconds`."""
    value, since = read(), time.monotonic()
    deadline = since + seconds
    while time.monotonic() - since < still_seconds:
        if time.monotonic() >= deadline:
            raise TimedOut(f"waited {seconds:g} s in vain for {what} to stand still")
        time.sleep(every)
        now = read()
        if now != value:
            value, since = now, time.monotonic()
    return value
