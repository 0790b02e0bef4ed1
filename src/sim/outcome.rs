//! What comes of a client's visit.

use crate::tcp::Close;

/// A visit that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The number of the server that answered.
    pub server: u32,
    /// Whether the client resumed an earlier session.
    pub resumed: bool,
}

/// What came of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every byte came, both ways.
    Served(Visit),
    /// The connection ended before that.
    Cut(Close),
    /// The stream ended in order, but bytes were missing or wrong.
    Incomplete,
    /// The client's TLS refused what it got.
    TlsFailed,
    /// Nothing came of it in a long time.
    Lost,
}

impl Outcome {
    /// The visit, when it was served.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn served(self) -> Visit {
        match self {
            Self::Served(visit) => visit,
            Self::Cut(_) | Self::Incomplete | Self::TlsFailed | Self::Lost => panic!("not served: {self:?}"),
        }
    }
}
