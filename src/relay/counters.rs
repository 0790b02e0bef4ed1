//! What a lane counts of its relayed connections.

use crate::base::Counter;
use crate::persistence::Reason;
use crate::relay::End;
use crate::ticket::TlsVersion;
use crate::tls::{ClientFault, Failure, Handshake, client};

crate::counters! {
    /// What a lane counts of its relayed connections.
    pub struct Counters {
        /// Connections accepted from clients
        counter accepted,
        /// Connections that are open, in handshake, relaying or closing
        gauge open,
        /// Full TLS 1.3 handshakes
        counter handshakes_tls13_full,
        /// Resumed TLS 1.3 handshakes
        counter handshakes_tls13_resumed,
        /// Full TLS 1.2 handshakes
        counter handshakes_tls12_full,
        /// Resumed TLS 1.2 handshakes
        counter handshakes_tls12_resumed,
        /// Full TLS handshakes with servers
        counter server_handshakes_full,
        /// Resumed TLS handshakes with servers
        counter server_handshakes_resumed,
        /// Bytes of application data from clients
        counter bytes_received,
        /// Bytes of application data to clients
        counter bytes_sent,
        /// Decisions without a persistence profile
        counter decided_off,
        /// Clients whose mapping was asked for by their address
        counter decided_recalling,
        /// Decisions for clients without a mapping
        counter decided_no_mapping,
        /// Clients sent to the server of their mapping
        counter decided_persisted,
        /// Clients sent to the server of their mapping although it is down
        counter decided_persisted_though_down,
        /// Clients sent to the server of their mapping, which is down here, because another engine has only just given them to it
        counter decided_disputed,
        /// Clients sent to the server of their mapping although it is drained
        counter decided_persisted_draining,
        /// Clients that had to wait for a place at their server
        counter decided_queued,
        /// Clients sent to another server for one connection because theirs had no place
        counter decided_spilled,
        /// Clients switched because their server is down
        counter decided_switched_down,
        /// Clients switched because their server is drained
        counter decided_switched_draining,
        /// Clients switched because their server is disabled
        counter decided_switched_disabled,
        /// Clients switched because their server had no place
        counter decided_switched_limit,
        /// Clients switched because their server is not in the pool any more
        counter decided_switched_removed,
        /// Clients switched because their mapping is too old
        counter decided_switched_aged,
        /// Clients refused because their server is down
        counter decided_refused_down,
        /// Clients refused because their server is drained
        counter decided_refused_draining,
        /// Clients refused because their server is disabled
        counter decided_refused_disabled,
        /// Clients refused because their server had no place
        counter decided_refused_limit,
        /// Clients refused because their server had no place and too many waited for one
        counter decided_refused_queue,
        /// Clients turned away because no server is usable
        counter decided_pool_down,
        /// Clients turned away because no server had a place
        counter decided_pool_full,
        /// Connections that were tried again at another server because one could not be connected to
        counter connects_retried,
        /// Clients that wait for a place at their server
        gauge waiting,
        /// Clients that waited and got a place
        counter admitted,
        /// Connections that both sides closed in order
        counter ended_finished,
        /// Connections that the client reset
        counter ended_client_reset,
        /// Connections whose client stopped answering
        counter ended_client_timed_out,
        /// Connections whose client closed before its TLS handshake ended
        counter ended_client_gone,
        /// Connections whose client closed without close_notify before the server was done
        counter ended_client_truncated,
        /// Connections whose first bytes were not TLS
        counter ended_not_tls,
        /// Connections for a server name that a strict service does not know
        counter ended_unknown_server_name,
        /// Handshakes with no version, cipher suite, key share or signature scheme in common
        counter ended_nothing_in_common,
        /// Connections that the client ended with a fatal alert
        counter ended_alert_received,
        /// Connections with a message that TLS does not allow or that does not decrypt
        counter ended_tls_protocol,
        /// Connections of clients without a certificate where one is required
        counter ended_client_certificate_missing,
        /// Connections of clients whose certificate is of no CA that the service knows
        counter ended_client_certificate_unknown_ca,
        /// Connections of clients whose certificate has expired or is not valid yet
        counter ended_client_certificate_expired,
        /// Connections of clients whose certificate has been revoked
        counter ended_client_certificate_revoked,
        /// Connections of clients of whose certificate's issuer there is no revocation list that holds
        counter ended_client_certificate_revocation_unknown,
        /// Connections of clients whose certificate or signature is wrong
        counter ended_client_certificate_invalid,
        /// Connections whose keys have sealed as many records as TLS 1.2 allows
        counter ended_tls_keys_spent,
        /// Connections that ended on an error of the TLS library's own
        counter ended_tls_internal,
        /// Connections whose client did not finish the TLS handshake in time
        counter ended_handshake_timed_out,
        /// Connections refused by persistence
        counter ended_refused,
        /// Connections whose client waited too long for a place at its server
        counter ended_queue_timed_out,
        /// Connections for which no server was usable
        counter ended_no_server,
        /// Connections for which the engine had no table entry or source port left
        counter ended_no_resources,
        /// Connections whose server answered the SYN with a reset
        counter ended_server_refused,
        /// Connections whose server did not answer
        counter ended_server_timed_out,
        /// Connections to whose server there was no way
        counter ended_server_unreachable,
        /// Connections that the server reset
        counter ended_server_reset,
        /// Connections whose server closed without close_notify, or before its TLS handshake ended
        counter ended_server_truncated,
        /// Connections whose server does not speak TLS
        counter ended_server_not_tls,
        /// Connections whose server has no version, cipher suite, key share or signature scheme in common with us
        counter ended_server_nothing_in_common,
        /// Connections whose server's certificate is of no CA that its pool knows
        counter ended_server_certificate_unknown_ca,
        /// Connections whose server's certificate is for other names
        counter ended_server_certificate_wrong_name,
        /// Connections whose server's certificate has expired or is not valid yet
        counter ended_server_certificate_expired,
        /// Connections whose server's certificate or signature is wrong
        counter ended_server_certificate_invalid,
        /// Connections whose server refused our certificate, or that there was none
        counter ended_server_refused_certificate,
        /// Connections that the server ended with a fatal alert
        counter ended_server_alert_received,
        /// Connections whose server sent a message that TLS does not allow or that does not decrypt
        counter ended_server_tls_protocol,
        /// Connections whose keys with the server have sealed as many records as TLS 1.2 allows
        counter ended_server_tls_keys_spent,
        /// Connections that ended on an error of the TLS library's own towards the server
        counter ended_server_tls_internal,
        /// Connections without a byte for too long
        counter ended_idle_timed_out,
        /// Connections cut because their server was drained and the time was up
        counter ended_server_drained,
        /// Connections cut because the operator disabled their server
        counter ended_server_disabled,
        /// Connections cut because the engine stopped
        counter ended_drained,
    }
}

