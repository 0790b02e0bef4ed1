//! Capture files in blocks, as Wireshark writes them: pcapng (draft-ietf-opsawg-pcapng), with TLS secrets in them.
//!
//! Written here and not by a crate: those that there are know no Decryption Secrets Blocks, and a lane must write a block where there is room already.
//! Everything is little-endian, and times count nanoseconds from 1970.

/// Section Header Block.
const SECTION: u32 = 0x0a0d_0d0a;
/// Interface Description Block.
const INTERFACE: u32 = 1;
/// Interface Statistics Block.
const STATISTICS: u32 = 5;
/// Enhanced Packet Block.
const PACKET: u32 = 6;
/// Decryption Secrets Block.
const SECRETS: u32 = 10;

/// LINKTYPE_ETHERNET.
const LINK_ETHERNET: u16 = 1;
/// Secrets are lines of a TLS key log: "TLSK".
const TLS_KEY_LOG: u32 = 0x544c_534b;

/// `opt_comment`
const COMMENT: u16 = 1;

/// Bytes of a block around what is in it: its type and its length twice.
const AROUND: usize = 12;
/// Bytes of an Enhanced Packet Block beside the packet: what is around, five fields, and flags, queue and the end of options.
const BESIDE_PACKET: usize = AROUND + 20 + 20;

/// The longest block that is read: a packet with the longest snap length, or many secrets.
pub const BLOCK_MAX: usize = 1 << 20;

/// An interface of a capture.
#[derive(Clone, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub description: &'a str,
    /// The filter.
    pub filter: &'a str,
    /// Most bytes that are kept of a frame.
    pub snap_len: usize,
}

/// A captured frame, but for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Which interface, in the order in which they were described.
    pub interface: u16,
    /// Nanoseconds from 1970.
    pub at: u64,
    /// Sent, not received.
    pub is_sent: bool,
    /// Whose queue it came from or went to.
    pub queue: u16,
    /// How long it was.
    pub original: usize,
}

/// What is counted of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Nanoseconds from 1970.
    pub at: u64,
    /// Frames that were looked at.
    pub received: u64,
    /// Frames that the filter wanted.
    pub accepted: u64,
    /// Of those, frames that were left out.
    pub left_out: u64,
    /// Frames that are in the capture.
    pub delivered: u64,
    /// What is to be said besides.
    pub comment: String,
}

/// Begins a file, or another section of it.
pub fn section(into: &mut Vec<u8>, application: &str) {
    block(into, SECTION, |into| {
        // The byte order, version 1.0, and a length that nobody knows yet.
        into.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        into.extend_from_slice(&[1, 0, 0, 0]);
        into.extend_from_slice(&u64::MAX.to_le_bytes());
        // shb_userappl
        option(into, 4, application.as_bytes());
        end_options(into);
    });
}

/// Describes the next interface.
pub fn interface(into: &mut Vec<u8>, interface: &Interface<'_>) {
    block(into, INTERFACE, |into| {
        into.extend_from_slice(&LINK_ETHERNET.to_le_bytes());
        into.extend_from_slice(&[0, 0]);
        into.extend_from_slice(&u32::try_from(interface.snap_len).unwrap_or(0).to_le_bytes());
        // if_name, if_description, if_tsresol: ten to the minus ninth of a second
        option(into, 2, interface.name.as_bytes());
        option(into, 3, interface.description.as_bytes());
        option(into, 9, &[9]);
        if !interface.filter.is_empty() {
            // if_filter, as text
            option(into, 11, &[&[0], interface.filter.as_bytes()].concat());
        }
        end_options(into);
    });
}

/// Bytes of the block of a frame of which so many are kept.
pub fn packet_len(kept: usize) -> usize {
    BESIDE_PACKET + padded(kept)
}

/// Adds a frame, of which these bytes are kept. It allocates nothing where there is room for [`packet_len`].
pub fn packet(into: &mut Vec<u8>, packet: &Packet, kept: &[u8]) {
    let long = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let [low, high] = halves(packet.at);
    block(into, PACKET, |into| {
        for field in [u32::from(packet.interface), high, low, long(kept.len()), long(packet.original)] {
            into.extend_from_slice(&field.to_le_bytes());
        }
        into.extend_from_slice(kept);
        pad(into, kept.len());
        // epb_flags: inbound or outbound; epb_queue
        option(into, 2, &(if packet.is_sent { 2_u32 } else { 1 }).to_le_bytes());
        option(into, 6, &u32::from(packet.queue).to_le_bytes());
        end_options(into);
    });
}

