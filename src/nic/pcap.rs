//! Frames written to a capture file that tcpdump and Wireshark read: classic pcap with nanoseconds
//! (draft-ietf-opsawg-pcap).

use std::io::{self, Write};

use crate::base::Instant;
use crate::nic::FRAME_MAX;

/// The magic number of a file whose timestamps count nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// LINKTYPE_ETHERNET.
const LINK_TYPE: u32 = 1;

/// Writes captured frames. Times are those of the world's monotonic clock: the capture begins near 1970.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins a capture. Give it a buffered writer: every field is written by itself.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn new(mut to: W) -> io::Result<Self> {
        let snap_len = u32::try_from(FRAME_MAX).unwrap_or(u32::MAX);
        // Version 2.4, no time zone, no accuracy given.
        let [major, minor] = [2u16, 4];
        to.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        to.write_all(&major.to_le_bytes())?;
        to.write_all(&minor.to_le_bytes())?;
        for field in [0, 0, snap_len, LINK_TYPE] {
            to.write_all(&field.to_le_bytes())?;
        }
        Ok(Self { to })
    }

    /// Adds one frame; what is longer than [`FRAME_MAX`] is cut, as a capture with that snap length does.
    ///
    /// # Errors
    /// Those of the writer, and one when `now` is 136 years after the start.
    pub fn write(&mut self, now: Instant, bytes: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(now.as_nanos() / 1_000_000_000).map_err(io::Error::other)?;
        let nanos = u32::try_from(now.as_nanos() % 1_000_000_000).map_err(io::Error::other)?;
        let kept = bytes.get(..FRAME_MAX).unwrap_or(bytes);
        let captured = u32::try_from(kept.len()).map_err(io::Error::other)?;
        let original = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        for field in [seconds, nanos, captured, original] {
            self.to.write_all(&field.to_le_bytes())?;
        }
        self.to.write_all(kept)
    }

    /// Ends the capture and gives the writer back, flushed.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_of_one_short_and_one_long_frame_is_as_the_format_says() {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.write(Instant::from_nanos(3_000_000_004), &[0xaa, 0xbb]).unwrap();
        writer.write(Instant::from_nanos(5), &[0xcc; FRAME_MAX + 1]).unwrap();
        let file = writer.finish().unwrap();

        let golden = "4d3cb2a1 0200 0400 00000000 00000000 ea050000 01000000  03000000 04000000 02000000 02000000 aabb  \
                      00000000 05000000 ea050000 eb050000";
        let golden = hex::decode(golden.replace(' ', "")).unwrap();
        assert_eq!(file[..golden.len()], golden);
        assert_eq!(file[golden.len()..], [0xcc; FRAME_MAX]);
    }
}
