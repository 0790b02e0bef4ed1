"""Clients that are known by their address, whichever lane they arrive on."""

import concurrent.futures

from harness import config
from harness.processes import run
from harness.trial import BY_ADDRESS, at, at6
from harness.world import TAP

ELSEWHERE = "sealane_client_ip_asked_elsewhere_total"


def _networks(trial, first, count):
    """Hosts, two in each network of 16 addresses that the profile makes one client."""
    pairs = [[f"198.18.{first}.{16 * number + host}" for host in (1, 14)] for number in range(count)]
    for address in (address for pair in pairs for address in pair):
        trial.world.address(address)
    return pairs


def _arrive(trial, source, version):
    """A visit without a session, from this address."""
    address = at6(BY_ADDRESS) if ":" in source else at(BY_ADDRESS)
    visit = trial.client(version, address, source=source).visit()
    assert visit.server and not visit.resumed, visit
    return visit


def _visit(trial, source, version):
    """The same, and the server that it came to and why."""
    mark = trial.engine.records.mark()
    visit = _arrive(trial, source, version)
    return visit.server, trial.engine.records.of(visit.port, mark).reason


def clients_keep_their_server_by_their_address(trial):
    for first, version in ((40, "1.3"), (41, "1.2")):
        with trial.counted(ELSEWHERE, 8):
            homes = set()
            for hosts in _networks(trial, first, 6):
                home, reason = _visit(trial, hosts[0], version)
                assert reason == "no-mapping", reason
                for _ in range(3):
                    for host in hosts:
                        assert _visit(trial, host, version) == (home, "persisted"), host
                homes.add(home)
        assert len(homes) > 1, f"six clients, and all at {homes}"


def ipv6_clients_keep_their_server_by_their_address(trial):
    hosts = ["2001:db8::1001", "2001:db8::100e"]
    for host in hosts:
        run("ip", "address", "replace", f"{host}/64", "dev", TAP)
    home, _ = _visit(trial, hosts[0], "1.3")
    assert [_visit(trial, host, "1.3") for host in hosts] == [(home, "persisted")] * 2


def connections_that_a_new_client_opens_at_once_go_to_one_server(trial):
    for hosts in _networks(trial, 42, 4):
        mark = trial.engine.records.mark()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            visits = list(pool.map(lambda host: _arrive(trial, host, "1.3"), hosts * 4))
        assert len({visit.server for visit in visits}) == 1, visits
        # The hosts choose their ports each for itself.
        reasons = [record.reason for record in trial.engine.records.since(mark, len(visits))]
        assert sorted(reasons) == ["no-mapping"] + ["persisted"] * 7, reasons


def a_reload_that_changes_the_method_forgets_what_the_other_remembered(trial):
    ((host, _),) = _networks(trial, 43, 1)
    profile = next(one for one in trial.engine.settings["persistence_profile"] if one["name"] == "address")
    before = dict(profile)
    assert [_visit(trial, host, "1.3")[1] for _ in range(2)] == ["no-mapping", "persisted"]
    client = trial.client("1.3", at(BY_ADDRESS), source=host)
    reasons = []

    def visit():
        mark = trial.engine.records.mark()
        result = client.visit()
        reasons.append((result.resumed, trial.engine.records.of(result.port, mark).reason))

    try:
        visit()
        with client.connect() as old:
            profile.clear()
            profile.update(config.profile("address", "immediate"))
            trial.reload()
            # A connection from before lives on, and one that was resumed has no mapping by its ticket yet.
            old.sendall(b"echo\nstill here")
            assert old.recv(100) == b"still here"
            visit()
            visit()
    finally:
        profile.clear()
        profile.update(before)
        trial.reload()
    visit()
    visit()
    expected = [(False, "persisted"), (True, "no-mapping"), (True, "persisted"), (True, "no-mapping"), (True, "persisted")]
    assert reasons == expected, reasons
