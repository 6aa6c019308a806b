//! Seeded mutations of a corpus: what a stable toolchain can do without a fuzzer's coverage.

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

const BYTES_MOST: usize = 16 * 1024;

/// What parsers stumble over.
const WORDS: [&[u8]; 30] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"null",
    b"true",
    b"-0",
    b"1e400",
    b"NaN",
    b"inf",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"0000-01-01T00:00:00Z",
    b"9999-12-31T23:59:59.999Z",
    b"\r\n",
    b"\r\n\r\n",
    b"==",
    b"&&",
    b"?:",
    b"(",
    b"!",
    b"\"\"\"",
    b"[[stage]]\n",
];

/// An endless, repeatable stream of inputs made from `seeds`.
pub struct Mutations<'s> {
    seeds: &'s [Vec<u8>],
    random: Pcg64,
}

impl<'s> Mutations<'s> {
    pub fn new(seeds: &'s [Vec<u8>], seed: u64) -> Self {
        assert!(!seeds.is_empty(), "there is nothing to mutate");
        Mutations { seeds, random: Pcg64::seed_from_u64(seed) }
    }

    pub fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.some_seed().clone();
        for _ in 0..self.random.random_range(1..=6) {
            self.mutate(&mut bytes);
        }
        bytes.truncate(BYTES_MOST);
        bytes
    }

    fn some_seed(&mut self) -> &'s Vec<u8> {
        let at = self.random.random_range(0..self.seeds.len());
        &self.seeds[at]
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let (from, to) = self.range(bytes.len());
        match self.random.random_range(0..8) {
            0 if !bytes.is_empty() => {
                let at = self.random.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.random.random_range(0..8);
            }
            1 if !bytes.is_empty() => {
                let at = self.random.random_range(0..bytes.len());
                bytes[at] = self.random.random();
            }
            2 => drop(bytes.drain(from..to)),
            3 => {
                let copied = bytes[from..to].to_vec();
                let times = self.random.random_range(1..=40);
                bytes.splice(to..to, copied.repeat(times));
            }
            4 => {
                let other = self.some_seed();
                let (a, b) = self.range(other.len());
                bytes.splice(from..to, other[a..b].iter().copied());
            }
            5 => drop(bytes.splice(from..from, digits(&mut self.random))),
            _ => {
                let word = WORDS[self.random.random_range(0..WORDS.len())];
                bytes.splice(from..from, word.iter().copied());
            }
        }
    }

    /// A short stretch.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.random.random_range(0..=len);
        let most = (len - from).min(64);
        (from, from + self.random.random_range(0..=most))
    }
}

fn digits(random: &mut impl Rng) -> Vec<u8> {
    let number: i64 = random.random();
    (number >> random.random_range(0..63)).to_string().into_bytes()
}
