//! A NIC in memory: queue pairs of two or more lanes on one simulated port, for tests and simulation.
