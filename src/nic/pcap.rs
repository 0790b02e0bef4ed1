//! Frames written to a capture file that tcpdump and Wireshark read.
