//! The probe that connects, and may say something and wait for an answer.

use std::sync::Arc;

use crate::health::probe::search::Search;
use crate::health::{Answer, Cause, Outcome};

/// Most bytes of an answer that are looked at.
pub(super) const ANSWER_MAX: usize = 64 * 1024;

/// What is said, and what is to be heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is sent once the connection is established.
    pub send: Arc<[u8]>,
    /// What the answer must have in its first 64 KiB; empty: nothing, it is enough that the connection is established.
    pub expect: Arc<[u8]>,
}

/// One probe.
#[derive(Debug)]
pub(super) struct Talk {
    expect: Option<Search>,
    maintenance: Option<Search>,
    seen: usize,
}

impl Talk {
    /// A probe that takes `maintenance` for a sign of maintenance, if it comes before what is expected is complete.
    pub(super) fn new(settings: &Settings, maintenance: &Arc<[u8]>) -> Self {
        let search = |text: &Arc<[u8]>| (!text.is_empty()).then(|| Search::new(text));
        Self { expect: search(&settings.expect), maintenance: search(maintenance), seen: 0 }
    }

    /// The connection is established.
    pub(super) fn on_open(&self) -> Option<Outcome> {
        self.expect.is_none().then_some(Ok(Answer::Normal))
    }

    pub(super) fn on_data(&mut self, bytes: &[u8]) -> Option<Outcome> {
        let bytes = bytes.get(..ANSWER_MAX - self.seen).unwrap_or(bytes);
        self.seen += bytes.len();
        let expected = self.expect.as_mut().and_then(|search| search.on_data(bytes));
        let maintenance = self.maintenance.as_mut().and_then(|search| search.on_data(bytes));
        match (expected, maintenance) {
            (Some(expected), Some(maintenance)) if expected < maintenance => Some(Ok(Answer::Normal)),
            (_, Some(_)) => Some(Ok(Answer::Maintenance)),
            (Some(_), None) => Some(Ok(Answer::Normal)),
            (None, None) if self.seen == ANSWER_MAX => Some(Err(Cause::TextMissing)),
            (None, None) => None,
        }
    }

    /// The server says no more.
    pub(super) fn on_end(&self) -> Outcome {
        Err(if self.seen == 0 { Cause::Closed } else { Cause::TextMissing })
    }

    /// The time is up.
    pub(super) fn on_timeout(&self) -> Cause {
        if self.seen == 0 { Cause::NoAnswer } else { Cause::TextMissing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(expect: &str, maintenance: &str) -> Talk {
        let settings = Settings { send: Arc::default(), expect: expect.as_bytes().into() };
        Talk::new(&settings, &maintenance.as_bytes().into())
    }

    /// What comes of an answer, cut in two at every place.
    fn outcome(expect: &str, maintenance: &str, answer: &[u8]) -> Outcome {
        let mut all: Vec<Outcome> = Vec::new();
        for split in 0..=answer.len() {
            let mut talk = talk(expect, maintenance);
            let (one, two) = answer.split_at(split);
            let early = talk.on_open().or_else(|| talk.on_data(one));
            all.push(early.or_else(|| talk.on_data(two)).unwrap_or_else(|| talk.on_end()));
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }

    #[test]
    fn it_is_enough_to_connect_where_nothing_is_expected() {
        assert_eq!(talk("", "").on_open(), Some(Ok(Answer::Normal)));
        assert_eq!(talk("+PONG", "").on_open(), None);
    }

    #[test]
    fn an_answer_is_good_with_the_text_and_bad_without() {
        assert_eq!(outcome("+PONG", "", b"-LOADING\r\n+PONG\r\n"), Ok(Answer::Normal));
        assert_eq!(outcome("+PONG", "", b"-ERR\r\n"), Err(Cause::TextMissing));
        assert_eq!(outcome("+PONG", "", b""), Err(Cause::Closed));
    }

    #[test]
    fn the_text_that_comes_first_says_whether_it_is_maintenance() {
        assert_eq!(outcome("220 ", "closing", b"421 closing\r\n220 \r\n"), Ok(Answer::Maintenance));
        assert_eq!(outcome("220 ", "closing", b"220 ready, not closing\r\n"), Ok(Answer::Normal));
    }

    #[test]
    fn the_time_is_up_for_lack_of_an_answer_or_of_the_text() {
        let mut talk = talk("x", "");
        assert_eq!(talk.on_timeout(), Cause::NoAnswer);
        assert_eq!(talk.on_data(b"y"), None);
        assert_eq!(talk.on_timeout(), Cause::TextMissing);
    }

    #[test]
    fn an_endless_answer_is_looked_at_up_to_a_bound() {
        let mut talk = talk("x", "");
        let mut taken = 0;
        let outcome = loop {
            taken += 1000;
            if let Some(outcome) = talk.on_data(&[b'y'; 1000]) {
                break outcome;
            }
        };
        assert_eq!((outcome, taken), (Err(Cause::TextMissing), ANSWER_MAX.next_multiple_of(1000)));
    }
}
