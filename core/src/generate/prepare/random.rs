//! Python's `random.Random`, so that a seed picks what it picks in Fooocus.

use crate::schedule::Mersenne;

pub(super) struct PythonRandom(Mersenne);

impl PythonRandom {
    /// `random.Random(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        Self(if high == 0 { Mersenne::of_words(&[low]) } else { Mersenne::of_words(&[low, high]) })
    }

    /// What `choice` picks of a list; nothing of an empty one.
    pub(super) fn choice<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let count = u32::try_from(list.len()).ok().filter(|count| *count > 0)?;
        let bits = u32::BITS - count.leading_zeros();
        loop {
            let number = self.0.word() >> (u32::BITS - bits);
            if number < count {
                return list.get(number as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 prints for `[r.choice(range(n)) for n in (1, 2, 3, 5, 10, 277, 1000)]`.
    #[test]
    fn choices_are_those_of_python() {
        for (seed, expected) in [
            (0, [0, 1, 0, 2, 8, 248, 414]),
            (1, [0, 0, 1, 0, 7, 230, 483]),
            (12_345, [0, 0, 1, 2, 3, 138, 579]),
            (1 << 32, [0, 1, 1, 0, 0, 169, 857]),
            ((1 << 63) - 1, [0, 0, 1, 3, 1, 244, 792]),
            ((1 << 40) + 7, [0, 1, 2, 1, 8, 192, 533]),
        ] {
            let mut random = PythonRandom::new(seed);
            let found = [1, 2, 3, 5, 10, 277, 1000].map(|count| {
                let numbers: Vec<usize> = (0..count).collect();
                *random.choice(&numbers).unwrap()
            });
            assert_eq!(found, expected, "{seed}");
        }
        assert_eq!(PythonRandom::new(0).choice::<u8>(&[]), None);
    }
}
