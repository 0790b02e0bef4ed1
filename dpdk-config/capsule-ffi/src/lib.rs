//! Bindings of DPDK 22.11 with the names that capsule 0.1.5 expects.
