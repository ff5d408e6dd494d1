//! The bits of mt19937 (Matsumoto and Nishimura 1998), which torch and Python draw all else from.

/// Words of the state.
const WORDS: usize = 624;
/// How far apart the words are that are combined.
const SHIFT: usize = 397;

/// A state of mt19937.
#[derive(Clone)]
pub(crate) struct Mersenne {
    words: Box<[u32; WORDS]>,
    /// The next word to give; [`WORDS`] when all are used up.
    next: usize,
}

impl Mersenne {
    /// Seeded with one word.
    pub(crate) fn new(seed: u32) -> Self {
        let mut words = Box::new([0; WORDS]);
        words[0] = seed;
        for i in 1..WORDS {
            let before = words[i - 1];
            words[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { words, next: WORDS }
    }

    /// Seeded with several words, as Python does with a number of any length; with none as with a 0.
    pub(crate) fn of_words(key: &[u32]) -> Self {
        let key = if key.is_empty() { &[0] } else { key };
        let mut this = Self::new(19_650_218);
        let words = &mut this.words;
        let mut i = 1;
        let mut mix = |j: Option<usize>, factor: u32| {
            let before = words[i - 1];
            let mixed = words[i] ^ (before ^ (before >> 30)).wrapping_mul(factor);
            words[i] = match j {
                Some(j) => mixed.wrapping_add(key[j]).wrapping_add(j as u32),
                None => mixed.wrapping_sub(i as u32),
            };
            i += 1;
            if i == WORDS {
                words[0] = words[WORDS - 1];
                i = 1;
            }
        };
        (0..key.len().max(WORDS)).for_each(|step| mix(Some(step % key.len()), 1_664_525));
        (1..WORDS).for_each(|_| mix(None, 1_566_083_941));
        this.words[0] = 0x8000_0000;
        this
    }

    /// The next 32 bits.
    pub(crate) fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.renew();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9D2C_5680;
        word ^= (word << 15) & 0xEFC6_0000;
        word ^ (word >> 18)
    }

    /// The recurrence, for all words.
    fn renew(&mut self) {
        for i in 0..WORDS {
            let after = self.words[(i + 1) % WORDS];
            let mixed = (self.words[i] & 0x8000_0000) | (after & 0x7FFF_FFFF);
            let twist = if after & 1 == 0 { 0 } else { 0x9908_B0DF };
            self.words[i] = self.words[(i + SHIFT) % WORDS] ^ (mixed >> 1) ^ twist;
        }
        self.next = 0;
    }
}
