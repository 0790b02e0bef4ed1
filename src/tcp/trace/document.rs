//! The traces of an engine as bytes, for whoever asks over the network and for files, and back.
//!
//! Numbers are little-endian and have 64 bits: [`MAGIC`], the epoch, then for each lane its number, how many records it had written, how many follow,
//! and these, 16 words each, the first of which is the record's number.

use super::record::WORDS;
use super::{Reading, Record};

/// What a document begins with. The digit is the version of the format.
const MAGIC: &[u8; 16] = b"sealane trace 1\n";
const WORD: usize = 8;
const RECORD: usize = WORDS * WORD;
/// Bytes before the records of a lane.
const LANE_HEADER: usize = 3 * WORD;

/// Longest document: half a million records.
pub const DOCUMENT_MAX: usize = 64 * 1024 * 1024;

/// The traces of an engine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// When the lanes' clock started, in nanoseconds since 1970.
    pub epoch: u64,
    /// What the lanes' rings held.
    pub lanes: Vec<LaneTrace>,
}

/// What one lane's ring held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneTrace {
    /// The lane's number.
    pub lane: u16,
    /// Its records.
    pub reading: Reading,
}

/// Why bytes are no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They begin with something else.
    #[error("this is no trace of sealane, or one of another version")]
    Magic,
    /// They end before what they announce.
    #[error("the trace is cut off")]
    Truncated,
    /// A lane's number that cannot be.
    #[error("the trace names lane {0}, and there are no such lanes")]
    Lane(u64),
    /// A record that no engine wrote.
    #[error("record {0} of the trace is damaged")]
    Record(u64),
}

impl Document {
    /// Most records of each of `lanes` lanes that a document has room for.
    pub fn records_max(lanes: usize) -> usize {
        let room = DOCUMENT_MAX - MAGIC.len() - WORD;
        room.checked_div(lanes).unwrap_or(0).saturating_sub(LANE_HEADER) / RECORD
    }

    /// The document as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let records: usize = self.lanes.iter().map(|lane| lane.reading.records.len()).sum();
        let mut bytes = Vec::with_capacity(MAGIC.len() + WORD + LANE_HEADER * self.lanes.len() + RECORD * records);
        bytes.extend(MAGIC);
        let mut word = |word: u64| bytes.extend(word.to_le_bytes());
        word(self.epoch);
        for LaneTrace { lane, reading } in &self.lanes {
            word((*lane).into());
            word(reading.written);
            word(reading.records.len() as u64);
            for record in &reading.records {
                word(record.number);
                record.encode().into_iter().for_each(&mut word);
            }
        }
        bytes
    }

    /// What [`encode`](Self::encode) made of a document. It takes no more memory than twice the length of `bytes`.
    ///
    /// # Errors
    /// [`Unreadable`] says why it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(Unreadable::Magic)?;
        let epoch = word(&mut rest)?;
        let mut lanes = Vec::new();
        while !rest.is_empty() {
            lanes.push(lane(&mut rest)?);
        }
        Ok(Self { epoch, lanes })
    }
}

fn lane(rest: &mut &[u8]) -> Result<LaneTrace, Unreadable> {
    let [lane, written, count] = [word(rest)?, word(rest)?, word(rest)?];
    let lane = u16::try_from(lane).map_err(|_| Unreadable::Lane(lane))?;
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(RECORD)).ok_or(Unreadable::Truncated)?;
    let (bytes, behind) = rest.split_at_checked(len).ok_or(Unreadable::Truncated)?;
    *rest = behind;
    let records = bytes.chunks_exact(RECORD).map(record).collect::<Result<_, _>>()?;
    Ok(LaneTrace { lane, reading: Reading { written, records } })
}

fn record(mut bytes: &[u8]) -> Result<Record, Unreadable> {
    let number = word(&mut bytes)?;
    let mut words = [0; WORDS - 1];
    for value in &mut words {
        *value = word(&mut bytes)?;
    }
    Record::decode(number, &words).ok_or(Unreadable::Record(number))
}

