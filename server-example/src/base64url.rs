//! Pictures in JSON: base64, with or without a data URL in front of it.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The standard alphabet; padding may be missing. White space is refused, as the documented server
/// does.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a picture, or what is wrong with the text. The length is checked first.
pub(crate) fn decode(text: &str, most: usize) -> Result<Vec<u8>, String> {
    let data = match text.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("data:") => {
            let (head, data) = text.split_once(',').ok_or("Invalid data URL format")?;
            if !head.to_ascii_lowercase().ends_with(";base64") {
                return Err("Invalid data URL format".to_owned());
            }
            data
        }
        _ => text,
    };
    if data.is_empty() {
        return Err("Empty image data".to_owned());
    }
    if data.len() / 4 > most / 3 + 1 {
        return Err(format!("the image is longer than the limit of {most} bytes"));
    }
    LENIENT.decode(data).map_err(|e| format!("Invalid encoded image: {e}"))
}

/// Bytes as text.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_and_bare_text_give_the_same() {
        for text in [
            "aGVsbG8=",
            "aGVsbG8",
            "data:image/png;base64,aGVsbG8=",
            "DATA:image/jpeg;charset=utf-8;BASE64,aGVsbG8=",
        ] {
            assert_eq!(decode(text, 100).unwrap(), b"hello", "{text}");
        }
        assert_eq!(decode(&encode(b"\xff\xfe"), 100).unwrap(), b"\xff\xfe");
    }

    #[test]
    fn other_text_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "Empty"),
            ("data:image/png;base64,", "Empty"),
            ("data:image/png", "data URL"),
            ("data:image/svg+xml,<svg/>", "data URL"),
            ("aGVs\nbG8=", "Invalid encoded"),
            ("aGVs bG8=", "Invalid encoded"),
            ("-_-_", "Invalid encoded"),
            ("a\0aa", "Invalid encoded"),
            ("ä", "Invalid encoded"),
            ("http://127.0.0.1/a.png", "Invalid encoded"),
            (&"A".repeat(10_000), "longer"),
        ] {
            assert!(decode(text, 100).unwrap_err().contains(why), "{text:.20}");
        }
    }
}
