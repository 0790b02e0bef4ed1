/* See shims.h. */
#include <stdio.h>
#include <stddef.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_net.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include "shims.h"

int _rte_errno(void)
{
    return rte_errno;
}

struct rte_mbuf *_rte_pktmbuf_alloc(struct rte_mempool *pool)
{
    return rte_pktmbuf_alloc(pool);
}

void _rte_pktmbuf_free(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_free(mbuf);
}

int _rte_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned count)
{
    return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void _rte_mempool_put_bulk(struct rte_mempool *pool, void *const *objects, unsigned count)
{
    rte_mempool_put_bulk(pool, objects, count);
}

uint16_t _rte_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t _rte_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_tx_burst(port, queue, mbufs, count);
}

struct rte_mbuf *sealane_unchain(struct rte_mbuf *mbuf)
{
    struct rte_mbuf *rest = mbuf->next;

    if (rest == NULL)
        return NULL;
    rest->nb_segs = mbuf->nb_segs - 1;
    rest->pkt_len = mbuf->pkt_len - mbuf->data_len;
    rest->ol_flags = mbuf->ol_flags;
    rest->port = mbuf->port;
    mbuf->next = NULL;
    mbuf->nb_segs = 1;
    mbuf->pkt_len = mbuf->data_len;
    return rest;
}