fn word(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    let (first, behind) = rest.split_first_chunk().ok_or(Unreadable::Truncated)?;
    *rest = behind;
    Ok(u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp::trace::record::tests::records;

    fn documents() -> impl Strategy<Value = Document> {
        let reading = (any::<u64>(), proptest::collection::vec(records(), 0..4))
            .prop_map(|(written, records)| Reading { written, records });
        let lane = (any::<u16>(), reading).prop_map(|(lane, reading)| LaneTrace { lane, reading });
        (any::<u64>(), proptest::collection::vec(lane, 0..4)).prop_map(|(epoch, lanes)| Document { epoch, lanes })
    }

    #[test]
    fn a_document_of_no_lanes_is_its_head() {
        let bytes = Document { epoch: 0x0102, lanes: Vec::new() }.encode();
        assert_eq!(bytes, b"sealane trace 1\n\x02\x01\0\0\0\0\0\0");
    }

    #[test]
    fn a_record_of_each_kind_of_word_is_as_the_format_says() {
        use crate::base::{Flow, Instant};
        use crate::tcp::trace::{Kind, Reason};
        use crate::wire::{Ecn, Flags, SegmentOptions, Seq, Timestamp};

        let record = Record {
            number: 7,
            at: Instant::from_nanos(0x0102_0304),
            flow: Flow::new("198.18.0.10:443".parse().unwrap(), "198.18.0.1:40000".parse().unwrap()),
            kind: Kind::Sent(Reason::Again),
            seq: Seq(0x1122_3344),
            ack: Some(Seq(0x5566_7788)),
            flags: Flags { psh: true, ..Flags::default() },
            window: 0x1234,
            len: 1448,
            options: SegmentOptions {
                timestamp: Some(Timestamp { value: 5, echo: 6 }),
                sack: [Some((Seq(8), Seq(9))), None, None, None],
                ..SegmentOptions::default()
            },
            ecn: Ecn::Ect0,
            inside: None,
        };
        let reading = Reading { written: 9, records: vec![record] };
        let document = Document { epoch: 1, lanes: vec![LaneTrace { lane: 2, reading }] };
        // Each line a word: the head, the epoch; lane, written, count; number, time, addresses, ports and kind, numbers, segment, timestamps, SACK,
        // and the sender, of which nothing is known.
        let golden = "7365616c616e6520 747261636520310a 0100000000000000
            0200000000000000 0900000000000000 0100000000000000
            0700000000000000 0403020100000000
            0000000000000000 0a0012c6ffff0000 0000000000000000 010012c6ffff0000
            180001 01409cbb01 8877665544332211 af00003412a80500 0600000005000000
            0900000008000000 0000000000000000 0000000000000000
            0000000000000000 0000000000000000 0000000000000000";
        assert_eq!(hex::encode(document.encode()), golden.split_whitespace().collect::<String>());
        assert_eq!(Document::parse(&hex::decode(golden.split_whitespace().collect::<String>()).unwrap()), Ok(document));
    }

    #[test]
    fn what_is_no_document_is_told_why() {
        assert_eq!(Document::parse(b"sealane trace 2\n\0\0\0\0\0\0\0\0"), Err(Unreadable::Magic));
        let lane = LaneTrace { lane: 1, ..LaneTrace::default() };
        let bytes = Document { epoch: 0, lanes: vec![lane] }.encode();
        for len in 16..bytes.len() {
            // Right behind the epoch a document may end.
            let expected = if len == 24 { Ok(Document::default()) } else { Err(Unreadable::Truncated) };
            assert_eq!(Document::parse(&bytes[..len]), expected, "{len} bytes");
        }
        let mut many = bytes.clone();
        many[40..48].fill(0xff);
        assert_eq!(Document::parse(&many), Err(Unreadable::Truncated));
        many[24..32].fill(0xff);
        assert_eq!(Document::parse(&many), Err(Unreadable::Lane(u64::MAX)));
    }

    #[test]
    fn full_rings_of_all_lanes_fit() {
        for lanes in [1, 2, 64, 1000] {
            let len = MAGIC.len() + WORD + lanes * (LANE_HEADER + RECORD * Document::records_max(lanes));
            assert!(len <= DOCUMENT_MAX && len + lanes * RECORD + RECORD > DOCUMENT_MAX, "{lanes} lanes: {len}");
        }
    }

    proptest! {
        #[test]
        fn a_document_survives_its_bytes(document in documents()) {
            prop_assert_eq!(Document::parse(&document.encode()), Ok(document));
        }

        #[test]
        fn damage_is_read_or_refused(document in documents(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = document.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(read) = Document::parse(&bytes) {
                prop_assert_eq!(Document::parse(&read.encode()), Ok(read));
            }
        }
    }
}
