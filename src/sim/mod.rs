//! A deterministic world: hosts and engines, links with loss, delay and reordering; a seed in, a trace out.
