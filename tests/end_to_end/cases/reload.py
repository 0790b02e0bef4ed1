"""SIGHUP: certificates change under open connections; a bad file changes nothing."""

from harness.clients import NAME, read_all
from harness.servers import listens
from harness.trial import SHOP, at
from harness.wait import until


def a_reload_serves_the_new_certificate_and_keeps_connections(trial):
    returning = trial.client()
    home = returning.visit().server
    with trial.client().connect() as old:
        old.sendall(b"echo\nbefore")
        assert old.recv(100) == b"before"
        was = _serial(trial)
        new = trial.authority.sign("shop-ecdsa", "ecdsa", NAME)
        assert _serial(trial) == was, "the certificate changed without a reload"
        trial.engine.reload()
        until("the new certificate", lambda: _serial(trial) == new, 10)
        old.sendall(b"after")
        assert old.recv(100) == b"after"
    visit = returning.visit()
    assert visit.resumed and visit.server == home, f"a new certificate must not invalidate tickets: {visit}"


def a_bad_reload_changes_nothing_and_says_why(trial):
    engine = trial.engine
    good = engine.file.read_text()
    bad = {  # what the engine must say -> the file
        "unheard_of": f'unheard_of = "value"\n{good}',
        # A file without syntax has no keys to name: it says where and what.
        "is not TOML": f"broken = [\n{good}",
        "nowhere": f'{good}\n[[virtual_service]]\nname = "dangling"\naddresses = ["198.18.0.99:443"]\npool = "nowhere"\n',
    }
    versions = ("sealane_control_configuration_version", "sealane_lane_configuration_version")
    before = [engine.metrics().sum(name) for name in versions]
    try:
        with trial.undisturbed(), trial.counted("sealane_control_reloads_refused_total", len(bad)):
            for words, text in bad.items():
                _requires_complaint(engine, words, text)
                assert trial.client().visit().server
    finally:
        engine.write()
    assert [engine.metrics().sum(name) for name in versions] == before


def _requires_complaint(engine, words, text):
    engine.records.read()
    seen = len(engine.records.lines)

    def complained():
        engine.records.read()
        return any(words in line and f"{engine.file}:" in line for line in engine.records.lines[seen:])

    engine.file.write_text(text)
    engine.reload()
    until(f"the engine to complain of {words}", complained, 10)


def a_reload_adds_a_service_and_another_removes_it(trial):
    settings, address = trial.engine.settings, "198.18.0.30"
    added = dict(settings["virtual_service"][0], name="late", addresses=[f"{address}:443"])
    settings["virtual_service"].append(added)
    mark = trial.engine.records.mark()
    try:
        trial.engine.write()
        with trial.undisturbed():
            trial.engine.reload()
            until("the new service", lambda: _answers(trial, address), 10)
    finally:
        settings["virtual_service"].remove(added)
        trial.engine.write()
    with trial.undisturbed(), trial.client(address=address).connect() as old:
        port = old.getsockname()[1]
        trial.engine.reload()
        until("the service to be gone", lambda: not listens(address, 443), 10)
        # A connection to it lives on, and ends in order.
        old.sendall(b"name\n")
        assert read_all(old).strip() in (b"a", b"b", b"c")
    trial.ended(port, mark, "finished")
    assert trial.client(address=at(SHOP)).visit().server


def _answers(trial, address):
    try:
        return trial.client(address=address).visit().server is not None
    except OSError:
        return False


def _serial(trial):
    with trial.client().connect() as tls:
        return tls.getpeercert()["serialNumber"]
