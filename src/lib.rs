//! Sealane terminates TLS beside the kernel and remembers a client's server inside the client's own session ticket.
//!
//! The modules, in the order in which a packet meets them:
//!
//! | module | what |
//! | --- | --- |
//! | [`nic`] | frames in, frames out |
//! | [`wire`] | what a lane needs of a frame, parsed once |
//! | [`link`] | the next hop |
//! | [`tcp`] | connections |
//! | [`tls`] | sessions, and the only place where rustls meets tickets |
//! | [`ticket`] | how tickets are sealed, and the keys |
//! | [`persistence`] | whether a mapping is honoured, switched or refused |
//! | [`balance`] | pools, and the server that a new client gets |
//! | [`relay`] | joins a client's session to a server's connection |
//! | [`health`] | which servers are up |
//! | [`lane`] | one core's loop over all of these |
//! | [`control`] | everything that may block |
//! | [`load`] | load: clients, and the servers behind what they load |
//! | [`sim`] | the same lanes in a deterministic world |
//! | [`base`] | plain values that all of them name |

pub mod balance;
pub mod base;
pub mod control;
pub mod health;
pub mod lane;
pub mod link;
pub mod load;
pub mod nic;
pub mod persistence;
pub mod relay;
pub mod sim;
pub mod tcp;
pub mod ticket;
pub mod tls;
pub mod wire;
