//! Variable-length integers (LEB128, zigzag for signed), the alphabet of everything packed.
//!
//! Reading past the end yields zeros instead of a panic: packed bytes are checked once, when they come from
//! outside ([`super::codec`]), and a reader that outran them there stops with an error.

use thin_vec::ThinVec;

/// Where packed bytes go.
pub trait Packed {
    fn put(&mut self, bytes: &[u8]);
}

impl Packed for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Packed for ThinVec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[inline]
pub fn put_u64(out: &mut impl Packed, mut n: u64) {
    // Most are small, and one byte is stored faster than a slice is copied.
    if n < 0x80 {
        return out.put(&[n as u8]);
    }
    let (mut bytes, mut len) = ([0; 10], 0);
    while n >= 0x80 {
        bytes[len] = n as u8 | 0x80;
        n >>= 7;
        len += 1;
    }
    bytes[len] = n as u8;
    out.put(&bytes[..=len]);
}

/// How many bytes [`put_u64`] appends.
#[inline]
pub fn len_u64(n: u64) -> usize {
    (64 - (n | 1).leading_zeros()).div_ceil(7) as usize
}

#[inline]
pub fn put_i64(out: &mut impl Packed, n: i64) {
    put_u64(out, ((n << 1) ^ (n >> 63)) as u64);
}

#[inline]
pub fn put_u128(out: &mut impl Packed, mut n: u128) {
    if let Ok(short) = u64::try_from(n) {
        return put_u64(out, short);
    }
    let (mut bytes, mut len) = ([0; 19], 0);
    while n >= 0x80 {
        bytes[len] = n as u8 | 0x80;
        n >>= 7;
        len += 1;
    }
    bytes[len] = n as u8;
    out.put(&bytes[..=len]);
}

#[inline]
pub fn get_u64(bytes: &[u8], at: &mut usize) -> u64 {
    if let Some(byte) = bytes.get(*at).filter(|byte| **byte < 0x80) {
        *at += 1;
        return u64::from(*byte);
    }
    let (mut n, mut shift) = (0u64, 0u32);
    loop {
        let byte = bytes.get(*at).copied().unwrap_or(0);
        *at += 1;
        n |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 || shift > 63 {
            return n;
        }
        shift += 7;
    }
}

#[inline]
pub fn get_i64(bytes: &[u8], at: &mut usize) -> i64 {
    let n = get_u64(bytes, at);
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[inline]
pub fn get_u128(bytes: &[u8], at: &mut usize) -> u128 {
    if let Some(byte) = bytes.get(*at).filter(|byte| **byte < 0x80) {
        *at += 1;
        return u128::from(*byte);
    }
    let (mut n, mut shift) = (0u128, 0u32);
    loop {
        let byte = bytes.get(*at).copied().unwrap_or(0);
        *at += 1;
        n |= u128::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 || shift > 127 {
            return n;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reading_is_the_inverse_of_writing(a: u64, b: i64, c: u128) {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, a);
            put_i64(&mut bytes, b);
            put_u128(&mut bytes, c);
            let mut at = 0;
            prop_assert_eq!(get_u64(&bytes, &mut at), a);
            prop_assert_eq!(get_i64(&bytes, &mut at), b);
            prop_assert_eq!(get_u128(&bytes, &mut at), c);
            prop_assert_eq!(at, bytes.len());
        }

        #[test]
        fn reading_anything_ends(bytes: Vec<u8>) {
            let mut at = 0;
            while at < bytes.len() {
                let before = at;
                get_i64(&bytes, &mut at);
                prop_assert!(at > before);
            }
        }
    }
}