/// Adds lines of a TLS key log, for the packets behind them.
pub fn secrets(into: &mut Vec<u8>, lines: &[u8]) {
    block(into, SECRETS, |into| {
        into.extend_from_slice(&TLS_KEY_LOG.to_le_bytes());
        into.extend_from_slice(&u32::try_from(lines.len()).unwrap_or(u32::MAX).to_le_bytes());
        into.extend_from_slice(lines);
        pad(into, lines.len());
    });
}

/// Adds what has been counted of an interface.
pub fn statistics(into: &mut Vec<u8>, interface: u16, statistics: &Statistics) {
    let [low, high] = halves(statistics.at);
    block(into, STATISTICS, |into| {
        for field in [u32::from(interface), high, low] {
            into.extend_from_slice(&field.to_le_bytes());
        }
        option(into, COMMENT, statistics.comment.as_bytes());
        // isb_ifrecv, isb_ifdrop, isb_filteraccept, isb_usrdeliv
        let counts =
            [(4, statistics.received), (5, statistics.left_out), (6, statistics.accepted), (8, statistics.delivered)];
        for (code, count) in counts {
            option(into, code, &count.to_le_bytes());
        }
        end_options(into);
    });
}

/// When the packet of the block at the start of `bytes` was captured, and how long the block is; `None` where there is none, or another one.
pub fn next_packet(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = usize::try_from(word(bytes, 4)?).ok()?;
    let at = u64::from(word(bytes, 12)?) << 32 | u64::from(word(bytes, 16)?);
    (word(bytes, 0)? == PACKET && length <= bytes.len() && length >= BESIDE_PACKET).then_some((at, length))
}

/// What is kept of the packet of a block.
pub fn kept(block: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(word(block, 20)?).ok()?;
    block.get(28..)?.get(..length)
}

/// The interface of the packet of a block.
pub fn interface_of(block: &[u8]) -> Option<usize> {
    usize::try_from(word(block, 8)?).ok()
}

/// Whether the packet of a block was sent, as [`packet`] writes it.
pub fn is_sent(block: &[u8]) -> Option<bool> {
    let kept = padded(kept(block)?.len());
    Some(word(block, 28 + kept + 4)? & 3 == 2)
}

/// A block as a reader meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A packet.
    Packet,
    /// TLS secrets.
    Secrets,
    /// What has been counted of an interface: the comment.
    Statistics(String),
    /// Any other.
    Other,
}

/// Finds the blocks of a file that comes in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    waiting: Vec<u8>,
}

/// These bytes are no blocks, or none that is as long as one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capture is no pcapng")]
pub struct NoBlocks;

impl Reader {
    /// Takes a piece, and shows each block that is whole now.
    ///
    /// # Errors
    /// When there is none. Nothing more is to be read then.
    pub fn on_data(&mut self, piece: &[u8], mut see: impl FnMut(Block)) -> Result<(), NoBlocks> {
        self.waiting.extend_from_slice(piece);
        let mut begin = 0;
        while let Some(rest) = self.waiting.get(begin..)
            && let Some(length) = word(rest, 4)
        {
            let length = usize::try_from(length).map_err(|_| NoBlocks)?;
            if length < AROUND || length % 4 != 0 || length > BLOCK_MAX {
                return Err(NoBlocks);
            }
            let Some(block) = rest.get(..length) else { break };
            see(Block::of(block));
            begin += length;
        }
        self.waiting.drain(..begin);
        Ok(())
    }

