"""The engine on a PCI NIC in a virtual machine, with clients and servers on the host. Started by scripts/vm-demo."""

import pathlib
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/end_to_end"))

from harness import config, vlan, world  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.clients import NAME, CurlClient, OpensslClient, PythonClient  # noqa: E402
from harness.engine import Metrics, Records  # noqa: E402
from harness.guest import Guest, unpacked  # noqa: E402
from harness.nginx import Nginx  # noqa: E402
from harness.processes import Failed, run  # noqa: E402

SECONDS = 600
VISITS = 5
SERVERS = {"a": ("198.18.1.11", 8000), "b": ("198.18.1.12", 8000), "c": ("198.18.1.13", 8000)}
SHOP, SHOP6, SHOP_IN_VLAN, VLAN = "198.18.0.10", "2001:db8::10", "198.19.0.10", 7
NIC, LOGIN = "0000:00:10.0", "0000:00:11.0"
NICS = [
    # Two queue pairs, spread by the device's own RSS as on a NIC of today.
    *("-netdev", f"tap,id=front,ifname={world.TAP},script=no,downscript=no,queues=2"),
    *("-device", "virtio-net-pci,netdev=front,mac=02:5e:a1:00:00:01,addr=0x10,mq=on,vectors=6,rss=on,host_mtu=1500"),
    # The one that an operator would be logged in over. Nothing is at its other end.
    *("-netdev", "hubport,id=login,hubid=0", "-device", "virtio-net-pci,netdev=login,mac=02:5e:a1:00:00:02,addr=0x11"),
]
CLIENTS = [(CurlClient, "1.3"), (OpensslClient, "1.3"), (OpensslClient, "1.2"), (PythonClient, "1.3"), (PythonClient, "1.2")]


class Claims:
    """What was promised, and whether it is so; printed as it turns out."""

    def __init__(self):
        self.passed = self.failed = 0

    def add(self, text, good, otherwise=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"  {'ok    ' if good else 'FAILED'}  {text}", flush=True)
        if not good and otherwise:
            print("".join(f"            {line}\n" for line in str(otherwise).strip().splitlines()[-12:]), end="", flush=True)


