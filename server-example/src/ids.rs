//! Ids, seeds and hashes.

use sha2::{Digest, Sha256};

/// 128 random bits as 32 digits: the form of the documents' task ids.
pub(crate) fn new_id() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // No randomness from the system: unique all the same, and ids are no secrets.
        let hash = Sha256::digest(format!(
            "{:?}{:?}",
            std::time::SystemTime::now(),
            std::thread::current().id()
        ));
        bytes.copy_from_slice(&hash[..16]);
    }
    hex(&bytes)
}

/// A seed of 32 bits, which are all that the generator takes.
pub(crate) fn new_seed() -> u64 {
    u64::from_str_radix(&new_id()[..8], 16).unwrap_or_default()
}

/// Bytes as digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that equal pictures share.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_digits_and_differ() {
        let (a, b) = (new_id(), new_id());
        assert!(a != b && a.len() == 32 && a.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(new_seed() < 1 << 32);
        assert_eq!(hash(b"")[..8], *"e3b0c442");
    }
}