void sealane_finish_received(struct rte_mbuf *mbuf)
{
    if ((mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) != RTE_MBUF_F_RX_L4_CKSUM_NONE || mbuf->nb_segs != 1)
        return;

    struct rte_net_hdr_lens lens;
    uint32_t type = rte_net_get_ptype(mbuf, &lens, RTE_PTYPE_ALL_MASK);
    size_t l4 = lens.l2_len + lens.l3_len;
    bool is_tcp = (type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_TCP;
    size_t field = l4 + (is_tcp ? offsetof(struct rte_tcp_hdr, cksum) : offsetof(struct rte_udp_hdr, dgram_cksum));

    if ((!is_tcp && (type & RTE_PTYPE_L4_MASK) != RTE_PTYPE_L4_UDP) || field + sizeof(uint16_t) > mbuf->data_len)
        return;
    uint16_t *sum = rte_pktmbuf_mtod_offset(mbuf, uint16_t *, field);
    void *l3 = rte_pktmbuf_mtod_offset(mbuf, void *, lens.l2_len);

    *sum = 0;
    *sum = RTE_ETH_IS_IPV4_HDR(type) ? rte_ipv4_udptcp_cksum_mbuf(mbuf, l3, l4) : rte_ipv6_udptcp_cksum_mbuf(mbuf, l3, l4);
    mbuf->ol_flags = (mbuf->ol_flags & ~RTE_MBUF_F_RX_L4_CKSUM_MASK) | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
}

#define ASKED (RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_L4_MASK)

/* Computes the checksums that the mbuf asks of a port that cannot. The pseudo header is summed anew, since DPDK's function includes it. */
static void checksum_in_software(struct rte_mbuf *mbuf)
{
    size_t l4 = mbuf->l2_len + mbuf->l3_len;
    void *l3 = rte_pktmbuf_mtod_offset(mbuf, void *, mbuf->l2_len);

    if ((mbuf->ol_flags & RTE_MBUF_F_TX_IP_CKSUM) && mbuf->data_len >= mbuf->l2_len + sizeof(struct rte_ipv4_hdr)) {
        struct rte_ipv4_hdr *ip = l3;

        ip->hdr_checksum = 0;
        ip->hdr_checksum = rte_ipv4_cksum(ip);
    }
    if ((mbuf->ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM && mbuf->data_len >= l4 + sizeof(struct rte_tcp_hdr)) {
        struct rte_tcp_hdr *tcp = rte_pktmbuf_mtod_offset(mbuf, struct rte_tcp_hdr *, l4);

        tcp->cksum = 0;
        tcp->cksum = (mbuf->ol_flags & RTE_MBUF_F_TX_IPV4) ? rte_ipv4_udptcp_cksum_mbuf(mbuf, l3, l4)
                                                           : rte_ipv6_udptcp_cksum_mbuf(mbuf, l3, l4);
    }
    mbuf->ol_flags &= ~ASKED;
}

uint16_t sealane_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count, uint64_t able)
{
    uint16_t refused = 0;
    uint16_t next = 0;

    if ((able & ASKED) != (RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM)) {
        for (uint16_t i = 0; i < count; i++) {
            /* Both or neither: a port that serves TCP only gets the IPv4 header's sum from here, and keeps the request for TCP's. */
            uint64_t missing = mbufs[i]->ol_flags & ASKED & ~able;

            if (missing == 0)
                continue;
            uint64_t kept = mbufs[i]->ol_flags & ASKED & able;

            mbufs[i]->ol_flags &= ~kept;
            checksum_in_software(mbufs[i]);
            mbufs[i]->ol_flags |= kept;
        }
    }

    /* Each turn sends or frees at least one mbuf, so the loop ends. */
    while (next < count) {
        uint16_t left = count - next;
        uint16_t ready = able & ASKED ? rte_eth_tx_prepare(port, queue, mbufs + next, left) : left;
        uint16_t sent = ready ? rte_eth_tx_burst(port, queue, mbufs + next, ready) : 0;

        next += sent;
        if (sent == ready && ready < left) {
            /* The driver refuses this one, whatever room there is. */
            rte_pktmbuf_free(mbufs[next++]);
            refused++;
        } else if (sent == 0) {
            refused += count - next;
            rte_pktmbuf_free_bulk(mbufs + next, count - next);
            break;
        }
    }
    return refused;
}

uint64_t sealane_transmit_flags(uint64_t tx_offloads)
{
    uint64_t flags = 0;

    if (tx_offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM)
        flags |= RTE_MBUF_F_TX_IP_CKSUM;
    if (tx_offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
        flags |= RTE_MBUF_F_TX_TCP_CKSUM;
    if (tx_offloads & RTE_ETH_TX_OFFLOAD_TCP_TSO)
        flags |= RTE_MBUF_F_TX_TCP_SEG;
    return flags;
}

void sealane_offload_checksum(struct rte_mbuf *mbuf, uint16_t l3_len, bool ipv6)
{
    size_t l4 = sizeof(struct rte_ether_hdr) + l3_len;

    mbuf->l2_len = sizeof(struct rte_ether_hdr);
    mbuf->l3_len = l3_len;
    /* net_tap copies the headers before it writes the checksum, so it must know where they end. */
    mbuf->l4_len = sizeof(struct rte_tcp_hdr);
    if (mbuf->data_len >= l4 + sizeof(struct rte_tcp_hdr))
        mbuf->l4_len = (rte_pktmbuf_mtod_offset(mbuf, struct rte_tcp_hdr *, l4)->data_off >> 4) * 4;
    mbuf->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
    mbuf->ol_flags |= ipv6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
}

void sealane_offload_segmentation(struct rte_mbuf *mbuf, uint16_t l3_len, bool ipv6, uint16_t payload)
{
    sealane_offload_checksum(mbuf, l3_len, ipv6);
    mbuf->tso_segsz = payload;
    mbuf->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
}

void sealane_lengthen_l2(struct rte_mbuf *mbuf, uint8_t by)
{
    mbuf->l2_len += by;
}

/* How a transmit queue of net_tap begins in 22.11, which soname 23 fixes. The number is ethdev's own. */
struct tap_queue {
    int type;
    uint16_t *mtu;
};

int sealane_tap_mtu(uint16_t port, uint16_t mtu)
{
    uint16_t known = 0;
    struct tap_queue *queue;

    if (rte_eth_dev_get_mtu(port, &known) != 0 || port >= RTE_MAX_ETHPORTS || rte_eth_fp_ops[port].txq.data == NULL)
        return -ENODEV;
    queue = rte_eth_fp_ops[port].txq.data[0];
    if (queue == NULL || queue->mtu == NULL || *queue->mtu != known)
        return -ENOTSUP;
    *queue->mtu = mtu;
    return rte_eth_dev_get_mtu(port, &known) == 0 && known == mtu ? 0 : -ENOTSUP;
}

int sealane_register_thread(void)
{
    if (rte_lcore_id() != LCORE_ID_ANY)
        return 0;
    return rte_thread_register() == 0 ? 1 : -rte_errno;
}

/* Rust's end, in src/log.rs. */
extern void sealane_log_line(int level, const char *text, size_t len);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
    (void)cookie;
    sealane_log_line(rte_log_cur_msg_loglevel(), text, len);
    return len;
}

int sealane_log_install(void)
{
    /* DPDK flushes after each message, so a message arrives whole unless it is longer than stdio's buffer. */
    FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = log_write });

    return stream == NULL ? -1 : rte_openlog_stream(stream);
}