class Demo:
    """The play, an act a method."""

    def __init__(self, stage):
        self.world, self.claims = stage, Claims()
        self.began = time.monotonic()

    def say(self, text):
        print(f"\n{time.monotonic() - self.began:5.1f} s  {text}", flush=True)

    def play(self):
        self.set_up()
        self.bind()
        self.serve()
        self.visit()
        self.stop()
        self.in_a_vlan()
        self.change("given back to the kernel", f"--unbind {NIC}", "virtio-pci")
        print(f"{self.claims.passed} passed, {self.claims.failed} failed")
        return self.claims.failed == 0

    def set_up(self):
        self.say(f"In the network namespace {self.world.name}: a tap for qemu, three nginx servers, a certificate")
        authority = Authority(self.world.directory)
        authority.sign("shop", "ecdsa", NAME)
        self.certificate = authority.certificate
        run("ip", "tuntap", "add", "dev", world.TAP, "mode", "tap", "multi_queue")
        self.world.plug()
        for name, address in SERVERS.items():
            Nginx(self.world, name, *address)
        self.settings = config.base()
        self.settings["engine"] |= {
            "cores": [0, 1],
            "control_core": 0,
            "buffers": 4096,
            "hugepages": "require",
            "api": {"socket": "/run/engine.sock"},
            "tcp": {"connections_max": 4096, "memory_max": 268435456},
        }
        self.settings["port"][0]["device"] = NIC
        self.settings["pool"] = [config.pool("web", SERVERS, monitor="connect")]
        # An emulated processor takes its time.
        self.settings["health_monitor"] = [config.monitor("connect") | {"timeout": "900ms"}]
        self.settings["persistence_profile"] = [config.profile("move", "immediate")]
        self.settings["virtual_service"] = [config.service("shop", 10, "web", "shop", profile="move")]
        self.file = self.world.directory / "engine.toml"
        self.file.write_text(config.toml(self.settings) + "\n")
        self.say("Booting Debian's kernel in qemu, in software")
        self.guest = Guest(self.world, NICS)
        print("  " + self.guest.run("uname -sr; ip -brief link | grep -v ^lo").replace("\n", "\n  ").rstrip())
        self.guest.run("ip link set eth1 up; ip address add 198.19.0.2/24 dev eth1; ip route add default via 198.19.0.1 dev eth1; ip link set eth0 up")

    def script(self, arguments, **more):
        """scripts/bind in the machine: its status and what it says, which is shown."""
        print(f"  # scripts/bind {arguments}", flush=True)
        status, output = self.guest.run(f"{world.REPOSITORY}/scripts/bind {arguments}", check=False, **more)
        print("".join(f"    {line}\n" for line in output.splitlines()), end="", flush=True)
        return status, output

    def driver(self, nic=NIC):
        return pathlib.Path(self.guest.run(f"readlink /sys/bus/pci/devices/{nic}/driver || echo none").strip()).name

    def bind(self):
        self.say("Whom the NICs belong to")
        status, text = self.script("--status")
        self.claims.add("--status shows both NICs, and that the default route's is never bound", status == 0 and NIC in text and "never:" in text)
        status, text = self.guest.run(f"{world.binary()} run --config {self.file}", check=False)
        self.claims.add("the engine refuses a NIC that the kernel has, and names scripts/bind", status == 1 and f"scripts/bind {NIC}" in text, text)
        status, text = self.script(f"--driver uio_pci_generic --force {LOGIN}")
        good = status != 0 and "default route" in text and self.driver(LOGIN) == "virtio-pci"
        self.claims.add("the default route's NIC is refused, --force or not", good, text)
        status, text = self.script(f"--driver uio_pci_generic {NIC}")
        self.claims.add("a NIC whose interface is up is refused", status != 0 and "eth0 is up" in text and self.driver() == "virtio-pci", text)
        self.guest.run("ip link set eth0 down")
        status, text = self.script(NIC)
        self.claims.add("vfio-pci is refused without an IOMMU, with a word on what to do", status != 0 and "uio_pci_generic" in text, text)
        remembered = f"/etc/driverctl.d/pci-{NIC}"
        self.guest.run("mount -t tmpfs tmpfs /etc/driverctl.d")
        self.change("bound by driverctl", f"--driver uio_pci_generic {NIC}", "uio_pci_generic")
        self.claims.add("and driverctl remembers it", self.guest.run(f"cat {remembered}").strip() == "uio_pci_generic")
        self.change("given back by driverctl", f"--unbind {NIC}", "virtio-pci")
        self.claims.add("and driverctl has forgotten it", self.guest.run(f"test -e {remembered}", check=False)[0] != 0)
        # From here on as where nobody has installed it.
        self.guest.run("mount --bind /dev/null $(command -v driverctl)")
        self.change("bound without driverctl, by its interface's name", "--driver uio_pci_generic eth0", "uio_pci_generic")

    def change(self, what, arguments, driver):
        status, text = self.script(arguments)
        now = self.driver()
        self.claims.add(f"the NIC is {what}: its driver is {now}", status == 0 and now == driver, text)

    def serve(self):
        self.say("The engine on the NIC")
        self.start()
        ready = re.search(r'.*"?port is ready.*', self.records.path.read_text())
        print(f"  {ready[0] if ready else ''}")
        self.claims.add("the engine's monitors reach three servers through the NIC", True)
        self.claims.add("it answers ping", run("ping", "-c", "2", "-W", "5", SHOP, check=False).returncode == 0)
        self.claims.add("and over IPv6", run("ping", "-c", "2", "-W", "5", SHOP6, check=False).returncode == 0)

    def start(self):
        log, self.ended = self.world.directory / "engine.log", self.world.directory / "engine.status"
        self.ended.unlink(missing_ok=True)
        life = f"{world.binary()} run --config {self.file} & echo $! >engine.pid; wait $!; echo $? >engine.status"
        self.guest.run(f"cd {self.world.directory} && setsid bash -c '{life}' >{log} 2>&1 &")
        self.records = Records(log)
        try:
            self.guest.watch("all servers to be seen up", self.servers_are_up, 90)
        except Failed as error:
            raise Failed(f"{error}; the engine said:\n{log.read_text(errors='replace')[-3000:]}") from None

    def metrics(self):
        return Metrics(self.guest.run("curl --silent --max-time 10 http://127.0.0.1:9900/metrics", check=False)[1])

    def servers_are_up(self):
        if self.ended.exists():
            raise Failed(f"the engine ended with status {self.ended.read_text().strip()}")
        metrics = self.metrics()
        return all(metrics.value("sealane_server_up", pool="web", server=name) == 1 for name in SERVERS)

    def visit(self):
        self.say(f"{len(CLIENTS)} clients on the host, {VISITS} visits each")
        before = self.metrics()
        lost, full, served = [], [], 0
        for program, version in CLIENTS:
            client = program(self.world, version, SHOP, self.certificate)
            mark = self.records.mark()
            visits = client.visits(VISITS) if not program.repeatable else [client.visit() for _ in range(VISITS)]
            recorded = [self.records.of(visit.port, mark, 20) for visit in visits]
            for number, (visit, record) in enumerate(zip(visits, recorded), 1):
                how = visit.error or f"TLS {version} {'resumed' if visit.resumed else 'full':<8} server {visit.server}  {record.reason}"
                print(f"    {program.program:<17} visit {number}  {how}", flush=True)
            name = f"{program.program} {version}"
            served += sum(visit.server in SERVERS for visit in visits)
            lost += [name for visit in visits if visit.server is None or visit.server != visits[0].server]
            full += [name for visit, record in zip(visits[1:], recorded[1:]) if not (visit.resumed and record.resumed)]
        self.claims.add(f"{served} of {len(CLIENTS) * VISITS} visits were served, each client by its own server", not lost, lost)
        self.claims.add("every return resumed its session, as client and engine both say", not full, full)
        curl = ["curl", "--silent", "--show-error", "--cacert", self.certificate, "--max-time", "20"]
        result = run(*curl, "--resolve", f"{NAME}:443:[{SHOP6}]", f"https://{NAME}/", check=False, seconds=30)
        self.claims.add(f"curl visits over IPv6, and gets {result.stdout.strip()!r}", result.stdout.strip() in SERVERS, result.stderr)
        after = self.metrics()
        self.spread(before, after)

    def spread(self, before, after):
        frames = [b - a for a, b in zip(before.select("sealane_lane_frames_received_total"), after.select("sealane_lane_frames_received_total"))]
        handed = sum(after.select("sealane_lane_frames_handed_over_total")) - sum(before.select("sealane_lane_frames_handed_over_total"))
        text = f"the NIC's RSS spreads frames over the lanes as the engine reckons: {' and '.join(f'{n:g}' for n in frames)} received, {handed:g} on the wrong lane"
        self.claims.add(text, min(frames) > 0 and handed < 0.05 * sum(frames))

    def stop(self):
        self.guest.run(f"kill -TERM $(cat {self.world.directory}/engine.pid)")
        self.guest.watch("the engine to end", lambda: self.ended.exists() and self.ended.read_text().strip(), 60)
        status, log = self.ended.read_text().strip(), self.records.path.read_text(errors="replace")
        self.claims.add(f"the engine drained and ended with status {status}", status == "0", log[-600:])

    def in_a_vlan(self):
        self.say(f"The same NIC in VLAN {VLAN}, which its filter must let pass")
        run("ip", "address", "add", "198.19.0.1/16", "dev", vlan.add(self.world, world.TAP, VLAN))
        self.settings["port"][0] |= {"addresses": ["198.19.0.2/16"], "gateways": ["198.19.0.1"], "vlan": VLAN}
        self.settings["virtual_service"][0]["addresses"] = [f"{SHOP_IN_VLAN}:443"]
        self.file.write_text(config.toml(self.settings) + "\n")
        self.start()
        visits = CurlClient(self.world, "1.3", SHOP_IN_VLAN, self.certificate).visits(3)
        good = [visit.server in SERVERS for visit in visits] == [True] * 3 and [bool(visit.resumed) for visit in visits] == [False, True, True]
        self.claims.add("curl is served in the VLAN, and resumes", good, visits)
        self.settings["port"][0] |= {"mtu": 9000}
        self.stop()
        self.file.write_text(config.toml(self.settings) + "\n")
        status, text = self.guest.run(f"cd {self.world.directory} && {world.binary()} run --config {self.file}", check=False)
        good = status == 1 and "refuses an MTU of 9000" in text and "port front" in text
        self.claims.add("an MTU that the NIC refuses is an error that names port, device and MTU", good, text)


def main():
    world.require_root()
    world.interruptible()

    def out_of_time(*_):
        raise Failed(f"took longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(SECONDS)
    began = time.monotonic()
    demo = None
    try:
        # The world that follows has no way out.
        unpacked()
        with world.World("vm") as stage:
            demo = Demo(stage)
            try:
                good = demo.play()
            except (Failed, AssertionError, OSError) as error:
                print(f"\nFAILED: {error}")
                if hasattr(demo, "guest") and "console" not in str(error):
                    print(demo.guest.last_words())
                print(f"{demo.claims.passed} passed, {demo.claims.failed + 1} failed")
                good = False
    except KeyboardInterrupt as signal_:
        print(f"\nStopped ({signal_ or 'Ctrl-C'}); everything is cleaned up.")
        return 130
    print(f"\n{'All of it holds' if good else 'Not all of it holds'}; {time.monotonic() - began:.0f} s. Everything is cleaned up.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
