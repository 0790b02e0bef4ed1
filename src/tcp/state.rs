//! The states of a connection (RFC 9293 3.3.2).

/// Where a connection is. LISTEN, the SYN-RECEIVED of a passive open and TIME-WAIT have tables of their own.
///
/// ```text
///            connect                                  SYN, ACK of our SYN
///               │  snd SYN                     (a passive open promoted from its table)
///               ▼                                             │
///           SYN-SENT ──── rcv SYN,ACK / snd ACK ─────────► ESTABLISHED ── rcv FIN / snd ACK ──► CLOSE-WAIT
///               │ rcv SYN / snd SYN,ACK                    ▲  │ shutdown / snd FIN                  │ shutdown
///               ▼                                          │  ▼                                     ▼ snd FIN
///          SYN-RECEIVED ──── rcv ACK of SYN ───────────────┘ FIN-WAIT-1 ─ rcv FIN / snd ACK ─┐   LAST-ACK
///                                                             │ rcv ACK of FIN               ▼      │ rcv ACK of FIN
///                                                             ▼                           CLOSING   ▼
///                                                        FIN-WAIT-2                          │    CLOSED
///                                                             │ rcv FIN / snd ACK            │ rcv ACK of FIN
///                                                             └────────► TIME-WAIT ◄─────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Our SYN is out.
    SynSent,
    /// Both SYNs have crossed (simultaneous open).
    SynReceived,
    /// Data flows.
    Established,
    /// We have closed; our FIN is not acknowledged.
    FinWait1,
    /// We have closed; the peer has not.
    FinWait2,
    /// The peer has closed; we have not.
    CloseWait,
    /// Both have closed at once; our FIN is not acknowledged.
    Closing,
    /// The peer closed first; our FIN is not acknowledged.
    LastAck,
    /// Over, and remembered for 2 MSL.
    TimeWait,
    /// Over.
    Closed,
}

/// What moves a connection that is established from one state to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The user has closed.
    Shutdown,
    /// The peer's FIN has been received in order.
    Fin,
    /// Our FIN has been acknowledged.
    FinAcknowledged,
}

impl State {
    /// Its name as RFC 9293 spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        }
    }

    /// Whether both SYNs have been acknowledged.
    pub(super) fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed)
    }

    /// Whether the peer may send data.
    pub(super) fn receives(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    pub(super) fn after(self, step: Step) -> Self {
        match (self, step) {
            (Self::Established, Step::Shutdown) => Self::FinWait1,
            (Self::CloseWait, Step::Shutdown) => Self::LastAck,
            (Self::Established, Step::Fin) => Self::CloseWait,
            (Self::FinWait1, Step::Fin) => Self::Closing,
            (Self::FinWait2, Step::Fin) => Self::TimeWait,
            (Self::FinWait1, Step::FinAcknowledged) => Self::FinWait2,
            (Self::Closing, Step::FinAcknowledged) => Self::TimeWait,
            (Self::LastAck, Step::FinAcknowledged) => Self::Closed,
            // A close before the handshake's end is remembered by the sender and takes effect with it.
            (Self::SynSent | Self::SynReceived, Step::Shutdown | Step::Fin | Step::FinAcknowledged)
            // Closed already, on this side or both.
            | (Self::FinWait1 | Self::FinWait2 | Self::Closing | Self::LastAck | Self::TimeWait | Self::Closed, Step::Shutdown)
            // A FIN is taken in order once.
            | (Self::CloseWait | Self::Closing | Self::LastAck | Self::TimeWait | Self::Closed, Step::Fin)
            // There is no FIN of ours out, or its acknowledgement is old news.
            | (
                Self::Established | Self::CloseWait | Self::FinWait2 | Self::TimeWait | Self::Closed,
                Step::FinAcknowledged,
            ) => self,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
