//! Memory for key bytes: pages of their own, locked against swapping, left out of core dumps, zeroized before they are given back (K6).

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

/// Vaults of this process that the kernel did not let be locked or kept out of core dumps.
static UNLOCKED: AtomicU64 = AtomicU64::new(0);

/// Bytes of a page, or a part of one where pages are larger.
const PAGE_SIZE: usize = 4096;

/// How many vaults there are now whose memory may be swapped out or dumped, because the kernel refused. See RLIMIT_MEMLOCK in setrlimit(2).
pub fn unlocked() -> u64 {
    UNLOCKED.load(Ordering::Relaxed)
}

/// Some bytes that are secret. All zeros at first.
///
/// Making and dropping one takes system calls; a lane keeps those that it has, see [`cleared`](Self::cleared).
pub struct Vault {
    memory: Memory,
    /// Where it is counted because it is not locked.
    counted: Option<&'static AtomicU64>,
}

enum Memory {
    Pages(MmapMut),
    /// No pages were to be had.
    Heap(Vec<u8>),
}

impl Vault {
    /// Room for `size` bytes.
    pub fn new(size: usize) -> Self {
        Self::locked_by(size, |pages| pages.lock(), &UNLOCKED)
    }

    fn locked_by(size: usize, lock: fn(&MmapMut) -> io::Result<()>, unlocked: &'static AtomicU64) -> Self {
        // Whole pages, which it has to itself anyway.
        let (memory, is_locked) = match MmapMut::map_anon(size.max(1).next_multiple_of(PAGE_SIZE)) {
            Ok(pages) => {
                // Both, whatever becomes of the other.
                let (locked, undumped) = (lock(&pages), pages.advise(Advice::DontDump));
                (Memory::Pages(pages), locked.is_ok() && undumped.is_ok())
            }
            Err(_) => (Memory::Heap(vec![0; size]), false),
        };
        let counted = (!is_locked).then_some(unlocked);
        if let Some(count) = counted {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self { memory, counted }
    }

    /// A vault of zeros for `size` bytes: this one if it has the room.
    #[must_use]
    pub fn cleared(mut self, size: usize) -> Self {
        if self.bytes().len() < size {
            return Self::new(size);
        }
        self.bytes_mut().zeroize();
        self
    }

    /// What is in it; at least as many bytes as were asked for.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        }
    }

    /// The same, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        if let Some(count) = self.counted {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

/// The flags of the pages at `address`, as /proc/self/smaps tells them.
#[cfg(test)]
pub(super) fn page_flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_here = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((Ok(from), Ok(to))) =
            range.map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)))
        {
            is_here = (from..to).contains(&address);
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && is_here
        {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("nothing is mapped at {address:#x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k6_a_vault_is_locked_and_left_out_of_core_dumps() {
        let vault = Vault::new(100);
        let flags = page_flags(vault.bytes().as_ptr().addr());
        assert!(flags.contains(&"lo".to_owned()) && flags.contains(&"dd".to_owned()), "{flags:?}");
        let heap = Box::new([0_u8; 64]);
        let flags = page_flags(heap.as_ptr().addr());
        assert!(!flags.contains(&"dd".to_owned()), "else this shows nothing: {flags:?}");
    }

    #[test]
    fn k6_what_cannot_be_locked_is_counted_and_used_all_the_same() {
        let forbidden = |_: &MmapMut| Err(io::Error::from_raw_os_error(nix::libc::ENOMEM));
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut vault = Vault::locked_by(32, forbidden, &COUNT);
        assert_eq!(COUNT.load(Ordering::Relaxed), 1);
        vault.bytes_mut()[31] = 7;
        assert_eq!(vault.bytes()[31], 7);
        assert!(page_flags(vault.bytes().as_ptr().addr()).contains(&"dd".to_owned()));
        drop(vault);
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn k6_a_vault_is_zeroed_before_it_is_used_again() {
        let mut vault = Vault::new(32);
        vault.bytes_mut().fill(7);
        let address = vault.bytes().as_ptr();
        let vault = vault.cleared(16);
        assert!(vault.bytes().as_ptr() == address && vault.bytes().iter().all(|byte| *byte == 0));
        assert!(vault.cleared(5000).bytes().len() >= 5000);
    }
}
