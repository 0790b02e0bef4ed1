/* C functions around what DPDK only offers as inline functions, macros or bit fields. */
#ifndef SEALANE_SHIMS_H
#define SEALANE_SHIMS_H

#include <stdbool.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* ---- Names that capsule 0.1.5 imports; each is DPDK's inline function of the same name without the underscore. ---- */

/* rte_errno of the calling thread. */
int _rte_errno(void);

/* An empty mbuf with reset fields, or NULL when the pool is exhausted. */
struct rte_mbuf *_rte_pktmbuf_alloc(struct rte_mempool *pool);

/* Gives an mbuf and the segments chained to it back to their pools. */
void _rte_pktmbuf_free(struct rte_mbuf *mbuf);

/* Fills `mbufs` with `count` empty mbufs and returns 0, or takes none and returns a negative errno. */
int _rte_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned count);

/* Puts objects back as they are, without resetting them as mbufs. */
void _rte_mempool_put_bulk(struct rte_mempool *pool, void *const *objects, unsigned count);

/* Receives at most `count` mbufs; may deliver chains. */
uint16_t _rte_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

/* Sends the first mbufs of the array and returns how many; the caller keeps the rest. */
uint16_t _rte_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

/* ---- Sealane's own. ---- */

/*
 * Sends `count` single-segment mbufs in order and takes ownership of all of them. What the queue has no room for, and what the driver refuses
 * to send, is freed; returns how many were. `able` are the RTE_MBUF_F_TX_* flags that the port serves (sealane_transmit_flags): checksums that
 * an mbuf asks beyond them are computed here, so a frame may leave on any port; a long one only on ports that cut it.
 */
uint16_t sealane_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count, uint64_t able);

/*
 * The segment behind this one in a received chain, or NULL. It becomes an mbuf of its own, as the first one does, and has the first one's
 * offload flags: the driver proved the checksums of the whole.
 */
struct rte_mbuf *sealane_unchain(struct rte_mbuf *mbuf);

/*
 * Fills in the TCP or UDP checksum of a received packet whose field the device left open though it vouches for the data, as between virtual machines.
 */
void sealane_finish_received(struct rte_mbuf *mbuf);

/* The mbuf flags that a port with these RTE_ETH_TX_OFFLOAD_* serves. */
uint64_t sealane_transmit_flags(uint64_t tx_offloads);

/*
 * Asks for the IPv4 header's (if it is IPv4) and TCP's checksum when the frame is sent. The frame is Ethernet without VLAN tags, then `l3_len`
 * bytes of IP header and extension headers, then TCP with the pseudo header's sum in its checksum field.
 */
void sealane_offload_checksum(struct rte_mbuf *mbuf, uint16_t l3_len, bool ipv6);

/*
 * Asks for what sealane_offload_checksum asks for, and that TCP's data is cut into segments of `payload` bytes, each with these headers as far as they fit it.
 */
void sealane_offload_segmentation(struct rte_mbuf *mbuf, uint16_t l3_len, bool ipv6, uint16_t payload);

/* Says that what offloads were asked for begins `by` bytes later: behind a VLAN tag that has been put in since. */
void sealane_lengthen_l2(struct rte_mbuf *mbuf, uint8_t by);

/*
 * Has a port of net_tap, which is started, send frames of so long packets. The driver would, but tells ethdev of a bound of 1,522 bytes that it does not
 * have. Returns 0, or a negative errno: -ENOTSUP where it does not look like the driver of 22.11.
 */
int sealane_tap_mtu(uint16_t port, uint16_t mtu);

/*
 * Makes the calling thread an lcore, which gives it a mempool cache. Returns 1 when it became one and must call rte_thread_unregister
 * before it ends, 0 when it already was one, a negative errno when there is no free lcore id.
 */
int sealane_register_thread(void);

/* Sends what DPDK logs to sealane_log_line (src/log.rs), instead of to standard error and syslog. Call it before rte_eal_init. */
int sealane_log_install(void);

#endif