impl Counters {
    /// Counts the end of a handshake and the decision that came with it.
    pub fn on_handshake(&self, handshake: &Handshake) {
        let handshakes = match (handshake.version, handshake.resumed) {
            (TlsVersion::Tls13, false) => &self.handshakes_tls13_full,
            (TlsVersion::Tls13, true) => &self.handshakes_tls13_resumed,
            (TlsVersion::Tls12, false) => &self.handshakes_tls12_full,
            (TlsVersion::Tls12, true) => &self.handshakes_tls12_resumed,
        };
        handshakes.increment();
        self.on_decided(handshake.decision.reason);
    }

    /// Counts a decision.
    pub fn on_decided(&self, reason: Reason) {
        self.decided(reason).increment();
    }

    fn decided(&self, reason: Reason) -> &Counter {
        match reason {
            Reason::Off => &self.decided_off,
            Reason::Recalling => &self.decided_recalling,
            Reason::NoMapping => &self.decided_no_mapping,
            Reason::Persisted => &self.decided_persisted,
            Reason::PersistedThoughDown => &self.decided_persisted_though_down,
            Reason::Disputed => &self.decided_disputed,
            Reason::PersistedDraining => &self.decided_persisted_draining,
            Reason::Queued => &self.decided_queued,
            Reason::Spilled => &self.decided_spilled,
            Reason::SwitchedDown => &self.decided_switched_down,
            Reason::SwitchedDraining => &self.decided_switched_draining,
            Reason::SwitchedLimit => &self.decided_switched_limit,
            Reason::SwitchedDisabled => &self.decided_switched_disabled,
            Reason::SwitchedRemoved => &self.decided_switched_removed,
            Reason::SwitchedAged => &self.decided_switched_aged,
            Reason::RefusedDown => &self.decided_refused_down,
            Reason::RefusedDraining => &self.decided_refused_draining,
            Reason::RefusedDisabled => &self.decided_refused_disabled,
            Reason::RefusedLimit => &self.decided_refused_limit,
            Reason::RefusedQueue => &self.decided_refused_queue,
            Reason::PoolDown => &self.decided_pool_down,
            Reason::PoolFull => &self.decided_pool_full,
        }
    }

