"""A virtual machine with Debian's kernel and this host's files, for what needs a PCI device: the engine on a NIC, scripts/bind.

The machine is emulated in software (qemu's tcg), so that it runs where nested virtualisation does not. It sees the host's `/` read-only, and the
world's directory, under the same path, to write in. What it is asked to do comes over a serial line, a number of a script a line; it answers with
the number and the script's status. The kernel is Debian's package, unpacked below target/ and never installed.
"""

import os
import pathlib
import re
import shutil
import socket
import tempfile

from .processes import Failed, run
from .wait import until
from .world import REPOSITORY

MEMORY_MIB = 1536
MODULES = """virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci netfs fscache 9pnet 9pnet_virtio 9p
    uio uio_pci_generic virtio_net vfio-pci""".split()
CACHE = REPOSITORY / "target/vm"

# busybox runs it as the first process. DIRECTORY is the world's.
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
    insmod /modules/$module || echo "guest: cannot load $module"
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro root /host || { echo "guest: cannot mount /"; poweroff -f; }
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none stage /host/DIRECTORY || { echo "guest: cannot mount the stage"; poweroff -f; }
mount -t proc proc /host/proc
mount -t sysfs sysfs /host/sys
mount -t devtmpfs devtmpfs /host/dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /host/run
mount -t tmpfs tmpfs /host/dev/shm
mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /host/dev/hugepages
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo ready >&3
while read -r number <&3; do
    chroot /host /bin/bash DIRECTORY/guest-$number.sh </dev/null >/host/DIRECTORY/guest-$number.out 2>&1
    echo "$number $?" >&3
done
"""


class Guest:
    """A running machine. `nics` are qemu's options of its NICs; it has no other network."""

    def __init__(self, world, nics, processors=2, seconds=180):
        self.world, self.number = world, 0
        kernel, modules = unpacked()
        image = world.directory / "initramfs"
        image.write_bytes(initramfs(modules, str(world.directory)))
        line = world.directory / "guest.socket"
        # fmt: off
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg,thread=multi",
                   "-machine", "q35", "-cpu", "max", "-smp", processors, "-m", MEMORY_MIB,
                   "-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off hugepages=200",
                   "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
                   "-chardev", f"socket,id=line,path={line},server=on,wait=off", "-serial", "chardev:line",
                   "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
                   "-virtfs", f"local,path={world.directory},mount_tag=stage,security_model=none,multidevs=remap", *nics]
        # fmt: on
        self.child = world.child("qemu", command)
        self.line = socket.socket(socket.AF_UNIX)
        world.stack.callback(self.line.close)
        self.waiting = b""
        self.watch("qemu to start", lambda: line.exists() and self.line.connect_ex(str(line)) == 0, 20)
        self.answer("ready", seconds)

    @property
    def console(self):
        return self.world.directory / "console.log"

    def watch(self, what, condition, seconds):
        """Waits for a condition; should it not come true, or the machine end, the failure shows the console's last lines."""
        try:
            until(what, lambda: not self.child.is_running() or condition(), seconds)
        except AssertionError as error:
            raise Failed(f"{error}; {self.last_words()}") from None
        if not self.child.is_running():
            raise Failed(f"the virtual machine ended while we waited for {what}: {self.child.tail()}; {self.last_words()}")

    def last_words(self):
        lines = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
        return "the machine's console:\n" + "\n".join(f"    {line}" for line in lines[-25:])

    def answer(self, begins, seconds):
        """The next line, which must begin so."""

        def whole():
            self.line.settimeout(0.05)
            try:
                self.waiting += self.line.recv(4096)
            except TimeoutError:
                pass
            return b"\n" in self.waiting

        self.watch(f"the virtual machine to answer {begins!r}", whole, seconds)
        line, _, self.waiting = self.waiting.partition(b"\n")
        text = line.decode(errors="replace").strip()
        if not text.startswith(begins):
            raise Failed(f"the virtual machine answered {text!r} and not {begins!r}; {self.last_words()}")
        return text[len(begins) :].strip()

    def run(self, script, seconds=60, check=True):
        """Runs a script of bash in the machine. Gives its status and output; with `check`, the output, and a status but 0 fails."""
        self.number += 1
        stem = self.world.directory / f"guest-{self.number}"
        stem.with_suffix(".sh").write_text(f"export PATH={os.environ['PATH']} TMPDIR={self.world.directory}\n{script}\n")
        self.line.sendall(f"{self.number}\n".encode())
        status = int(self.answer(f"{self.number} ", seconds))
        output = stem.with_suffix(".out").read_text(errors="replace")
        if not check:
            return status, output
        if status != 0:
            raise Failed(f"in the virtual machine, `{script}`: exit {status}: {output.strip()}; {self.last_words()}")
        return output


