//! The constants of a SavedModel's computation (`saved_model.pb`).
//!
//! The computation is not run and not understood. Constants are found wherever they stand, in the
//! graph or in one of its functions, and looked at one by one where they lie in the file.

use crate::error::{Error, Result};
use crate::weights::wire::{Fields, damaged};

/// Most constants that [`matching`] returns.
const MAX_FOUND: usize = 4096;
/// TensorFlow's numbers for `float`, `bfloat16` and `half`; networks trained in mixed precision have
/// tables of the latter.
const FLOATS: [i64; 3] = [1, 14, 19];

/// A constant of floats.
pub(super) struct Constant<'a> {
    pub(super) dims: Vec<usize>,
    dtype: i64,
    /// The values one after the other, if the file has them so.
    content: &'a [u8],
    /// Else a list of them, of which the last is repeated.
    listed: Vec<f32>,
}

impl Constant<'_> {
    /// Whether the values are these, up to rounding.
    pub(super) fn equals(&self, expected: impl IntoIterator<Item = f32>) -> bool {
        let Some(count) = self.dims.iter().try_fold(1, |n: usize, dim| n.checked_mul(*dim)) else {
            return false;
        };
        let single = self.dtype == FLOATS[0];
        let (width, most) = if single { (4, 1e-4) } else { (2, 1e-2) };
        let mut expected = expected.into_iter();
        let mut near =
            |found: f32| expected.next().is_some_and(|expected| (found - expected).abs() <= most);
        let equal = if !self.content.is_empty() {
            let value = |b: &[u8]| match self.dtype {
                14 => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
                19 => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
                _ => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            };
            count.checked_mul(width) == Some(self.content.len())
                && self.content.chunks_exact(width).map(value).all(&mut near)
        } else if let (Some(last), true) = (self.listed.last(), self.listed.len() <= count) {
            let repeated = std::iter::repeat_n(*last, count - self.listed.len());
            self.listed.iter().copied().chain(repeated).all(&mut near)
        } else {
            false
        };
        equal && expected.next().is_none()
    }
}

/// The constants of floats in the SavedModel `bytes` whose dimensions are `wanted`.
pub(super) fn matching<'a>(
    bytes: &'a [u8],
    wanted: impl Fn(&[usize]) -> bool,
) -> Result<Vec<Constant<'a>>> {
    let mut found = Vec::new();
    let mut node = |bytes: &'a [u8]| -> Result<()> {
        if let Some(constant) = constant(bytes, &wanted)? {
            if found.len() >= MAX_FOUND {
                return Err(Error::unsupported("the SavedModel has too many tables"));
            }
            found.push(constant);
        }
        Ok(())
    };
    // SavedModel.meta_graphs, MetaGraphDef.graph_def, then GraphDef.node and, in GraphDef.library,
    // FunctionDefLibrary.function and FunctionDef.node_def.
    each(bytes, 2, &mut |graph| {
        each(graph, 2, &mut |graph| {
            each(graph, 1, &mut node)?;
            each(graph, 2, &mut |library| {
                each(library, 1, &mut |function| each(function, 3, &mut node))
            })
        })
    })?;
    Ok(found)
}

/// Calls `f` with every field `number` of a message.
fn each<'a>(bytes: &'a [u8], number: u32, f: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut fields = Fields::new(bytes);
    while let Some((found, value)) = fields.next()? {
        if found == number {
            f(value.bytes()?)?;
        }
    }
    Ok(())
}

/// The constant in a node, if it is one of floats with `wanted` dimensions.
fn constant<'a>(
    node: &'a [u8],
    wanted: &impl Fn(&[usize]) -> bool,
) -> Result<Option<Constant<'a>>> {
    let (mut is_constant, mut tensor) = (false, None);
    let mut fields = Fields::new(node);
    while let Some((number, value)) = fields.next()? {
        match number {
            2 => is_constant = value.bytes()? == b"Const",
            5 => {
                // An entry of the attributes: a name and an AttrValue, whose field 8 is a tensor.
                let (mut is_value, mut attribute) = (false, &[][..]);
                let mut entry = Fields::new(value.bytes()?);
                while let Some((number, value)) = entry.next()? {
                    match number {
                        1 => is_value = value.bytes()? == b"value",
                        2 => attribute = value.bytes()?,
                        _ => {}
                    }
                }
                if is_value {
                    each(attribute, 8, &mut |bytes| {
                        tensor = Some(bytes);
                        Ok(())
                    })?;
                }
            }
            _ => {}
        }
    }
    let Some(tensor) = tensor.filter(|_| is_constant) else { return Ok(None) };
    let mut constant = Constant { dims: Vec::new(), dtype: 0, content: &[], listed: Vec::new() };
    let mut fields = Fields::new(tensor);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => constant.dtype = value.int()?,
            2 => dims(value.bytes()?, &mut constant.dims)?,
            4 => constant.content = value.bytes()?,
            _ => {}
        }
    }
    if !FLOATS.contains(&constant.dtype) || !wanted(&constant.dims) {
        return Ok(None);
    }
    let count = constant.dims.iter().try_fold(1, |n: usize, dim| n.checked_mul(*dim));
    let mut fields = Fields::new(tensor);
    while let Some((number, value)) = fields.next()? {
        if number == 5 {
            value.push_floats(&mut constant.listed, count.unwrap_or(0))?;
        }
    }
    Ok(Some(constant))
}

fn dims(shape: &[u8], dims: &mut Vec<usize>) -> Result<()> {
    each(shape, 2, &mut |dim| {
        let mut size = 0;
        let mut fields = Fields::new(dim);
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                size = usize::try_from(value.int()?).map_err(|_| damaged("a negative size"))?;
            }
        }
        if dims.len() >= 12 {
            return Err(damaged("a constant has too many dimensions"));
        }
        dims.push(size);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_whatever_they_are_stored_as() {
        let numbers = [0.0, -100.0, 0.25, 0.25];
        let floats: Vec<u8> = numbers.iter().flat_map(|x: &f32| x.to_le_bytes()).collect();
        let bf16: Vec<u8> =
            numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        let f16: Vec<u8> =
            numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let dims = vec![2, 2];
        for (dtype, content, listed) in [
            (1, &floats[..], vec![]),
            (14, &bf16[..], vec![]),
            (19, &f16[..], vec![]),
            (1, &[][..], vec![0.0, -100.0, 0.25]),
        ] {
            let constant = Constant { dims: dims.clone(), dtype, content, listed };
            assert!(constant.equals(numbers), "{dtype}");
            assert!(!constant.equals([0.0, -100.0, 0.25, 0.3]));
            assert!(!constant.equals(numbers[..3].to_vec()));
            assert!(!constant.equals([numbers.to_vec(), vec![0.25]].concat()));
        }
        for (dims, listed) in [(vec![2], vec![1.0; 3]), (vec![2], vec![]), (vec![2; 70], vec![1.0])]
        {
            let constant = Constant { dims, dtype: 1, content: &[], listed };
            assert!(!constant.equals([1.0, 1.0]));
        }
    }
}
