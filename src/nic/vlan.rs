//! IEEE 802.1Q tags of a port that is in a VLAN: put into every frame that leaves, taken out of every one that arrives, so that nothing else knows of them.

/// Bytes of a tag: its EtherType, then three bits of priority, one that allows dropping, twelve of the VLAN.
pub const TAG_LEN: usize = 4;

/// Where a tag is: behind both addresses.
const ADDRESSES_LEN: usize = 12;

const ETHERTYPE: [u8; 2] = [0x81, 0x00];

/// The VLANs that a frame can be in: 0 means none, 4095 is reserved.
pub const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// The VLAN that a frame's tag names, if it has one and an EtherType behind it.
pub fn vlan_of(frame: &[u8]) -> Option<u16> {
    let tag = frame.get(ADDRESSES_LEN..ADDRESSES_LEN + TAG_LEN + 2)?;
    match tag {
        [a, b, high, low, ..] if [*a, *b] == ETHERTYPE => Some(u16::from_be_bytes([high & 0x0f, *low])),
        _ => None,
    }
}

/// Moves a tagged frame's addresses over its tag. The frame then begins [`TAG_LEN`] bytes later.
pub fn close(frame: &mut [u8]) {
    if let Some(head) = frame.get_mut(..ADDRESSES_LEN + TAG_LEN) {
        head.copy_within(..ADDRESSES_LEN, TAG_LEN);
    }
}

/// Puts a tag into a frame that begins [`TAG_LEN`] bytes behind the beginning of `room`, at which it begins then.
pub fn open(room: &mut [u8], vlan: u16) {
    let Some(head) = room.get_mut(..ADDRESSES_LEN + TAG_LEN) else { return };
    head.copy_within(TAG_LEN.., 0);
    if let Some(tag) = head.get_mut(ADDRESSES_LEN..) {
        let [high, low] = vlan.to_be_bytes();
        tag.copy_from_slice(&[ETHERTYPE[0], ETHERTYPE[1], high & 0x0f, low]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_is_read_where_the_standard_has_it() {
        let mut frame = [0; 18];
        frame[12..16].copy_from_slice(&[0x81, 0x00, 0xb0, 0x64]);
        assert_eq!(vlan_of(&frame), Some(100), "priority 5 and the drop bit are no part of it");
        assert_eq!(vlan_of(&frame[..17]), None, "nothing behind it");
        frame[12] = 0x08;
        assert_eq!(vlan_of(&frame), None);
        // 802.1ad: the provider's tag, and the customer's behind it.
        frame[12..16].copy_from_slice(&[0x88, 0xa8, 0, 100]);
        assert_eq!(vlan_of(&frame), None);
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out_and_the_frame_is_as_before(frame in proptest::collection::vec(any::<u8>(), 14..80), vlan in VLANS) {
            let mut tagged = vec![0; TAG_LEN];
            tagged.extend(&frame);
            open(&mut tagged, vlan);
            prop_assert_eq!(vlan_of(&tagged), Some(vlan));
            prop_assert_eq!(&tagged[..12], &frame[..12]);
            prop_assert_eq!(&tagged[16..], &frame[12..]);
            close(&mut tagged);
            prop_assert_eq!(&tagged[TAG_LEN..], &frame[..]);
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..40), vlan: u16) {
            let _ = vlan_of(&bytes);
            close(&mut bytes);
            open(&mut bytes, vlan);
        }
    }
}
