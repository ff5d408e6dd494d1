//! Fields of a JSON body, read as FastAPI reads them: numbers and truth values also as texts, what is not
//! known left alone, and everything that is wrong named at once.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult, wrong};

/// What is wrong with a value: FastAPI's type of error, and words.
pub(super) struct Wrong(pub(super) &'static str, pub(super) String);

/// The fields of an object, and what was wrong with them so far.
pub(super) struct Reader<'a> {
    fields: &'a Map<String, Value>,
    at: Vec<Value>,
    errors: Vec<Value>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, at: Vec::new(), errors: Vec::new() }
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Whether a field is there, and nothing.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(Value::is_null)
    }

    /// A field's value, or another one unless it is there and right.
    pub(super) fn value<T>(
        &mut self,
        name: &str,
        default: T,
        read: impl FnOnce(&'a Value) -> Result<T, Wrong>,
    ) -> T {
        let Some(value) = self.fields.get(name) else { return default };
        match read(value) {
            Ok(read) => read,
            Err(Wrong(kind, message)) => {
                self.add(kind, name, &message, value);
                default
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        self.value(name, default, flag)
    }

    pub(super) fn int(&mut self, name: &str, default: i64, range: RangeInclusive<i64>) -> i64 {
        self.value(name, default, |value| within(int(value)?, &range))
    }

    pub(super) fn float(&mut self, name: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        self.value(name, default, |value| within(float(value)?, &range))
    }

    pub(super) fn text(&mut self, name: &str, default: &str) -> String {
        self.value(name, default.to_owned(), text)
    }

    /// One of some texts.
    pub(super) fn choice(&mut self, name: &str, default: &str, choices: &[&str]) -> String {
        self.value(name, default.to_owned(), |value| choice(value, choices))
    }

    /// A list, each item read alone.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&'a Value) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let value = self.fields.get(name)?;
        let Some(items) = value.as_array() else {
            self.add("list_type", name, "Input should be a valid list", value);
            return None;
        };
        let mut all = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match read(item) {
                Ok(item) => all.push(item),
                Err(Wrong(kind, message)) => {
                    let loc = self.loc(&[json!(name), json!(i)]);
                    self.errors.push(wrong(kind, &loc, &message, item));
                }
            }
        }
        Some(all)
    }

    /// A list of objects, each read by its own fields.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Reader<'a>) -> T,
    ) -> Option<Vec<T>> {
        let objects = self.list(name, |value| {
            let object = value.as_object();
            object.ok_or_else(|| Wrong("model_type", "Input should be a valid dictionary".into()))
        })?;
        let each = objects.into_iter().enumerate().map(|(i, fields)| {
            let at = self.loc(&[json!(name), json!(i)]);
            let mut inner = Reader { fields, at, errors: Vec::new() };
            let read = read(&mut inner);
            self.errors.append(&mut inner.errors);
            read
        });
        Some(each.collect())
    }

    /// A field that must be there.
    pub(super) fn require(&mut self, name: &str) {
        if !self.has(name) {
            let object = Value::Object(self.fields.clone());
            self.add("missing", name, "Field required", &object);
        }
    }

    /// Says that a value is known, and why nothing is done for it.
    pub(super) fn refuse(&mut self, name: &str, why: &str) {
        let value = self.fields.get(name).unwrap_or(&Value::Null);
        self.add("unsupported", name, why, value);
    }

    fn add(&mut self, kind: &str, name: &str, message: &str, value: &Value) {
        let loc = self.loc(&[json!(name)]);
        self.errors.push(wrong(kind, &loc, message, value));
    }

    fn loc(&self, inner: &[Value]) -> Vec<Value> {
        self.at.iter().chain(inner).cloned().collect()
    }

    /// An error if anything was wrong.
    pub(super) fn end(self) -> ApiResult<()> {
        match self.errors.is_empty() {
            true => Ok(()),
            false => Err(ApiError::fields(self.errors)),
        }
    }
}

pub(super) fn flag(value: &Value) -> Result<bool, Wrong> {
    let word = match value {
        Value::Bool(flag) => return Ok(*flag),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.to_lowercase(),
        _ => String::new(),
    };
    match word.as_str() {
        "1" | "1.0" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "0.0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(Wrong("bool_type", "Input should be a valid boolean".to_owned())),
    }
}

fn int(value: &Value) -> Result<i64, Wrong> {
    let whole =
        |number: f64| (number.fract() == 0.0 && number.abs() < 9e18).then_some(number as i64);
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| Wrong("int_type", "Input should be a valid integer".to_owned()))
}

fn float(value: &Value) -> Result<f64, Wrong> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| number.is_finite());
    number.ok_or_else(|| Wrong("float_type", "Input should be a valid number".to_owned()))
}

pub(super) fn text(value: &Value) -> Result<String, Wrong> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| Wrong("string_type", "Input should be a valid string".to_owned()))
}

pub(super) fn choice(value: &Value, choices: &[&str]) -> Result<String, Wrong> {
    let text = text(value)?;
    if choices.contains(&text.as_str()) {
        return Ok(text);
    }
    let names: Vec<_> = choices.iter().map(|choice| format!("'{choice}'")).collect();
    Err(Wrong("enum", format!("Input should be {}", names.join(", "))))
}

fn within<T: PartialOrd + std::fmt::Display>(
    value: T,
    range: &RangeInclusive<T>,
) -> Result<T, Wrong> {
    let (from, to) = (range.start(), range.end());
    if value < *from {
        let message = format!("Input should be greater than or equal to {from}");
        return Err(Wrong("greater_than_equal", message));
    }
    match value > *to {
        true => {
            Err(Wrong("less_than_equal", format!("Input should be less than or equal to {to}")))
        }
        false => Ok(value),
    }
}
