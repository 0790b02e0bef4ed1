//! Which driver of the kernel a PCI device has, as sysfs tells: DPDK can use a device only through some of them.

use std::fs;
use std::path::Path;

/// Who has a PCI device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// `vfio-pci`: the device sees addresses that the IOMMU translates.
    Vfio,
    /// `uio_pci_generic` or `igb_uio`: it sees physical addresses.
    Uio,
    /// A driver of the kernel beside which DPDK works, as with mlx5.
    Shared(String),
    /// A driver of the kernel that keeps it.
    Kernel(String),
    /// Nobody.
    Nobody,
    /// There is no such device.
    Missing,
}

impl Holder {
    /// Of the device at a PCI address in full.
    pub(super) fn of(address: &str) -> Self {
        Self::below(Path::new("/sys/bus/pci/devices"), address)
    }

    fn below(devices: &Path, address: &str) -> Self {
        let device = devices.join(address);
        if !device.exists() {
            return Self::Missing;
        }
        let driver = fs::read_link(device.join("driver")).ok();
        let name = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        match name {
            None => Self::Nobody,
            Some(name) => match name.as_str() {
                "vfio-pci" => Self::Vfio,
                "uio_pci_generic" | "igb_uio" => Self::Uio,
                "mlx4_core" | "mlx5_core" | "mana" => Self::Shared(name),
                _ => Self::Kernel(name),
            },
        }
    }

    /// What the EAL must be told about how its devices address memory, with devices of these holders. It would find out by itself, but for a device
    /// under uio beside which something else prefers virtual addresses: then the NIC is given addresses that mean nothing to it.
    pub(super) fn iova_mode<'a>(mut holders: impl Iterator<Item = &'a Self>) -> Option<&'static str> {
        holders.any(|holder| *holder == Self::Uio).then_some("--iova-mode=pa")
    }

    /// Why DPDK cannot use the device, if so.
    pub(super) fn objection(&self) -> Option<String> {
        match self {
            Self::Vfio | Self::Uio | Self::Shared(_) => None,
            Self::Kernel(driver) => Some(format!("the kernel's driver {driver} has it")),
            Self::Nobody => Some("no driver has it".to_owned()),
            Self::Missing => Some("this machine has no such PCI device".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_device_is_held_by_whom_sysfs_says() {
        let place = std::env::temp_dir().join(format!("sealane-pci-{}", std::process::id()));
        let devices = place.join("devices");
        let cases = [
            ("0000:00:01.0", Some("vfio-pci"), Holder::Vfio),
            ("0000:00:02.0", Some("uio_pci_generic"), Holder::Uio),
            ("0000:00:03.0", Some("mlx5_core"), Holder::Shared("mlx5_core".into())),
            ("0000:00:04.0", Some("ixgbe"), Holder::Kernel("ixgbe".into())),
            ("0000:00:05.0", None, Holder::Nobody),
        ];
        for (address, driver, holder) in cases {
            fs::create_dir_all(devices.join(address)).unwrap();
            if let Some(driver) = driver {
                symlink(format!("../../drivers/{driver}"), devices.join(address).join("driver")).unwrap();
            }
            let found = Holder::below(&devices, address);
            assert_eq!(found, holder);
            assert_eq!(found.objection().is_none(), address < "0000:00:04.0", "{found:?}");
        }
        assert_eq!(Holder::below(&devices, "0000:00:06.0"), Holder::Missing);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_device_under_uio_has_the_eal_use_physical_addresses() {
        assert_eq!(Holder::iova_mode([Holder::Vfio, Holder::Uio].iter()), Some("--iova-mode=pa"));
        assert_eq!(Holder::iova_mode([Holder::Vfio, Holder::Shared("mlx5_core".into())].iter()), None);
        assert_eq!(Holder::iova_mode([].iter()), None);
    }
}
