"""Servers that do not connect while their pool has others, and pools that are down: what their clients get."""

from harness import config
from harness.trial import REFUSING, UNANSWERED, UNREACHABLE, WEB

POOL, HOST = "failing", 62
ADDRESS = f"198.18.0.{HOST}"


def _service(policy="immediate"):
    return {
        "persistence_profile": config.profile(POOL, policy),
        "virtual_service": config.service(POOL, HOST, POOL, "shop-ecdsa", profile=POOL, connect_timeout="1s"),
    }


def _all(pool, state):
    for server in pool["server"]:
        server["state"] = state
    return pool


def servers_that_do_not_connect_cost_no_client_its_connection(trial):
    # Without a monitor nobody ever takes them for down: three of four are tried in vain, each in its own way.
    servers = {"refusing": REFUSING, "unanswered": UNANSWERED, "unreachable": UNREACHABLE, "a": WEB["a"]}
    pool = config.pool(POOL, servers) | {"connect_retries": 3, "passive_health": "off"}
    with trial.undisturbed(), trial.added(pool=pool, **_service()), trial.counted("sealane_relay_connects_retried_total", 4):
        for _ in range(4):
            visit = trial.client(address=ADDRESS).visit()
            assert visit.server == "a", visit
    pool = config.pool(POOL, {"refusing": REFUSING, "a": WEB["a"]}) | {"connect_retries": 0, "passive_health": "off"}
    with trial.undisturbed(), trial.added(pool=pool, **_service()):
        refused = [trial.client(address=ADDRESS).visit().refused for _ in range(4)]
        assert refused.count(True) == 2, refused


def a_pool_that_is_down_resets_clients_or_tells_them_by_an_alert(trial):
    for action, answer in (("reset", "RESET"), ("tls-alert", "INTERNAL ERROR")):
        pool = _all(config.pool(POOL, WEB), "disabled") | {"pool_down_action": action}
        with trial.undisturbed(), trial.added(pool=pool, **_service()):
            for version in ("1.3", "1.2"):
                mark = trial.engine.records.mark()
                visit = trial.client(version, ADDRESS).visit()
                assert visit.error and answer in visit.error.upper(), visit
                trial.ended(visit.port, mark, "no-server")


def a_backup_pool_takes_the_clients_of_a_pool_that_is_down_until_it_is_up(trial):
    pool = config.pool(POOL, {"a": WEB["a"], "b": WEB["b"]}) | {"pool_down_action": "backup-pool", "backup_pool": "sorry"}
    sorry = config.pool("sorry", {"c": WEB["c"]})
    with trial.undisturbed(), trial.added(pool=[pool, sorry], **_service()):
        client = trial.client(address=ADDRESS)
        assert client.visit().server in ("a", "b")
        _all(pool, "disabled")
        trial.reload()
        assert client.visit().server == "c"
        again = client.visit()
        assert again.resumed and again.server == "c", again
        _all(pool, "enabled")
        trial.reload()
        back = client.visit()
        assert back.resumed and back.server in ("a", "b"), back


def a_pool_with_fewer_servers_than_it_needs_is_down(trial):
    pool = config.pool(POOL, WEB) | {"servers_up_min": 2}
    with trial.undisturbed(), trial.added(pool=pool, **_service()):
        client = trial.client(address=ADDRESS)
        server = client.visit().server
        others = [table for table in pool["server"] if table["name"] != server]
        others[0]["state"] = "disabled"
        trial.reload()
        assert client.visit().server == server
        others[1]["state"] = "disabled"
        trial.reload()
        assert client.visit().refused
        others[1]["state"] = "enabled"
        trial.reload()
        assert client.visit().server == server