    /// Whether nothing is left of a block that is not whole.
    pub fn is_between_blocks(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Block {
    fn of(block: &[u8]) -> Self {
        match word(block, 0) {
            Some(PACKET) => Self::Packet,
            Some(SECRETS) => Self::Secrets,
            Some(STATISTICS) => {
                let options = block.get(20..block.len() - 4).unwrap_or_default();
                Self::Statistics(comment(options).unwrap_or_default())
            }
            Some(_) | None => Self::Other,
        }
    }
}

/// The first comment among options.
fn comment(mut options: &[u8]) -> Option<String> {
    while let Some([code, more, low, high, rest @ ..]) = options.first_chunk::<4>().map(|_| options) {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        if u16::from_le_bytes([*code, *more]) == COMMENT {
            return rest.get(..length).map(|text| String::from_utf8_lossy(text).into_owned());
        }
        options = rest.get(padded(length)..)?;
    }
    None
}

fn block(into: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = into.len();
    into.extend_from_slice(&kind.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    body(into);
    let length = u32::try_from(into.len() - begin + 4).unwrap_or(u32::MAX).to_le_bytes();
    into.extend_from_slice(&length);
    if let Some(field) = into.get_mut(begin + 4..begin + 8) {
        field.copy_from_slice(&length);
    }
}

/// An option. Nobody has one that is longer than its length can say.
fn option(into: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    into.extend_from_slice(&code.to_le_bytes());
    into.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    into.extend_from_slice(value);
    pad(into, value.len());
}

/// `opt_endofopt`
fn end_options(into: &mut Vec<u8>) {
    into.extend_from_slice(&[0; 4]);
}

fn pad(into: &mut Vec<u8>, len: usize) {
    into.extend(std::iter::repeat_n(0, padded(len) - len));
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_AT: u64 = 0x0102_0304_0506_0708;

    fn small() -> Packet {
        Packet { interface: 1, at: PACKET_AT, is_sent: true, queue: 3, original: 100 }
    }

    #[test]
    fn a_packet_is_as_the_format_says_and_as_long_as_it_was_said_to_be() {
        let mut file = Vec::new();
        packet(&mut file, &small(), &[0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
        let golden = "06000000 3c000000 01000000 04030201 08070605 05000000 64000000 aabbccdd ee000000 \
                      0200 0400 02000000 0600 0400 03000000 00000000 3c000000";
        assert_eq!(hex::encode(&file), golden.replace(' ', ""));
        assert_eq!(packet_len(5), file.len());
        assert_eq!(next_packet(&file), Some((PACKET_AT, file.len())));
        assert_eq!((kept(&file), is_sent(&file)), (Some(&[0xaa, 0xbb, 0xcc, 0xdd, 0xee][..]), Some(true)));
        assert_eq!(next_packet(&file[..file.len() - 1]), None);
    }

    #[test]
    fn secrets_and_interfaces_are_as_the_format_says() {
        let mut file = Vec::new();
        secrets(&mut file, b"X 1\n+");
        let golden = "0a000000 1c000000 4b534c54 05000000 5820310a 2b000000 1c000000";
        assert_eq!(hex::encode(&file), golden.replace(' ', ""));
        file.clear();
        interface(&mut file, &Interface { name: "if0", description: "d", filter: "ip", snap_len: 96 });
        let golden = "01000000 38000000 0100 0000 60000000 0200 0300 69663000 0300 0100 64000000 0900 0100 09000000 \
                      0b00 0300 00697000 00000000 38000000";
        assert_eq!(hex::encode(&file), golden.replace(' ', ""));
    }

    #[test]
    fn a_reader_finds_the_blocks_however_they_are_cut() {
        let mut file = Vec::new();
        section(&mut file, "sealane");
        interface(&mut file, &Interface { name: "front", description: "a port", filter: "", snap_len: 96 });
        secrets(&mut file, b"line\n");
        packet(&mut file, &small(), &[1; 33]);
        statistics(&mut file, 0, &Statistics { comment: "ended=count".to_owned(), ..Statistics::default() });
        let expected =
            [Block::Other, Block::Other, Block::Secrets, Block::Packet, Block::Statistics("ended=count".to_owned())];
        for size in [1, 7, file.len()] {
            let (mut reader, mut blocks) = (Reader::default(), Vec::new());
            for piece in file.chunks(size) {
                reader.on_data(piece, |block| blocks.push(block)).unwrap();
            }
            assert!(reader.is_between_blocks());
            assert_eq!(blocks, expected, "{size}");
        }
        assert_eq!(Reader::default().on_data(&[0; 8], |_| {}), Err(NoBlocks));
    }
}
