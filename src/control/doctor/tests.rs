//! Machines that are not there, and what is said of them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A machine with these files below its root.
fn host(files: &[(&str, &str)]) -> (TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let host = Host::at(directory.path());
    (directory, host)
}

/// A configuration with a port on `device`, lanes on cores 0 and 1 and, if there is one, `engine` in `[engine]`.
fn configuration(device: &str, engine: &str) -> Configuration {
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["shop.example".into()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.path().join("shop.pem"), certificate.pem()).unwrap();
    fs::write(directory.path().join("shop.key"), key.serialize_pem()).unwrap();
    let text = format!(
        r#"
        [engine]
        name = "e"
        cluster = "c"
        cores = [0, 1]
        control_core = 2
        {engine}
        [[port]]
        name = "front"
        device = "{device}"
        addresses = ["198.18.0.2/16"]
        [[virtual_service]]
        name = "shop"
        addresses = ["198.18.0.10:443"]
        pool = "web"
        certificates = [{{ certificate = "shop.pem", key = "shop.key" }}]
        [[pool]]
        name = "web"
        [[pool.server]]
        name = "a"
        address = "198.18.0.1:8000"
        "#
    );
    let machine = Machine { cores: vec![0, 1, 2], memory: u64::MAX, now: crate::base::UnixTime(0) };
    let file = directory.path().join("engine.toml");
    config::parse(&text, &file, &machine).unwrap_or_else(|errors| panic!("{errors}"))
}

/// What is said of one thing, and how it is.
fn said(findings: &[Finding], about: &str) -> Vec<(Verdict, String)> {
    let those = findings.iter().filter(|finding| finding.about == about);
    those.map(|finding| (finding.verdict, finding.to_string())).collect()
}

#[track_caller]
fn requires(findings: &[Finding], about: &str, verdict: Verdict, words: &[&str]) {
    let said = said(findings, about);
    let fits = |one: &&(Verdict, String)| one.0 == verdict && words.iter().all(|word| one.1.contains(word));
    assert!(said.iter().any(|one| fits(&one)), "{said:?}");
}

const HUGE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

#[test]
fn hugepages_are_counted_against_what_the_engine_wants_and_the_command_says_how_many() {
    let pages =
        |free: &str| host(&[(&format!("{HUGE}/nr_hugepages"), "512"), (&format!("{HUGE}/free_hugepages"), free)]);
    let tap = configuration("net_tap0,iface=sealane0", "");
    let (_kept, enough) = pages("512");
    requires(
        &examine(&enough, Some(&tap)),
        "hugepages",
        Verdict::Good,
        &["1024 MiB in pages of 2 MiB, 1024 MiB of them free", "up to 104 MiB"],
    );
    let (_kept, few) = pages("12");
    // 500 are in use: as many and what is wanted.
    requires(&examine(&few, Some(&tap)), "hugepages", Verdict::Weak, &["24 MiB of them free", "echo 552 > "]);
    let demanding = configuration("net_tap0,iface=sealane0", "hugepages = \"require\"");
    requires(&examine(&few, Some(&demanding)), "hugepages", Verdict::Bad, &["echo 552 > "]);
    let (_kept, none) = host(&[]);
    requires(&examine(&none, Some(&tap)), "hugepages", Verdict::Weak, &["none are reserved"]);
}

#[test]
fn lanes_that_poll_busily_should_have_cores_of_their_own() {
    let busy = configuration("net_tap0", "poll = \"busy\"");
    let (_kept, shared) = host(&[("/sys/devices/system/cpu/isolated", "1\n")]);
    requires(&examine(&shared, Some(&busy)), "cores", Verdict::Weak, &["cores 0 share", "isolcpus=0,1 nohz_full=0,1"]);
    let (_kept, apart) = host(&[("/sys/devices/system/cpu/isolated", "0-1")]);
    requires(&examine(&apart, Some(&busy)), "cores", Verdict::Good, &["keeps away"]);
    let (_kept, threads) = host(&[
        ("/sys/devices/system/cpu/isolated", "0-1"),
        ("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1"),
        ("/sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1"),
    ]);
    requires(&examine(&threads, Some(&busy)), "cores", Verdict::Weak, &["cores 0 and 1 are two threads of one core"]);
    let lazy = configuration("net_tap0", "poll = \"adaptive\"");
    requires(&examine(&shared, Some(&lazy)), "cores", Verdict::Good, &["adaptive"]);
}

