//! The fields of a `config.json` of transformers: read by name, with the defaults of its classes, and
//! checked before any tensor is looked at.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The object that a file is.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::model_invalid(format!("not a JSON object: {e}")).caused_by(e))
}

/// The fields of one object of the file. Null is as good as not there.
pub(crate) struct Fields<'a> {
    /// What comes before a key in messages.
    path: String,
    values: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Those of a whole file.
    pub(crate) fn of(values: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), values }
    }

    /// Whether the file names the key, be it with null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The error for a value that means nothing.
    pub(crate) fn invalid(&self, key: &str, expected: impl Display) -> Error {
        let found = self.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        Error::model_invalid(format!("`{}{key}` is {found}, expected {expected}", self.path))
    }

    /// The error for a value that means something which is not there.
    pub(crate) fn unsupported(&self, key: &str, supported: impl Display) -> Error {
        let found = self.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        Error::unsupported(format!("`{}{key}` is {found}; supported is {supported}", self.path))
    }

    /// Fails if there is another value than these.
    pub(crate) fn one_of(&self, key: &str, supported: &[&str]) -> Result<()> {
        match self.get(key) {
            Some(value) if !supported.iter().any(|name| value == name) => {
                Err(self.unsupported(key, supported.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    /// Fails if there is another value than this one; numbers may have a point.
    pub(crate) fn only(&self, key: &str, supported: &Value) -> Result<()> {
        match self.get(key) {
            Some(value)
                if value != supported
                    && value.as_f64().zip(supported.as_f64()).is_none_or(|(a, b)| a != b) =>
            {
                Err(self.unsupported(key, supported))
            }
            _ => Ok(()),
        }
    }

    /// A number from 1 to `most`.
    pub(crate) fn size(&self, key: &str, default: usize, most: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .filter(|value| (1..=most).contains(value))
            .ok_or_else(|| self.invalid(key, format!("1 to {most}")))
    }

    /// A number above 0.
    pub(crate) fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value
            .as_f64()
            .filter(|value| value.is_normal() && *value > 0.0)
            .ok_or_else(|| self.invalid(key, "a positive number"))
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.invalid(key, "true or false")),
        }
    }

    /// One number from 0 to `most` for each of `stages`, which the file gives once if all are alike.
    pub(crate) fn per_stage(
        &self,
        key: &str,
        default: usize,
        most: usize,
        stages: usize,
    ) -> Result<Vec<usize>> {
        let number =
            |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|number| *number <= most);
        let numbers = match self.get(key) {
            None => Some(vec![default; stages]),
            Some(Value::Array(values)) => values.iter().map(number).collect(),
            Some(value) => number(value).map(|number| vec![number; stages]),
        };
        numbers
            .filter(|numbers| numbers.len() == stages)
            .ok_or_else(|| self.invalid(key, format!("a number up to {most}, or {stages} of them")))
    }

    /// A list of whole numbers.
    pub(crate) fn indexes(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let index = |value: &Value| usize::try_from(value.as_u64()?).ok();
        value
            .as_array()
            .and_then(|values| values.iter().map(index).collect())
            .ok_or_else(|| self.invalid(key, "a list of whole numbers"))
    }

    /// The fields of an object within.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let values = value.as_object().ok_or_else(|| self.invalid(key, "an object"))?;
        Ok(Some(Fields { path: format!("{}{key}.", self.path), values }))
    }
}

impl Default for Fields<'_> {
    fn default() -> Self {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        Self { path: String::new(), values: &NONE }
    }
}