def unpacked():
    """The kernel's image and the directory of its modules, fetched from Debian's archive once."""
    package = package_name()
    place = CACHE / package
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Whoever unpacks at the same time makes the same, and one of us is first.
        work = pathlib.Path(tempfile.mkdtemp(prefix="unpack-", dir=CACHE))
        try:
            print(f"  fetching {package} from Debian, to look into, not to install", flush=True)
            if run("apt-get", "download", package, cwd=work, seconds=300, check=False).returncode != 0:
                # Debian's archive keeps a version only as long as its lists name it, and ours are old.
                run("apt-get", "update", "-qq", seconds=300)
                run("apt-get", "download", package, cwd=work, seconds=300)
            run("dpkg-deb", "--extract", next(work.glob("*.deb")), work / "files", seconds=120)
            if not place.exists():
                (work / "files").rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return next(place.glob("boot/vmlinuz-*")), next(place.glob("lib/modules/*"))


def package_name():
    """What Debian's linux-image-amd64 stands for today; what was fetched before, where apt knows nothing."""

    def depends():
        return re.search(r"Depends: (linux-image-\S+)", run("apt-cache", "depends", "linux-image-amd64", check=False).stdout)

    found = depends()
    if not found:
        have = sorted(CACHE.glob("linux-image-*"))
        if have:
            return have[-1].name
        run("apt-get", "update", "-qq", seconds=300)
        found = depends()
    if not found:
        raise Failed("apt knows no package linux-image-amd64; run `apt-get update`")
    return found[1]


def initramfs(modules, directory):
    """An archive with busybox, the modules with all that they depend on, and what to do with them."""
    files = {path.name.replace("-", "_"): path for path in modules.rglob("*.ko")}
    built_in = {pathlib.Path(line).name.replace("-", "_") for line in (modules / "modules.builtin").read_text().splitlines()}
    order = []

    def need(module):
        name = module.replace("-", "_") + ".ko"
        if name in built_in or name in order:
            return
        if name not in files:
            raise Failed(f"Debian's kernel has no module {module}")
        depends = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for other in filter(None, depends[1].decode().split(",")) if depends else ():
            need(other)
        order.append(name)

    for module in MODULES:
        need(module)
    parts = [entry("bin", 0o040755), entry("bin/busybox", 0o100755, pathlib.Path("/bin/busybox").read_bytes()), entry("modules", 0o040755)]
    parts += [entry(f"modules/{name}", 0o100644, files[name].read_bytes()) for name in order]
    parts.append(entry("modules/order", 0o100644, "\n".join(order).encode() + b"\n"))
    parts.append(entry("init", 0o100755, INIT.replace("DIRECTORY", directory).encode()))
    return b"".join(parts) + entry("TRAILER!!!", 0)


def entry(name, mode, data=b""):
    """A file of a cpio archive of the newc kind (the kernel's driver-api/early-userspace/buffer-format.rst)."""
    name = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
    return pad(head) + pad(data)


def pad(data):
    return data + bytes(-len(data) % 4)