/// A NIC at 0000:3b:00.0 with this driver and vendor.
fn nic(driver: Option<&str>, vendor: &str, more: &[(&str, &str)]) -> (TempDir, Host) {
    let device = "/sys/bus/pci/devices/0000:3b:00.0";
    let (vendor_file, device_file, class, node) = (
        format!("{device}/vendor"),
        format!("{device}/device"),
        format!("{device}/class"),
        format!("{device}/numa_node"),
    );
    let mut files = vec![(vendor_file.as_str(), vendor), (&device_file, "0x1593"), (&class, "0x020000"), (&node, "1")];
    files.extend([("/sys/devices/system/node/node1/cpulist", "0-3"), ("/sys/class/iommu/dmar0/x", "")]);
    files.extend(more);
    let (kept, host) = host(&files);
    if let Some(driver) = driver {
        let link = kept.path().join(format!("{device}/driver").trim_start_matches('/'));
        std::os::unix::fs::symlink(PathBuf::from(format!("/sys/bus/pci/drivers/{driver}")), link).unwrap();
    }
    (kept, host)
}

#[test]
fn a_nic_must_be_with_a_driver_that_dpdk_can_use() {
    let wanted = configuration("0000:3b:00.0", "");
    let look = |driver, vendor, more: &[(&str, &str)]| {
        let (_kept, host) = nic(driver, vendor, more);
        examine(&host, Some(&wanted))
    };
    const INTEL: &str = "0x8086";
    requires(&look(Some("vfio-pci"), INTEL, &[]), "port", Verdict::Good, &["vfio-pci"]);
    requires(
        &look(Some("vfio-pci"), INTEL, &[("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")]),
        "port",
        Verdict::Weak,
        &["without an IOMMU"],
    );
    requires(
        &look(Some("uio_pci_generic"), INTEL, &[]),
        "port",
        Verdict::Weak,
        &["scripts/bind 0000:3b:00.0 --driver vfio-pci"],
    );
    let kernels = [("/sys/bus/pci/devices/0000:3b:00.0/net/eth1/mtu", "1500")];
    requires(
        &look(Some("ice"), INTEL, &kernels),
        "port",
        Verdict::Bad,
        &["the kernel's ice (eth1)", "scripts/bind 0000:3b:00.0"],
    );
    requires(&look(None, INTEL, &[]), "port", Verdict::Bad, &["no driver"]);
    requires(&look(Some("mlx5_core"), "0x15b3", &[]), "port", Verdict::Good, &["shares it with DPDK"]);
    requires(
        &look(Some("vfio-pci"), "0x15b3", &[]),
        "port",
        Verdict::Bad,
        &["must stay with mlx5_core", "driverctl unset-override"],
    );
    let (_kept, none) = host(&[]);
    requires(&examine(&none, Some(&wanted)), "port", Verdict::Bad, &["there is no PCI device 0000:3b:00.0"]);
}

#[test]
fn lanes_should_be_on_the_nics_node() {
    let wanted = configuration("0000:3b:00.0", "");
    let (_kept, near) = nic(Some("vfio-pci"), "0x8086", &[]);
    requires(&examine(&near, Some(&wanted)), "port", Verdict::Good, &["on NUMA node 1, where all lanes are"]);
    let (_kept, far) = nic(Some("vfio-pci"), "0x8086", &[("/sys/devices/system/node/node1/cpulist", "1-3")]);
    requires(&examine(&far, Some(&wanted)), "port", Verdict::Weak, &["lanes on cores 0 are not", "1-3"]);
}

#[test]
fn what_is_no_network_controller_is_bad() {
    let (_kept, disk) = nic(Some("vfio-pci"), "0x8086", &[("/sys/bus/pci/devices/0000:3b:00.0/class", "0x010802")]);
    requires(
        &examine(&disk, Some(&configuration("0000:3b:00.0", ""))),
        "port",
        Verdict::Bad,
        &["no network controller"],
    );
}

