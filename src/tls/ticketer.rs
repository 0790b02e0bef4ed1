//! rustls's `ProducesTickets` over our seal: the mapping travels beside rustls's own ticket.

crate::counters! {
    /// What a lane's ticketers count.
    pub struct Counters {
        /// Tickets sealed
        counter sealed,
    }
}
