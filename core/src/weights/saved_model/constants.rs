//! The constants of a SavedModel's computation (`saved_model.pb`).
//!
//! The computation is not run and not understood. Constants are found wherever they stand, in the
//! graph or in one of its functions, and looked at one by one where they lie in the file.

use crate::error::{Error, Result};
use crate::weights::wire::{Fields, damaged};

/// Most constants that [`matching`] returns.
const MAX_FOUND: usize = 4096;
/// TensorFlow's number for `float`.
const FLOAT: i64 = 1;

/// A constant of floats.
pub(super) struct Constant<'a> {
    pub(super) dims: Vec<usize>,
    /// Little-endian floats, if the file has them so.
    content: &'a [u8],
    /// Else a list of them, of which the last is repeated.
    listed: Vec<f32>,
}

impl Constant<'_> {
    /// Whether the values are these, up to rounding.
    pub(super) fn equals(&self, expected: impl IntoIterator<Item = f32>) -> bool {
        let near = |found: f32, expected: f32| (found - expected).abs() <= 1e-4;
        let count = self.dims.iter().try_fold(1, |n: usize, dim| n.checked_mul(*dim));
        let mut expected = expected.into_iter();
        let equal = if self.content.is_empty() {
            let Some(last) = self.listed.last() else { return false };
            let listed = self.listed.iter().chain(std::iter::repeat(last)).take(count.unwrap_or(0));
            self.listed.len() <= count.unwrap_or(0)
                && listed.zip(expected.by_ref()).filter(|(a, b)| near(**a, *b)).count()
                    == count.unwrap_or(usize::MAX)
        } else {
            let values =
                self.content.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            count.and_then(|n| n.checked_mul(4)) == Some(self.content.len())
                && values.zip(expected.by_ref()).all(|(a, b)| near(a, b))
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
    let mut constant = Constant { dims: Vec::new(), content: &[], listed: Vec::new() };
    let mut dtype = 0;
    let mut fields = Fields::new(tensor);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => dtype = value.int()?,
            2 => dims(value.bytes()?, &mut constant.dims)?,
            4 => constant.content = value.bytes()?,
            _ => {}
        }
    }
    if dtype != FLOAT || !wanted(&constant.dims) {
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
