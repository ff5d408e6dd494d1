//! Replays the fuzz corpus, and seeded mutations of it, through every target.
//!
//! `TAGBRUSH_MUTATIONS` sets the number of mutations for each target: some thousands in every run,
//! millions when something changed in a reader. A failure prints the seed file and the mutation's
//! number, and leaves the bytes in the system's folder for temporary files.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{TARGETS, Target};

const MUTATIONS: u64 = 3000;

/// What counts as hanging. The pictures are a quarter of a megapixel at most.
const SLOW: Duration = Duration::from_secs(10);

/// xorshift64*, so that every run has the same mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Values that sizes, counts and offsets break at.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    u64::MAX,
];

/// `seed` with one to four changes; `other` is what pieces are spliced in from.
fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            // Headers are where sizes and types are.
            2 | 3 if !bytes.is_empty() => {
                let at = random.below(bytes.len().min(64));
                bytes[at] = random.next() as u8;
            }
            4 => {
                let edge = EDGES[random.below(EDGES.len())];
                let width = 1 << random.below(4);
                let at = random.below(bytes.len().min(if at.is_multiple_of(2) {
                    64
                } else {
                    usize::MAX
                }));
                let order = [edge.to_le_bytes(), edge.swap_bytes().to_be_bytes()];
                let big: Vec<u8> = edge.to_be_bytes()[8 - width..].to_vec();
                let value = if random.below(2) == 0 { &order[0][..width] } else { &big };
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            5 => {
                let length = random.below(64.min(bytes.len() - at + 1));
                bytes.drain(at..at + length);
            }
            6 => {
                let length = random.below(64.min(bytes.len() - at + 1));
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len());
                let length = random.below(128.min(other.len() - from + 1));
                bytes.splice(at..at, other[from..from + length].iter().copied());
            }
        }
    }
    bytes
}

/// Makes the checksums of a PNG right again in every second mutation, which would otherwise get no
/// further than to them.
fn repair(bytes: &mut [u8], random: &mut Random) {
    if !bytes.starts_with(b"\x89PNG") || random.below(2) == 0 {
        return;
    }
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(end) = at.checked_add(length + 8).filter(|end| end + 4 <= bytes.len()) else {
            return;
        };
        let sum = crc(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let fold = |sum: u32, byte: &u8| {
        (0..8)
            .fold(sum ^ u32::from(*byte), |s, _| (s >> 1) ^ (0xEDB8_8320 & (s & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, fold)
}

/// How long the target takes, or nothing if it panics.
fn survives(target: Target, bytes: &[u8]) -> Option<Duration> {
    let start = Instant::now();
    catch_unwind(AssertUnwindSafe(|| target(bytes))).ok().map(|()| start.elapsed())
}

fn keep(target: &str, number: u64, bytes: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("tagbrush-{target}-{number}"));
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[test]
fn every_corpus_file_and_its_mutations_are_survived() {
    let count = std::env::var("TAGBRUSH_MUTATIONS");
    let count: u64 = count.ok().map_or(MUTATIONS, |text| text.parse().unwrap());
    let only = std::env::var("TAGBRUSH_TARGET").ok();
    let mut failures = Vec::new();
    for (name, target) in TARGETS.iter().filter(|t| only.as_deref().is_none_or(|o| o == t.0)) {
        let files = corpus(name);
        assert!(files.len() >= 3, "{name} has no seeds");
        for (path, bytes) in &files {
            if survives(*target, bytes).is_none_or(|time| time > SLOW) {
                failures.push(format!("{name}: {}", path.display()));
            }
        }
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for number in 0..count {
            let (path, seed) = &files[random.below(files.len())];
            let (_, other) = &files[random.below(files.len())];
            let mut bytes = mutated(seed, other, &mut random);
            repair(&mut bytes, &mut random);
            let time = survives(*target, &bytes);
            if time.is_none_or(|time| time > SLOW) {
                let (seed, kept) = (path.display(), keep(name, number, &bytes));
                let what = time.map_or("panic".to_owned(), |time| format!("{time:?}"));
                failures.push(format!("{name}: mutation {number} of {seed}: {what}, {kept}"));
            }
        }
    }
    let shown = &failures[..failures.len().min(20)];
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
}
