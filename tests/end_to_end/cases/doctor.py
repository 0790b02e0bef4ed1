"""`sealane doctor` on this machine, for the engine that runs here and for one that could not; and what drivers say of themselves."""

import json

from harness.processes import run
from harness.world import binary


def the_doctor_looks_at_this_machine_and_says_what_mends_it(trial):
    said = _doctor("--config", trial.engine.file)
    assert said.returncode == 0, said.stdout + said.stderr
    findings = json.loads(said.stdout)
    assert {finding["verdict"] for finding in findings} <= {"good", "weak"}, findings
    assert {"hugepages", "IOMMU", "cores", "clock", "swap", "port", "ticket keys", "crypto"} <= {finding["about"] for finding in findings}
    assert all(finding["remedy"] for finding in findings if finding["verdict"] != "good"), findings
    assert any("sealane0" in finding["what"] for finding in findings if finding["about"] == "port"), findings
    for measured in ("AES-128-GCM", "X25519", "ECDSA P-256"):
        assert any(finding["what"].startswith(measured) and "/s" in finding["what"] for finding in findings), measured

    elsewhere = trial.world.directory / "elsewhere.toml"
    elsewhere.write_text(trial.engine.file.read_text().replace("net_tap0,iface=sealane0", "0000:ff:1f.7"))
    said = _doctor("--config", elsewhere)
    assert said.returncode == 1, said.stdout
    (bad,) = [finding for finding in json.loads(said.stdout) if finding["verdict"] == "bad"]
    assert bad["what"] == "front: there is no PCI device 0000:ff:1f.7" and bad["remedy"].startswith("lspci"), bad

    elsewhere.write_text("pol = 1\n")
    said = _doctor("--config", elsewhere)
    assert said.returncode == 1 and any("elsewhere.toml:1: pol: is not a key" in finding["what"] for finding in json.loads(said.stdout)), said.stdout


def an_engine_tells_what_its_ports_drivers_can_do(trial):
    trial.engine.records.read()
    (line,) = [json.loads(line) for line in trial.engine.records.lines if "port's driver" in line]
    assert (line["port"], line["driver"]) == ("front", "net_tap"), line
    assert line["receive_queues_max"] >= 2 and line["rss_functions"].startswith("0x"), line


def _doctor(*arguments):
    return run(binary(), "doctor", "--json", *arguments, check=False)