#[test]
fn a_tap_needs_its_device() {
    let wanted = configuration("net_tap0,iface=sealane0", "");
    let (_kept, with) = host(&[("/dev/net/tun", "")]);
    requires(&examine(&with, Some(&wanted)), "port", Verdict::Good, &["a tap"]);
    let (_kept, without) = host(&[]);
    requires(&examine(&without, Some(&wanted)), "port", Verdict::Bad, &["modprobe tun"]);
}

#[test]
fn clocks_swap_and_the_hypervisor_are_looked_at() {
    let (_kept, bare) = host(&[
        ("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"),
        ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "acpi_pm\n"),
        ("/proc/stat", "cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1 2 3\n"),
        ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
    ]);
    let findings = examine(&bare, None);
    requires(&findings, "swap", Verdict::Weak, &["/dev/sda2", "swapoff"]);
    requires(&findings, "clock", Verdict::Weak, &["acpi_pm"]);
    requires(&findings, "clock", Verdict::Weak, &["nobody is seen to keep it right"]);
    requires(&findings, "hypervisor", Verdict::Weak, &["10.0 %"]);
    requires(&findings, "frequency", Verdict::Weak, &["powersave"]);
    requires(&findings, "IOMMU", Verdict::Weak, &["intel_iommu=on"]);
    let (_kept, well) = host(&[
        ("/proc/swaps", "Filename Type Size Used Priority\n"),
        ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("/run/systemd/timesync/synchronized", ""),
        ("/proc/stat", "cpu  100 0 100 7000 0 0 0 1 0 0\n"),
        ("/sys/class/iommu/dmar0/name", ""),
    ]);
    for finding in examine(&well, None).iter().filter(|finding| !["crypto", "hugepages"].contains(&finding.about)) {
        assert_eq!(finding.verdict, Verdict::Good, "{finding}");
    }
}

#[test]
fn a_processor_without_aes_is_weak_and_told_what_a_virtual_machine_needs() {
    let (_kept, old) = host(&[("/proc/cpuinfo", "model name\t: QEMU Virtual CPU\nflags\t\t: fpu sse2\n")]);
    requires(&examine(&old, None), "crypto", Verdict::Weak, &["QEMU Virtual CPU has no aes", "-cpu host"]);
    let (_kept, new) = host(&[("/proc/cpuinfo", "model name\t: Xeon\nflags\t\t: aes pclmulqdq avx2 bmi2 adx vaes\n")]);
    requires(&examine(&new, None), "crypto", Verdict::Good, &["Xeon", "vaes"]);
}

#[test]
fn ticket_keys_that_are_kept_nowhere_or_are_wrong_are_told() {
    let (_kept, host) = host(&[]);
    let with = |keys: &str| {
        let mut configuration = configuration("net_tap0", "");
        configuration.ticket_keys.source = match keys {
            "" => config::KeySource::Own(None),
            path => config::KeySource::File(PathBuf::from(path)),
        };
        configuration
    };
    requires(&examine(&host, Some(&with(""))), "ticket keys", Verdict::Weak, &["kept nowhere"]);
    requires(&examine(&host, Some(&with("/nowhere/keys.ring"))), "ticket keys", Verdict::Bad, &["/nowhere/keys.ring"]);
}

#[test]
fn odd_files_of_a_machine_make_no_panic() {
    for text in ["", "-", "0-", "a-b", "0-18446744073709551615", "5-1", "\u{0}", "9,,9", "cpu", "-1"] {
        let paths = [
            "/sys/devices/system/cpu/isolated",
            "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
            "/sys/devices/system/node/node1/cpulist",
            "/proc/stat",
            "/proc/swaps",
            "/proc/mounts",
            "/proc/cpuinfo",
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            "/sys/kernel/mm/hugepages/hugepages-kB/nr_hugepages",
        ];
        let (_kept, host) = nic(None, text, &paths.map(|path| (path, text)));
        assert!(examine(&host, Some(&configuration("0000:3b:00.0", "poll = \"busy\""))).len() > 8);
    }
}

#[test]
fn what_is_measured_is_more_than_nothing() {
    let findings = crypto::measure();
    requires(&findings, "crypto", Verdict::Good, &["signatures/s"]);
    requires(&findings, "crypto", Verdict::Good, &["key shares/s"]);
    assert!(findings.iter().any(|finding| finding.what.starts_with("AES-128-GCM") && finding.what.contains("GB/s")));
}
