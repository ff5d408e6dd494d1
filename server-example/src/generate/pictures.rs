//! Pictures in requests: base64 with or without a data URL, or the address of one that this server keeps.

use serde_json::Value;
use tagbrush::{DecodeOptions, Image};

use super::read::{Reader, Wrong, text};
use crate::base64url;
use crate::jobs::files::Files;

/// Texts that stand for no picture.
const NONE: [&str; 5] = ["", "None", "none", "null", "string"];

/// Whether a text stands for no picture.
pub(super) fn is_none(text: &str) -> bool {
    NONE.contains(&text)
}

/// The pictures of a request, in the order in which they were read.
pub(super) struct Pictures<'a> {
    pub(super) bytes: Vec<Vec<u8>>,
    /// The address of this server, as its client knows it.
    pub(super) base: &'a str,
    pub(super) files: &'a Files,
    pub(super) most_bytes: usize,
    pub(super) decode: DecodeOptions,
}

impl Pictures<'_> {
    /// A field's picture. The field becomes empty without one; else where the picture is kept stands in
    /// it later.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, name: &str) -> String {
        let read = reader.value(name, None, |value| self.picture(value));
        match read {
            Some(bytes) => {
                self.bytes.push(bytes);
                GIVEN.to_owned()
            }
            None => String::new(),
        }
    }

    fn picture(&self, value: &Value) -> Result<Option<Vec<u8>>, Wrong> {
        if value.is_null() {
            return Ok(None);
        }
        let text = text(value)?;
        if is_none(&text) {
            return Ok(None);
        }
        let wrong = |why: String| Wrong("value_error", why);
        let bytes = match text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http")) {
            true => self.own(&text).ok_or_else(|| {
                wrong(
                    "only addresses of this server's /inputs and /outputs are read; send base64"
                        .into(),
                )
            })?,
            false => base64url::decode(&text, self.most_bytes).map_err(wrong)?,
        };
        // What waits is the encoded form, which is smaller; that it is a picture is known.
        Image::decode_with(&bytes, &self.decode).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(bytes))
    }

    /// What this server keeps under an address of its own: fetching what a stranger names would let them
    /// reach what only this machine can.
    fn own(&self, address: &str) -> Option<Vec<u8>> {
        let path = address.strip_prefix(self.base)?;
        match path.strip_prefix("/inputs/") {
            Some(name) => self.files.input(name).ok(),
            None => {
                let (day, name) = path.strip_prefix("/outputs/")?.split_once('/')?;
                self.files.output(day, name).ok()
            }
        }
    }
}

/// What stands in a field whose picture is not kept yet.
const GIVEN: &str = "inputs/";
