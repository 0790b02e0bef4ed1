//! `rte_eal_init` for a caller that speaks the command line of DPDK 19.11.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

static INITIALISED: AtomicBool = AtomicBool::new(false);

mod original {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        pub(super) fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    }
}

/// Whether [`rte_eal_init`] has succeeded in this process, so that other functions of DPDK may be called.
pub fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Acquire)
}

/// Initialises the EAL after giving each argument its name of DPDK 22.11.
///
/// # Safety
/// `argv` points to `argc` C strings.
pub unsafe fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    let arguments = (0..count).map(|index| {
        // SAFETY: the caller vouches for `argc` pointers to C strings.
        unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned()
    });
    let translated: Vec<*mut c_char> = translate(arguments.collect())
        .into_iter()
        .filter_map(|argument| CString::new(argument).ok())
        // The EAL keeps pointers to its arguments. It can be initialised once a process, so this leaks once.
        .map(CString::into_raw)
        .collect();
    let count = c_int::try_from(translated.len()).unwrap_or(c_int::MAX);
    let argv = Box::leak(translated.into_boxed_slice());
    // SAFETY: `argv` are `count` C strings that live for ever.
    let answer = unsafe { original::rte_eal_init(count, argv.as_mut_ptr()) };
    INITIALISED.store(answer >= 0, Ordering::Release);
    answer
}

/// Arguments of 19.11 in the words of 22.11.
///
/// capsule takes a PCI address with a hexadecimal digit for a virtual device; here it becomes an allowed PCI device. Where the core list is
/// given twice, the later one counts: the first is capsule's, which always names the main core only, and the EAL refuses a second one.
fn translate(arguments: Vec<String>) -> Vec<String> {
    let mut translated: Vec<String> = Vec::with_capacity(arguments.len());
    let mut core_list = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let name = match argument.as_str() {
            "--master-lcore" => "--main-lcore",
            "-w" | "--pci-whitelist" => "-a",
            "-b" | "--pci-blacklist" => "-b",
            "--vdev" => "--vdev",
            "-l" => "-l",
            _ => {
                translated.push(argument);
                continue;
            }
        };
        let Some(value) = arguments.next() else {
            translated.push(name.to_owned());
            break;
        };
        if name == "-l" {
            core_list = Some(value);
            continue;
        }
        let name = if name == "--vdev" && is_pci(&value) { "-a" } else { name };
        translated.extend([name.to_owned(), value]);
    }
    if let Some(cores) = core_list {
        translated.extend(["-l".to_owned(), cores]);
    }
    translated
}

/// Whether a device begins with a PCI address in full, such as `0000:3b:00.0`.
fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or_default();
    let mut groups = address.split([':', '.']);
    let hexadecimal = |group: Option<&str>, len: usize| {
        group.is_some_and(|group| group.len() == len && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    [4, 2, 2, 1].into_iter().all(|len| hexadecimal(groups.next(), len)) && groups.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        translate(line.split(' ').map(str::to_owned).collect()).join(" ")
    }

    #[test]
    fn old_names_become_new_ones() {
        assert_eq!(
            translated("engine --master-lcore 0 -w 0000:02:00.0 --pci-whitelist 0000:02:00.1 --no-pci"),
            "engine --main-lcore 0 -a 0000:02:00.0 -a 0000:02:00.1 --no-pci"
        );
    }

    #[test]
    fn a_pci_address_is_never_a_virtual_device() {
        assert_eq!(translated("engine --vdev 0000:3b:00.0,x=1"), "engine -a 0000:3b:00.0,x=1");
        assert_eq!(translated("engine --vdev net_tap0,iface=x"), "engine --vdev net_tap0,iface=x");
    }

    #[test]
    fn the_later_core_list_counts() {
        assert_eq!(translated("engine -l 0 --in-memory -l 0,1"), "engine --in-memory -l 0,1");
    }

    #[test]
    fn a_name_without_a_value_is_left_to_the_eal() {
        assert_eq!(translated("engine -l"), "engine -l");
    }
}
