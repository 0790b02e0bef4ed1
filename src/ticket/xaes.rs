//! XAES-256-GCM (C2SP): AES-256-GCM with a key derived for each 192-bit nonce, so that nonces may be drawn at random.
//!
//! The derivation is NIST SP 800-108r1's counter mode over CMAC-AES256. Its input is one block, so that all of CMAC which is left is the subkey `K1`,
//! computed once a key: a message costs two AES blocks and one key schedule more than plain AES-256-GCM.

use aes::Aes256Enc;
use aes::cipher::consts::U12;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{AesGcm, Tag};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;
/// Bytes of a nonce.
pub const NONCE_SIZE: usize = 24;
/// Bytes of a tag.
pub const TAG_SIZE: usize = 16;

/// So many messages, as a power of two, a key may seal under nonces drawn at random: two of them have the same nonce with a probability of 2^-33 then, which
/// is n²/2 over the 2^192 nonces that there are.
pub const MESSAGES_MAX_LOG2: u32 = 80;

/// A key, ready to seal and open.
///
/// Its round keys lie wherever it does. Whoever keeps keys for long keeps their bytes and [`SUBKEY_SIZE`] bytes of `K1` in a
/// [`Vault`](super::vault::Vault), and makes one of them for each message.
#[derive(ZeroizeOnDrop)]
pub struct Xaes {
    cipher: Aes256Enc,
    k1: u128,
}

/// Bytes of CMAC's subkey.
pub const SUBKEY_SIZE: usize = 16;

impl Xaes {
    /// Takes a key.
    pub fn new(key: &[u8; KEY_SIZE]) -> Self {
        let cipher = Aes256Enc::new(key.into());
        let mut block = Array::from([0; 16]);
        cipher.encrypt_block(&mut block);
        let l = u128::from_be_bytes(block.into());
        block.zeroize();
        // SP 800-38B 6.1: doubling in GF(2^128), without a branch on the secret bit.
        let k1 = (l << 1) ^ ((l >> 127) * 0b1000_0111);
        Self { cipher, k1 }
    }

    /// Takes a key whose subkey is known.
    pub fn with_subkey(key: &[u8; KEY_SIZE], k1: &[u8; SUBKEY_SIZE]) -> Self {
        Self { cipher: Aes256Enc::new(key.into()), k1: u128::from_ne_bytes(*k1) }
    }

    /// The subkey, for [`with_subkey`](Self::with_subkey) on the same machine: as secret as the key.
    pub fn subkey(&self) -> Zeroizing<[u8; SUBKEY_SIZE]> {
        Zeroizing::new(self.k1.to_ne_bytes())
    }

    /// Encrypts `buffer` in place and gives the tag over it and `additional`.
    pub fn seal(&self, nonce: &[u8; NONCE_SIZE], additional: &[u8], buffer: &mut [u8]) -> [u8; TAG_SIZE] {
        let (gcm, rest) = self.derive(nonce);
        gcm.encrypt_inout_detached(&rest.into(), additional, buffer.into())
            .expect("64 GiB of plaintext is the only error")
            .into()
    }

    /// Decrypts `buffer` in place if `tag` is right for it and `additional`; otherwise leaves it as it is and gives false.
    ///
    /// The tag is compared in constant time.
    #[must_use]
    pub fn open(&self, nonce: &[u8; NONCE_SIZE], additional: &[u8], buffer: &mut [u8], tag: &[u8; TAG_SIZE]) -> bool {
        let (gcm, rest) = self.derive(nonce);
        gcm.decrypt_inout_detached(&rest.into(), additional, buffer.into(), &Tag::from(*tag)).is_ok()
    }

    /// The AES-256-GCM key and nonce of one message: steps 3 to 6 of the specification.
    fn derive(&self, nonce: &[u8; NONCE_SIZE]) -> (AesGcm<Aes256Enc, U12>, [u8; 12]) {
        let (mut m1, mut rest) = ([0; 16], [0; 12]);
        // Counter in 16 bits, the label "X", a zero, then the first half of the nonce.
        m1[..4].copy_from_slice(&[0, 1, b'X', 0]);
        m1[4..].copy_from_slice(&nonce[..12]);
        rest.copy_from_slice(&nonce[12..]);
        let mut m2 = m1;
        m2[1] = 2;
        let masked = |message: [u8; 16]| Array::from((u128::from_be_bytes(message) ^ self.k1).to_be_bytes());
        let mut blocks = [masked(m1), masked(m2)];
        self.cipher.encrypt_blocks(&mut blocks);
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        key.copy_from_slice(Array::slice_as_flattened(&blocks));
        Array::slice_as_flattened_mut(&mut blocks).zeroize();
        (AesGcm::new((&*key).into()), rest)
    }
}

#[cfg(test)]
mod tests {
    use shake::digest::{ExtendableOutput, Update, XofReader};

    use super::*;

    /// Seals, checks that the result opens again, and gives ciphertext and tag.
    fn sealed(key: &[u8; 32], nonce: &[u8; 24], plaintext: &[u8], additional: &[u8]) -> Vec<u8> {
        let known = Xaes::new(key);
        let mut buffer = plaintext.to_vec();
        let tag = known.seal(nonce, additional, &mut buffer);
        let mut opened = buffer.clone();
        assert!(Xaes::with_subkey(key, &known.subkey()).open(nonce, additional, &mut opened, &tag));
        assert_eq!(opened, plaintext);
        buffer.extend_from_slice(&tag);
        buffer
    }

    #[test]
    fn s2_published_vectors_are_met() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        let plaintext = b"XAES-256-GCM";
        // MSB of L is 0 with the first key, 1 with the second.
        assert_eq!(
            hex::encode(sealed(&[1; 32], nonce, plaintext, b"")),
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
        );
        assert_eq!(
            hex::encode(sealed(&[3; 32], nonce, plaintext, b"c2sp.org/XAES-256-GCM")),
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"
        );
    }

    /// C2SP's accumulated test: inputs from one SHAKE-128, ciphertexts into another.
    #[test]
    fn s2_ten_thousand_random_messages_accumulate_to_the_published_hash() {
        let mut inputs = shake::Shake128::default().finalize_xof();
        let mut outputs = shake::Shake128::default();
        for _ in 0..10_000 {
            let (mut key, mut nonce) = ([0; 32], [0; 24]);
            inputs.read(&mut key);
            inputs.read(&mut nonce);
            let mut opaque = || {
                let mut length = [0];
                inputs.read(&mut length);
                let mut bytes = vec![0; usize::from(length[0])];
                inputs.read(&mut bytes);
                bytes
            };
            let (plaintext, additional) = (opaque(), opaque());
            outputs.update(&sealed(&key, &nonce, &plaintext, &additional));
        }
        let mut hash = [0; 32];
        outputs.finalize_xof().read(&mut hash);
        assert_eq!(hex::encode(hash), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    }

    #[test]
    fn s9_a_refused_message_is_not_decrypted() {
        let key = Xaes::new(&[7; 32]);
        let mut buffer = *b"secret";
        let mut tag = key.seal(&[0; 24], b"", &mut buffer);
        let ciphertext = buffer;
        tag[15] ^= 1;
        assert!(!key.open(&[0; 24], b"", &mut buffer, &tag));
        assert_eq!(buffer, ciphertext);
    }
}
