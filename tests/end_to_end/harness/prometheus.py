"""A real Prometheus in the world's namespace, which scrapes engines and answers PromQL."""

import json
import urllib.error
import urllib.parse
import urllib.request

from .processes import run
from .wait import until
from .world import HOST

CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: sealane
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Runs until the world ends. `rules` is a file of rules."""

    address = f"{HOST}:9090"

    def __init__(self, world, target, rules):
        file = world.directory / "prometheus.yml"
        file.write_text(CONFIG.format(rules=rules, target=target))
        run("promtool", "check", "config", file)
        data = world.directory / "prometheus"
        # fmt: off
        self.child = world.child("prometheus", ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={data}",
                                                f"--web.listen-address={self.address}", "--log.level=warn"], world.directory)
        # fmt: on
        until("Prometheus to be ready", self._is_ready, 30)

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def query(self, expression):
        """The samples of an instant query, as pairs of labels and value."""
        answer = self._get("query", query=expression)
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["result"]]

    def rules(self):
        """Every rule as Prometheus has evaluated it."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self):
        return self._get("targets")["activeTargets"]

    def _get(self, what, **parameters):
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters or what}: {error.read().decode(errors='replace')}") from None
