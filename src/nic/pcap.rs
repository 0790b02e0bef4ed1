//! Frames written to a capture file that tcpdump and Wireshark read: classic pcap with nanoseconds
//! (draft-ietf-opsawg-pcap).

use std::io::{self, Write};

use crate::base::Instant;
use crate::nic::FRAME_MAX;

/// The magic number of a file whose timestamps count nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// LINKTYPE_ETHERNET.
const LINK_ETHERNET: u32 = 1;
/// LINKTYPE_RAW: IPv4 or IPv6 by its first four bits.
const LINK_IP: u32 = 101;

/// Writes captured frames. Times count from 1970; with those of a world's monotonic clock the capture begins near it.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins a capture of frames. Give it a buffered writer: every field is written by itself.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn new(to: W) -> io::Result<Self> {
        Self::begin(to, LINK_ETHERNET)
    }

    /// Begins a capture of IP packets without Ethernet headers.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn of_packets(to: W) -> io::Result<Self> {
        Self::begin(to, LINK_IP)
    }

    fn begin(mut to: W, link_type: u32) -> io::Result<Self> {
        let snap_len = u32::try_from(FRAME_MAX).unwrap_or(u32::MAX);
        // Version 2.4, no time zone, no accuracy given.
        let [major, minor] = [2u16, 4];
        to.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        to.write_all(&major.to_le_bytes())?;
        to.write_all(&minor.to_le_bytes())?;
        for field in [0, 0, snap_len, link_type] {
            to.write_all(&field.to_le_bytes())?;
        }
        Ok(Self { to })
    }

    /// Adds one frame; what is longer than [`FRAME_MAX`] is cut, as a capture with that snap length does.
    ///
    /// # Errors
    /// Those of the writer, and one when `now` is 136 years after the start.
    pub fn write(&mut self, now: Instant, bytes: &[u8]) -> io::Result<()> {
        self.write_part(now, bytes, bytes.len())
    }

    /// Adds what was kept of a frame that was `original` bytes long.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_part(&mut self, now: Instant, bytes: &[u8], original: usize) -> io::Result<()> {
        let seconds = u32::try_from(now.as_nanos() / 1_000_000_000).map_err(io::Error::other)?;
        let nanos = u32::try_from(now.as_nanos() % 1_000_000_000).map_err(io::Error::other)?;
        let kept = bytes.get(..FRAME_MAX).unwrap_or(bytes);
        let captured = u32::try_from(kept.len()).map_err(io::Error::other)?;
        let original = u32::try_from(original).map_err(io::Error::other)?;
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

    #[test]
    fn the_headers_of_a_packet_tell_its_length() {
        let mut writer = Writer::of_packets(Vec::new()).unwrap();
        writer.write_part(Instant::from_nanos(3_000_000_004), &[0x45, 0], 1500).unwrap();
        let file = writer.finish().unwrap();
        let golden = "4d3cb2a1 0200 0400 00000000 00000000 ea050000 65000000  03000000 04000000 02000000 dc050000 4500";
        assert_eq!(file, hex::decode(golden.replace(' ', "")).unwrap());
    }
}
