//! The real NIC: ports and queues through capsule on DPDK. The only file that names capsule.
