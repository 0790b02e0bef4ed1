"""After everything: nothing is left behind. Runs last."""

from harness.processes import run
from harness.wait import TimedOut, until
from harness.world import binary


def everything_has_been_given_back(trial):
    def left():
        metrics = trial.engine.metrics()
        return {
            "connections": metrics.sum("sealane_tcp_connections"),
            "relayed": metrics.sum("sealane_relay_open"),
            "buffers": metrics.sum("sealane_lane_buffers_in_use") - trial.buffers,
        }

    try:
        until("connections and buffers", lambda: max(left().values()) <= 0, 5, every=0.2)
    except TimedOut:
        raise AssertionError(f"left over: {left()}") from None


def nothing_panicked_and_no_record_was_lost(trial):
    trial.engine.require_running()
    assert "panicked" not in trial.engine.child.output.read_text(errors="replace")
    metrics = trial.engine.metrics()
    for lost in ("sealane_lane_records_dropped_total", "sealane_control_records_left_out_total", "sealane_control_records_failed_total"):
        assert metrics.sum(lost) == 0, f"{lost} {metrics.sum(lost):g}"


def a_terminated_engine_drains_and_ends_with_status_0(trial):
    status = trial.engine.stop()
    assert status == 0, f"status {status}:\n{trial.engine.child.tail()}"


def a_terminated_engine_leaves_its_trace_behind(trial):
    file = trial.world.directory / "engine.trace"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = run(binary(), "trace", "--file", file).stdout.splitlines()
    return f"{len(lines)} lines"
