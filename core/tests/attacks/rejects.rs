//! Damaged pictures: what the reference refuses is refused, what it accepts is accepted.

use serde::Deserialize;
use tagbrush::{ErrorKind, Image};

use crate::build::golden;

#[derive(Deserialize)]
struct Case {
    file: String,
    /// `ok`, or the reference's error.
    pillow: String,
    expected: Option<String>,
    lossy: Option<bool>,
}

/// Files on which we differ from the reference, and why that stays.
const DIFFERENT: &[(&str, &str)] = &[];

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(golden("rejects/index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What differs from the reference, in words.
fn difference(case: &Case) -> Option<String> {
    let found = Image::open(golden("rejects").join(&case.file));
    match (case.pillow.as_str(), found) {
        ("ok", Err(error)) => Some(format!("accepted by the reference: {error:#}")),
        ("ok", Ok(image)) if case.lossy == Some(false) => {
            let name = case.expected.as_ref().unwrap();
            let expected = Image::open(golden("rejects").join(name)).unwrap();
            // The expectation is resized; where sizes are equal, so must the pixels be.
            let same_size =
                image.width() == expected.width() && image.height() == expected.height();
            (same_size && image.pixels() != expected.pixels())
                .then(|| "other pixels than the reference".to_owned())
        }
        ("ok", Ok(_)) => None,
        (refusal, Ok(_)) => Some(format!("refused by the reference: {refusal}")),
        (_, Err(error)) => (error.kind() != ErrorKind::ImageDecode).then(|| format!("{error:?}")),
    }
}

#[test]
fn damaged_pictures_are_refused_and_accepted_as_by_the_reference() {
    let cases = cases();
    assert!(cases.len() >= 49);
    assert!(cases.iter().any(|case| case.pillow == "ok"));
    let mut failures = Vec::new();
    for case in &cases {
        let documented = DIFFERENT.iter().any(|(file, _)| *file == case.file);
        match (difference(case), documented) {
            (Some(difference), false) => failures.push(format!("{}: {difference}", case.file)),
            (None, true) => failures.push(format!("{}: differs no longer", case.file)),
            _ => {}
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
