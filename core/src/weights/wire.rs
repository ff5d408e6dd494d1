//! The protobuf wire format: fields of one message, one after the other, out of untrusted bytes.
//!
//! Only what the readers of ONNX graphs and TensorFlow bundles need: varints, fixed-width values
//! and length-delimited bytes. Nothing is copied and nothing is allocated, so hostile lengths can
//! only end in an error; groups (long deprecated) are refused.

use crate::error::{Error, Result};

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: a string, bytes, a message or packed values.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// The fields of one message.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of the message that is encoded in `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value; `None` at the end of the message.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| damaged("a field number is out of range"))?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(fixed(&mut self.rest)?)),
            2 => {
                let length = varint(&mut self.rest)?;
                let length = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= self.rest.len())
                    .ok_or_else(|| damaged("a field is longer than the rest of the file"))?;
                let (bytes, rest) = self.rest.split_at(length);
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(fixed(&mut self.rest)?)),
            other => return Err(damaged(format!("wire type {other} is not used"))),
        };
        Ok(Some((number, value)))
    }
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field.
    pub(crate) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(damaged("a number stands where a message was expected")),
        }
    }

    /// The text of a string field; bytes that are not UTF-8 are replaced.
    pub(crate) fn text(self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    /// A number of the `int32`, `int64` or enum kind.
    pub(crate) fn int(self) -> Result<i64> {
        match self {
            Value::Varint(value) => Ok(value as i64),
            _ => Err(damaged("a message stands where a number was expected")),
        }
    }

    /// A `float`.
    pub(crate) fn float(self) -> Result<f32> {
        match self {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(damaged("a field that should be a float is not")),
        }
    }

    /// Appends the number or the packed numbers of a repeated integer field, at most `limit`.
    pub(crate) fn push_ints(self, into: &mut Vec<i64>, limit: usize) -> Result<()> {
        match self {
            Value::Varint(value) => push(into, value as i64, limit),
            Value::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    push(into, varint(&mut bytes)? as i64, limit)?;
                }
                Ok(())
            }
            _ => Err(damaged("a repeated number has the wrong wire type")),
        }
    }

    /// Appends the float or the packed floats of a repeated `float` field, at most `limit`.
    pub(crate) fn push_floats(self, into: &mut Vec<f32>, limit: usize) -> Result<()> {
        match self {
            Value::Fixed32(bits) => push(into, f32::from_bits(bits), limit),
            Value::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    push(into, f32::from_le_bytes(fixed(&mut bytes)?), limit)?;
                }
                Ok(())
            }
            _ => Err(damaged("a repeated float has the wrong wire type")),
        }
    }

    /// Appends the double or the packed doubles of a repeated `double` field, at most `limit`.
    pub(crate) fn push_doubles(self, into: &mut Vec<f32>, limit: usize) -> Result<()> {
        match self {
            Value::Fixed64(bits) => push(into, f64::from_bits(bits) as f32, limit),
            Value::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    push(into, f64::from_le_bytes(fixed(&mut bytes)?) as f32, limit)?;
                }
                Ok(())
            }
            _ => Err(damaged("a repeated double has the wrong wire type")),
        }
    }
}

fn push<T>(into: &mut Vec<T>, value: T, limit: usize) -> Result<()> {
    if into.len() >= limit {
        return Err(damaged(format!("a list has more than {limit} entries")));
    }
    into.push(value);
    Ok(())
}

/// Reads one varint off the front.
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for (i, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Ok(value);
        }
    }
    Err(damaged("a number is cut off or longer than 64 bits"))
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (value, left) =
        rest.split_first_chunk::<N>().ok_or_else(|| damaged("the file ends within a number"))?;
    *rest = left;
    Ok(*value)
}

pub(crate) fn damaged(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::model_invalid(format!("damaged protobuf data: {}", message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
        let mut fields = Fields::new(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn reads_every_wire_type() {
        let bytes = [
            0x08, 0x96, 0x01, // field 1: varint 150
            0x12, 0x02, b'o', b'k', // field 2: "ok"
            0x1d, 0, 0, 0x80, 0x3f, // field 3: 1.0
            0x21, 1, 0, 0, 0, 0, 0, 0, 0, // field 4: fixed64
        ];
        let fields = all(&bytes).unwrap();
        assert_eq!(fields[0], (1, Value::Varint(150)));
        assert_eq!(fields[1].1.text().unwrap(), "ok");
        assert_eq!(fields[2].1.float().unwrap(), 1.0);
        assert_eq!(fields[3], (4, Value::Fixed64(1)));
        for length in 0..bytes.len() {
            // Cut anywhere, the reader ends; it never panics.
            let _ = all(&bytes[..length]);
        }
    }

    #[test]
    fn refuses_hostile_fields() {
        for bytes in [
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..],
            &[0x12, 0x05, 1][..],
            &[0x0b][..],
            &[0x00, 0x00][..],
            &[0x80; 20][..],
            &[0x1d, 0, 0][..],
        ] {
            assert!(all(bytes).is_err(), "{bytes:?}");
        }
        let mut numbers = Vec::new();
        assert!(Value::Bytes(&[1; 9]).push_ints(&mut numbers, 8).is_err());
    }
}
