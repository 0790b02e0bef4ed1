//! Where the engine's memory comes from: hugepages, or ordinary pages where the device can live with them.

use std::fs;
use std::path::Path;

use super::settings::{Device, Error, Hugepages};

/// Memory for the EAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Anonymous hugepages, as many as turn out to be needed.
    Huge,
    /// So many MiB of ordinary pages.
    Ordinary(usize),
}

/// Free hugepages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pages: usize,
    page_kib: usize,
}

/// What the kernel has free, of all sizes. A kernel without hugepages has none.
pub(super) fn free() -> Vec<Free> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    entries.filter_map(Result::ok).filter_map(|entry| free_of(&entry.path())).collect()
}

fn free_of(directory: &Path) -> Option<Free> {
    let name = directory.file_name()?.to_str()?;
    let page_kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let pages = fs::read_to_string(directory.join("free_hugepages")).ok()?.trim().parse().ok()?;
    Some(Free { pages, page_kib })
}

/// Decides, and says so when it falls back.
pub(super) fn choose(wanted: Hugepages, free: &[Free], needed_mib: usize, devices: &[Device]) -> Result<Memory, Error> {
    let free_mib = free.iter().map(|free| free.pages.saturating_mul(free.page_kib) / 1024).sum();
    let demanding = devices.iter().find(|device| device.needs_hugepages());
    if wanted != Hugepages::Never && free_mib >= needed_mib {
        return Ok(Memory::Huge);
    }
    match (wanted, demanding) {
        (Hugepages::Require, _) => Err(Error::TooFewHugepages { needed_mib, free_mib, pages: needed_mib.div_ceil(2) }),
        (Hugepages::Never, Some(device)) => Err(Error::HugepagesForbidden { device: device.to_string() }),
        (Hugepages::Auto, Some(device)) => Err(Error::DeviceNeedsHugepages {
            device: device.to_string(),
            needed_mib,
            free_mib,
            pages: needed_mib.div_ceil(2),
        }),
        (Hugepages::Never, None) => Ok(Memory::Ordinary(needed_mib)),
        (Hugepages::Auto, None) => {
            tracing::warn!(
                needed_mib,
                free_mib,
                "no free hugepages for the packet buffers: going on with ordinary pages, which is slower; `scripts/setup` reserves some"
            );
            Ok(Memory::Ordinary(needed_mib))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::memory_mib;

    const ENOUGH: &[Free] = &[Free { pages: 0, page_kib: 1_048_576 }, Free { pages: 512, page_kib: 2_048 }];
    const TOO_FEW: &[Free] = &[Free { pages: 3, page_kib: 2_048 }];

    fn devices(device: &str) -> Vec<Device> {
        vec![device.parse().unwrap()]
    }

    #[test]
    fn free_hugepages_are_used_unless_forbidden() {
        let tap = devices("net_tap0");
        assert_eq!(choose(Hugepages::Auto, ENOUGH, memory_mib(16_384, false), &tap).unwrap(), Memory::Huge);
        assert_eq!(choose(Hugepages::Require, ENOUGH, memory_mib(16_384, false), &tap).unwrap(), Memory::Huge);
        assert_eq!(choose(Hugepages::Never, ENOUGH, memory_mib(16_384, false), &tap).unwrap(), Memory::Ordinary(104));
    }

    #[test]
    fn a_software_device_falls_back_to_ordinary_pages() {
        assert_eq!(
            choose(Hugepages::Auto, TOO_FEW, memory_mib(16_384, false), &devices("net_tap0")).unwrap(),
            Memory::Ordinary(104)
        );
        assert_eq!(
            choose(Hugepages::Auto, &[], memory_mib(16_384, false), &devices("net_ring0")).unwrap(),
            Memory::Ordinary(104)
        );
    }

    #[test]
    fn required_hugepages_that_are_missing_are_an_error_with_the_command_that_mends_it() {
        let error = choose(Hugepages::Require, TOO_FEW, memory_mib(16_384, false), &devices("net_tap0")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "104 MiB of hugepages are required and 6 MiB are free; \
             reserve them with `echo 52 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`"
        );
    }

    #[test]
    fn a_device_that_shares_its_memory_insists_on_hugepages() {
        let nic = devices("0000:3b:00.0");
        assert!(matches!(choose(Hugepages::Auto, &[], 1_024, &nic), Err(Error::DeviceNeedsHugepages { .. })));
        assert!(matches!(choose(Hugepages::Never, ENOUGH, 1_024, &nic), Err(Error::HugepagesForbidden { .. })));
    }
}
