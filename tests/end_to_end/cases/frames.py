"""Frames that are wrong are counted and otherwise have no effect."""

from harness import frames

MALFORMED = r"sealane_\w*(truncated|field|checksum|fragment|source|unsupported|malformed|unknown)\w*_total"
SEED = 20260601


def malformed_frames_are_counted_and_ignored(trial):
    wrong = frames.malformed()
    with trial.undisturbed():
        for name, frame in wrong.items():
            try:
                with trial.counted(MALFORMED):
                    frames.inject([frame])
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
    return f"{len(wrong)} kinds"


def corrupt_frames_do_no_harm(trial):
    count = 5000
    with trial.undisturbed(), trial.counted(MALFORMED, count // 4):
        frames.inject(frames.corrupted(SEED, count))
    trial.engine.require_running()
    return f"{count} frames, seed {SEED}"