    /// Counts the end of a handshake with a server.
    pub fn on_server_handshake(&self, resumed: bool) {
        let handshakes = if resumed { &self.server_handshakes_resumed } else { &self.server_handshakes_full };
        handshakes.increment();
    }

    fn ended_server_tls(&self, failure: client::Failure) -> &Counter {
        match failure {
            client::Failure::NotTls => &self.ended_server_not_tls,
            client::Failure::NothingInCommon => &self.ended_server_nothing_in_common,
            client::Failure::UnknownAuthority => &self.ended_server_certificate_unknown_ca,
            client::Failure::WrongName => &self.ended_server_certificate_wrong_name,
            client::Failure::Expired => &self.ended_server_certificate_expired,
            client::Failure::InvalidCertificate => &self.ended_server_certificate_invalid,
            client::Failure::CertificateRefused => &self.ended_server_refused_certificate,
            client::Failure::AlertReceived => &self.ended_server_alert_received,
            client::Failure::Protocol => &self.ended_server_tls_protocol,
            client::Failure::KeysSpent => &self.ended_server_tls_keys_spent,
            client::Failure::Internal => &self.ended_server_tls_internal,
        }
    }

    /// Counts the end of a connection.
    pub fn on_end(&self, end: End) {
        let ended = match end {
            End::Finished => &self.ended_finished,
            End::ClientReset => &self.ended_client_reset,
            End::ClientTimedOut => &self.ended_client_timed_out,
            End::ClientGone => &self.ended_client_gone,
            End::ClientTruncated => &self.ended_client_truncated,
            End::Tls(Failure::NotTls) => &self.ended_not_tls,
            End::Tls(Failure::UnknownServerName) => &self.ended_unknown_server_name,
            End::Tls(Failure::NothingInCommon) => &self.ended_nothing_in_common,
            End::Tls(Failure::AlertReceived) => &self.ended_alert_received,
            End::Tls(Failure::Protocol) => &self.ended_tls_protocol,
            End::Tls(Failure::Client(ClientFault::Missing)) => &self.ended_client_certificate_missing,
            End::Tls(Failure::Client(ClientFault::UnknownAuthority)) => &self.ended_client_certificate_unknown_ca,
            End::Tls(Failure::Client(ClientFault::Expired)) => &self.ended_client_certificate_expired,
            End::Tls(Failure::Client(ClientFault::Revoked)) => &self.ended_client_certificate_revoked,
            End::Tls(Failure::Client(ClientFault::RevocationUnknown)) => {
                &self.ended_client_certificate_revocation_unknown
            }
            End::Tls(Failure::Client(ClientFault::Invalid)) => &self.ended_client_certificate_invalid,
            End::Tls(Failure::KeysSpent) => &self.ended_tls_keys_spent,
            End::Tls(Failure::Internal) => &self.ended_tls_internal,
            End::HandshakeTimedOut => &self.ended_handshake_timed_out,
            End::Refused => &self.ended_refused,
            End::QueueTimedOut => &self.ended_queue_timed_out,
            End::NoServer => &self.ended_no_server,
            End::NoResources => &self.ended_no_resources,
            End::ServerRefused => &self.ended_server_refused,
            End::ServerTimedOut => &self.ended_server_timed_out,
            End::ServerUnreachable => &self.ended_server_unreachable,
            End::ServerReset => &self.ended_server_reset,
            End::ServerTruncated => &self.ended_server_truncated,
            End::ServerTls(failure) => self.ended_server_tls(failure),
            End::IdleTimedOut => &self.ended_idle_timed_out,
            End::ServerDrained => &self.ended_server_drained,
            End::ServerDisabled => &self.ended_server_disabled,
            End::Drained => &self.ended_drained,
        };
        ended.increment();
    }
}
