//! One picture's answer as a line of JSON or CSV.

use std::path::Path;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::Error;
use crate::tagger::{CaptionOptions, Tags};

/// What a run found for one file.
///
/// Serialises as `{"path", "ratings", "characters", "tags"}`, or as `{"path", "error": {"code",
/// "message"}}` where the picture failed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FileTags<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its tags, or why it has none.
    pub tags: Result<&'a Tags, &'a Error>,
}

impl FileTags<'_> {
    /// The names of the columns of [`to_csv`](Self::to_csv).
    pub const CSV_HEADER: &'static str = "path,rating,characters,caption,error";

    /// The answer as one line of JSON, without a line break.
    pub fn to_json(&self) -> String {
        // Serialising strings and numbers into memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The answer as one row of CSV, without a line break: path, most probable rating, characters
    /// (separated by spaces), caption, error.
    pub fn to_csv(&self, caption: &CaptionOptions) -> String {
        let path = self.path.to_string_lossy();
        let fields = match self.tags {
            Ok(tags) => {
                let rating = tags.rating().map_or(String::new(), |tag| tag.name.to_string());
                let characters: Vec<_> = tags.characters.iter().map(|tag| &*tag.name).collect();
                [rating, characters.join(" "), tags.caption(caption), String::new()]
            }
            Err(error) => {
                let text = format!("{}: {error:#}", error.code());
                [String::new(), String::new(), String::new(), text]
            }
        };
        std::iter::once(quoted(&path))
            .chain(fields.iter().map(|field| quoted(field)))
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// A field of CSV, quoted where it must be (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

impl Serialize for FileTags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            path: std::borrow::Cow<'a, str>,
            #[serde(flatten)]
            tags: &'a Tags,
        }
        // Names that are no UTF-8 are shown with replacement characters, as everywhere.
        let path = self.path.to_string_lossy();
        match self.tags {
            Ok(tags) => Line { path, tags }.serialize(serializer),
            Err(error) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("path", &path)?;
                map.serialize_entry(
                    "error",
                    &serde_json::json!({ "code": error.code(), "message": format!("{error:#}") }),
                )?;
                map.end()
            }
        }
    }
}
