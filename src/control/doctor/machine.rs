//! The machine itself: hugepages, cores, clock, memory.

use super::{Finding, Host};
use crate::control::config::{CORES_MAX, Configuration, Device, Hugepages, SegmentationOffload};
use crate::lane::Poll;
use crate::nic;

const MIB_KIB: u64 = 1024;

/// Everything about it.
pub(super) fn examine(host: &Host, configuration: Option<&Configuration>) -> Vec<Finding> {
    let mut findings = vec![hugepages(host, configuration)];
    if let Some(configuration) = configuration {
        findings.extend(cores(host, configuration));
    }
    findings.push(iommu(host));
    findings.extend(clock(host));
    findings.push(governor(host));
    findings.push(swap(host));
    findings.push(stolen(host));
    findings
}

fn hugepages(host: &Host, configuration: Option<&Configuration>) -> Finding {
    const ABOUT: &str = "hugepages";
    let directory = "/sys/kernel/mm/hugepages";
    let (mut free, mut all, mut shown) = (0, 0, Vec::new());
    for size in host.list(directory) {
        let Some(kib) = size.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB")?.parse::<u64>().ok())
        else {
            continue;
        };
        let count = |name: &str| {
            let number = host.number(&format!("{directory}/{size}/{name}")).unwrap_or(0);
            u64::try_from(number).unwrap_or(0).saturating_mul(kib) / MIB_KIB
        };
        (free, all) = (free + count("free_hugepages"), all + count("nr_hugepages"));
        if count("nr_hugepages") > 0 {
            shown.push(format!("{} MiB in pages of {} MiB", count("nr_hugepages"), kib / MIB_KIB));
        }
    }
    // A tap cuts no segments, so its packet buffers are short, unless a port carries jumbo frames.
    let has_long = |one: &Configuration| {
        let may_cut = one.engine.segmentation_offload != SegmentationOffload::Never;
        one.ports.iter().any(|port| may_cut && !is_tap(&port.device) || port.mtu > nic::ETHERNET_MTU)
    };
    let is_long = configuration.is_some_and(has_long);
    let buffers = configuration.map_or(16_384, |one| one.engine.buffers);
    let needed = u64::try_from(nic::memory_mib(buffers, is_long)).unwrap_or(u64::MAX);
    let remedy = format!(
        "echo {} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (with an engine stopped, or after a boot: memory must be in one piece)",
        (all - free).saturating_add(needed).div_ceil(2)
    );
    let what = match shown.as_slice() {
        [] => format!("none are reserved; an engine wants up to {needed} MiB"),
        _ => format!("{}, {free} MiB of them free; an engine wants up to {needed} MiB", shown.join(", ")),
    };
    let must = configuration.is_some_and(|one| one.engine.hugepages == Hugepages::Require);
    match (free >= needed, must) {
        (true, _) => Finding::good(ABOUT, what),
        (false, true) => Finding::bad(ABOUT, what, remedy),
        (false, false) => Finding::weak(ABOUT, what, remedy),
    }
}

fn is_tap(device: &Device) -> bool {
    matches!(device, Device::Virtual(device) if device.starts_with("net_tap"))
}

