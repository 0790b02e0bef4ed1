//! What lanes hand each other: frames that arrived on the wrong one, and news that concerns all.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::base::{LaneId, PortId};
use crate::lane::recall::Word;
use crate::link::{Event, Neighbour};

/// Most items that wait for a lane. Sized for one breath of handshake steps at 10 M frames/s.
pub(super) const RING_MAX: usize = 4096;

/// Most words about clients' mappings that wait for a lane. They have a ring of their own, so that a flood of frames costs nobody a mapping.
pub(super) const WORDS_MAX: usize = 4096;

/// Something that one lane hands to another.
#[derive(Debug)]
pub(super) enum Handover<F> {
    /// A frame of a flow that the other lane owns.
    Frame(PortId, F),
    /// A neighbour that this lane has learned.
    Neighbour(PortId, Neighbour),
    /// News about a flow of the other lane.
    News(Event),
}

/// One lane's end of the rings between the lanes: one bounded lock-free ring a lane, which all others push to.
#[derive(Debug)]
pub struct Steering<F> {
    lane: LaneId,
    rings: Vec<Arc<ArrayQueue<Handover<F>>>>,
    words: Vec<Arc<ArrayQueue<Word>>>,
}

impl<F> Steering<F> {
    /// The ends for `lanes` lanes, in their order.
    pub fn between(lanes: u16) -> Vec<Self> {
        let rings: Vec<_> = (0..lanes).map(|_| Arc::new(ArrayQueue::new(RING_MAX))).collect();
        let words: Vec<_> = (0..lanes).map(|_| Arc::new(ArrayQueue::new(WORDS_MAX))).collect();
        (0..lanes).map(|lane| Self { lane: LaneId(lane), rings: rings.clone(), words: words.clone() }).collect()
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> u16 {
        u16::try_from(self.rings.len()).expect("there are as many rings as lanes, whose ids have 16 bits")
    }

    /// Pushes to a lane's ring; whether there was room.
    pub(super) fn hand_over(&self, to: LaneId, item: Handover<F>) -> bool {
        self.rings.get(usize::from(to.0)).is_some_and(|ring| ring.push(item).is_ok())
    }

    /// Whether others have pushed anything to this lane.
    pub(super) fn has_any(&self) -> bool {
        self.rings.get(usize::from(self.lane.0)).is_some_and(|ring| !ring.is_empty())
    }

    /// Takes the oldest item that others pushed to this lane.
    pub(super) fn take_over(&self) -> Option<Handover<F>> {
        self.rings.get(usize::from(self.lane.0))?.pop()
    }

    /// Pushes a word to a lane; gives it back where there is no room.
    pub(super) fn tell(&self, to: LaneId, word: Word) -> Result<(), Word> {
        match self.words.get(usize::from(to.0)) {
            Some(ring) => ring.push(word),
            None => Err(word),
        }
    }

    /// Takes the oldest word that others pushed to this lane.
    pub(super) fn next_word(&self) -> Option<Word> {
        self.words.get(usize::from(self.lane.0))?.pop()
    }

    /// Every lane but this one.
    pub(super) fn others(&self) -> impl Iterator<Item = LaneId> + use<F> {
        let own = self.lane;
        (0..self.lanes()).map(LaneId).filter(move |lane| *lane != own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_takes_over_what_others_hand_it_in_order() {
        let ends = Steering::between(3);
        assert!(ends[0].hand_over(LaneId(2), Handover::Frame(PortId(0), 1)));
        assert!(ends[1].hand_over(LaneId(2), Handover::Frame(PortId(0), 2)));
        assert!(ends[1].take_over().is_none());
        let Some(Handover::Frame(PortId(0), 1)) = ends[2].take_over() else { panic!("the first is not there") };
        let Some(Handover::Frame(PortId(0), 2)) = ends[2].take_over() else { panic!("the second is not there") };
        assert!(ends[2].take_over().is_none());
        assert_eq!(ends[1].others().collect::<Vec<_>>(), [LaneId(0), LaneId(2)]);
    }

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has() {
        let ends = Steering::between(2);
        for n in 0..RING_MAX {
            assert!(ends[0].hand_over(LaneId(1), Handover::Frame(PortId(0), n)));
        }
        assert!(!ends[0].hand_over(LaneId(1), Handover::Frame(PortId(0), RING_MAX)));
        assert!(matches!(ends[1].take_over(), Some(Handover::Frame(_, 0))));
        assert!(ends[0].hand_over(LaneId(1), Handover::Frame(PortId(0), RING_MAX)));
    }

    #[test]
    fn words_have_a_ring_of_their_own_which_is_bounded_and_keeps_their_order() {
        let ends = Steering::<()>::between(2);
        while ends[0].hand_over(LaneId(1), Handover::Frame(PortId(0), ())) {}
        for number in 0..WORDS_MAX {
            assert_eq!(ends[0].tell(LaneId(1), Word::numbered(number)), Ok(()));
        }
        assert_eq!(ends[0].tell(LaneId(1), Word::numbered(7)), Err(Word::numbered(7)));
        assert_eq!(ends[1].next_word(), Some(Word::numbered(0)));
        assert_eq!((ends[0].tell(LaneId(1), Word::numbered(7)), ends[0].next_word()), (Ok(()), None));
        assert_eq!(ends[0].tell(LaneId(2), Word::numbered(7)), Err(Word::numbered(7)));
        let order: Vec<_> = std::iter::from_fn(|| ends[1].next_word()).collect();
        let expected: Vec<_> = (1..WORDS_MAX).chain([7]).map(Word::numbered).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn a_lane_that_does_not_exist_takes_nothing() {
        assert!(!Steering::between(1)[0].hand_over(LaneId(1), Handover::Frame(PortId(0), ())));
    }
}
