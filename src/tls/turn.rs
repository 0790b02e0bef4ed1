//! One turn of a handshake by rustls's unbuffered API: the same for either side of it.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error, ProtocolVersion};

use crate::ticket::TlsVersion;
use crate::tls::cipher::HEADER;
use crate::tls::record::RECORD_MAX;

/// What rustls wants after a step of the handshake.
pub(super) enum Turn {
    /// Another step.
    Again,
    /// Nothing: it waits for a record, or the handshake has ended.
    Idle,
}

/// rustls's connection, of either side.
pub(super) trait Machine {
    /// What its side has of its own.
    type Data;

    /// Works on the records that it is shown.
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Machine for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Machine for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

/// Shows rustls the first `shown` bytes and does what it wants: how many bytes are to be forgotten, and what it came to.
pub(super) fn take<M: Machine>(
    machine: &mut M,
    input: &mut [u8],
    shown: usize,
    output: &mut Vec<u8>,
) -> (usize, Result<Turn, Error>) {
    let UnbufferedStatus { discard, state } = machine.process(input.get_mut(..shown).unwrap_or_default());
    (discard, state.and_then(|state| follow(state, output)))
}

/// Does what rustls wants.
fn follow<D>(state: ConnectionState<'_, '_, D>, output: &mut Vec<u8>) -> Result<Turn, Error> {
    match state {
        ConnectionState::EncodeTlsData(data) => encode(data, output).map(|()| Turn::Again),
        // It goes out in order, behind what was encoded before.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Turn::Idle),
        // Early data is refused (H4) and never sent, and no record behind the Finished message is shown to rustls.
        ConnectionState::ReadEarlyData(_)
        | ConnectionState::ReadTraffic(_)
        | ConnectionState::PeerClosed
        | ConnectionState::Closed
        | _ => Err(Error::General("a state that the handshake does not have".to_owned())),
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, output: &mut Vec<u8>) -> Result<(), Error> {
    let begin = output.len();
    match data.encode(&mut []) {
        Ok(_) | Err(EncodeError::AlreadyEncoded) => Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            output.resize(begin + required_size, 0);
            let written = data.encode(output.get_mut(begin..).unwrap_or_default());
            written.map(|_| ()).map_err(|error| Error::General(error.to_string()))
        }
    }
}

/// The alert that rustls has for the peer after an error. It wants to see the same input as before, though it works on it no more.
pub(super) fn collect_alert<M: Machine>(machine: &mut M, input: &mut Vec<u8>, mut shown: usize, output: &mut Vec<u8>) {
    while let UnbufferedStatus { discard, state: Ok(ConnectionState::EncodeTlsData(data)) } =
        machine.process(input.get_mut(..shown).unwrap_or_default())
    {
        if encode(data, output).is_err() {
            return;
        }
        input.drain(..discard.min(input.len()));
        shown = shown.saturating_sub(discard);
    }
}

/// Where the first record ends, if it is whole. What is wrong with it is for rustls to say, also when that is its length.
pub(super) fn first_record(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, ..] = *bytes else { return None };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    let end = if len > RECORD_MAX { HEADER } else { len };
    (end <= bytes.len()).then_some(end)
}

/// The version that has been agreed on.
pub(super) fn version_of(connection: &CommonState) -> Option<TlsVersion> {
    let version = connection.protocol_version()?;
    if version == ProtocolVersion::TLSv1_3 {
        Some(TlsVersion::Tls13)
    } else if version == ProtocolVersion::TLSv1_2 {
        Some(TlsVersion::Tls12)
    } else {
        None
    }
}