fn cores(host: &Host, configuration: &Configuration) -> Vec<Finding> {
    const ABOUT: &str = "cores";
    let engine = &configuration.engine;
    let mut findings = Vec::new();
    let isolated = host.cores("/sys/devices/system/cpu/isolated", CORES_MAX);
    let shared: Vec<_> = engine.cores.iter().filter(|core| !isolated.contains(core)).collect();
    let list = |cores: &[&usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    findings.push(match (engine.poll, shared.as_slice()) {
        (_, []) => Finding::good(ABOUT, "the kernel keeps away from the lanes' cores (isolcpus)"),
        (Poll::Adaptive, _) => Finding::good(ABOUT, "lanes sleep when there is nothing to do, and share their cores with the kernel (poll = \"adaptive\")"),
        (Poll::Busy, shared) => Finding::weak(
            ABOUT,
            format!("lanes on cores {} share them with whatever the kernel puts there", list(shared)),
            format!("add isolcpus={0} nohz_full={0} rcu_nocbs={0} to the kernel's command line (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub) and boot", list(&engine.cores.iter().collect::<Vec<_>>())),
        ),
    });
    for (index, core) in engine.cores.iter().enumerate() {
        let siblings =
            host.cores(&format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"), CORES_MAX);
        let others = engine.cores.get(index + 1..).unwrap_or_default();
        if let Some(other) = others.iter().find(|other| siblings.contains(other)) {
            let what = format!("lanes on cores {core} and {other} are two threads of one core and share what it does");
            findings.push(Finding::weak(ABOUT, what, format!("give one of them another core in engine.cores: `lscpu --extended` shows which are apart; {core} and {other} are not")));
        }
    }
    findings
}

fn iommu(host: &Host) -> Finding {
    const ABOUT: &str = "IOMMU";
    match host.list("/sys/class/iommu").as_slice() {
        [] => Finding::weak(
            ABOUT,
            "there is none, or it is off: a NIC under uio_pci_generic or vfio without it can write anywhere in memory. Taps and virtio-user need none",
            "switch VT-d or AMD-Vi on in the firmware and add intel_iommu=on iommu=pt (or amd_iommu=on) to the kernel's command line",
        ),
        some => Finding::good(ABOUT, format!("on: {}", some.join(", "))),
    }
}

fn clock(host: &Host) -> Vec<Finding> {
    const ABOUT: &str = "clock";
    let mut findings = Vec::new();
    let source = host.read("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default();
    findings.push(match source.as_str() {
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter" => Finding::good(ABOUT, format!("{source}, read without a system call")),
        "" => Finding::weak(ABOUT, "what the kernel takes the time from cannot be read", "mount sysfs at /sys"),
        slow => Finding::weak(ABOUT, format!("{slow}, which takes a system call or a slow device for each reading; a lane reads it once a breath"), "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, if `available_clocksource` beside it has tsc"),
    });
    // What timesyncd and chrony leave behind when the clock has been set: systemd-timesyncd(8), chronyd(8). Ticket keys go by the wall clock, within 60 s.
    let is_kept =
        ["/run/systemd/timesync/synchronized", "/run/chrony/chronyd.pid", "/run/ntpd.pid", "/run/openntpd.sock"]
            .iter()
            .find(|path| host.has(path));
    findings.push(match is_kept {
        Some(path) => Finding::good(ABOUT, format!("kept right ({path})")),
        None => Finding::weak(ABOUT, "nobody is seen to keep it right: an engine whose clock is off by more than 60 s seals no tickets under keys that others make", "apt install systemd-timesyncd, or chrony (a virtual machine may have it from its host: `timedatectl`)"),
    });
    findings
}

fn governor(host: &Host) -> Finding {
    const ABOUT: &str = "frequency";
    match host.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").as_deref() {
        None => Finding::good(ABOUT, "the kernel does not change it here"),
        Some("performance") => Finding::good(ABOUT, "governor performance"),
        Some(other) => Finding::weak(
            ABOUT,
            format!("governor {other}: cores that have slept begin slowly"),
            "cpupower frequency-set --governor performance (of Debian's linux-cpupower)",
        ),
    }
}

fn swap(host: &Host) -> Finding {
    const ABOUT: &str = "swap";
    let swaps = host.read("/proc/swaps").unwrap_or_default();
    let devices: Vec<_> = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    if devices.is_empty() {
        return Finding::good(ABOUT, "none: no key can get there");
    }
    // The keys that seal tickets are locked in memory (K6). What rustls keeps is not, nor is a tmpfs.
    let what = format!(
        "{}: ticket keys are locked in memory, but sessions' secrets, certificates' keys and files on a tmpfs may be swapped out",
        devices.join(", ")
    );
    Finding::weak(
        ABOUT,
        what,
        "swapoff --all, and take it out of /etc/fstab; or encrypt it (crypttab with a random key)",
    )
}

/// Time that the hypervisor gave to others, since the machine was started.
fn stolen(host: &Host) -> Finding {
    const ABOUT: &str = "hypervisor";
    let stat = host.read("/proc/stat").unwrap_or_default();
    let times: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|time| time.parse().ok())
        .collect();
    // proc(5): user nice system idle iowait irq softirq steal.
    let all: u64 = times.iter().take(8).sum();
    let per_mille = times.get(7).copied().unwrap_or(0).saturating_mul(1000).checked_div(all).unwrap_or(0);
    let what = format!("{}.{} % of the time was taken by others on this host", per_mille / 10, per_mille % 10);
    if per_mille < 10 {
        return Finding::good(ABOUT, what);
    }
    Finding::weak(ABOUT, what, "pin the virtual machine's cores on its host, or take one with cores of its own")
}
