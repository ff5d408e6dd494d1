//! Values that do not depend on the image: initializers and what was computed from them.
//!
//! A constant remembers which initializers it came from, so that the import can show at its end
//! that it used every weight of the file.

use std::rc::Rc;

use super::graph::{Graph, numel};
use crate::error::{Error, Result};

/// The values of a constant.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Still in the file: initializer of this number.
    Stored {
        index: usize,
        integer: bool,
    },
    Floats(Rc<Vec<f32>>),
    /// Integers and booleans.
    Ints(Rc<Vec<i64>>),
}

impl Data {
    pub(super) fn floats(values: impl Iterator<Item = f32>) -> Self {
        Data::Floats(Rc::new(values.collect()))
    }

    pub(super) fn ints(values: impl Iterator<Item = i64>) -> Self {
        Data::Ints(Rc::new(values.collect()))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Data::Stored { .. } => 0,
            Data::Floats(values) => values.len(),
            Data::Ints(values) => values.len(),
        }
    }
}

/// A tensor that is the same for every image.
#[derive(Clone, Debug)]
pub(super) struct Const {
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
    /// The initializers that it was computed from.
    pub(super) sources: Rc<Vec<usize>>,
}

impl Const {
    pub(super) fn stored(dims: Vec<usize>, index: usize, integer: bool) -> Self {
        Self { dims, data: Data::Stored { index, integer }, sources: Rc::new(vec![index]) }
    }

    /// A computed constant; `sources` are the constants that it was computed from.
    pub(super) fn new(dims: Vec<usize>, data: Data, sources: &[&Const]) -> Result<Self> {
        if numel(&dims)? != data.len() {
            return Err(Error::model_invalid(format!(
                "a constant of shape {dims:?} has {} values",
                data.len()
            )));
        }
        let mut all: Vec<usize> = sources.iter().flat_map(|c| c.sources.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        Ok(Self { dims, data, sources: Rc::new(all) })
    }

    pub(super) fn scalar(value: f32) -> Self {
        let data = Data::Floats(Rc::new(vec![value]));
        Self { dims: Vec::new(), data, sources: Rc::default() }
    }

    pub(super) fn shape(dims: &[usize]) -> Self {
        let data = Data::ints(dims.iter().map(|dim| *dim as i64));
        Self { dims: vec![dims.len()], data, sources: Rc::default() }
    }

    pub(super) fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self.data, Data::Ints(_) | Data::Stored { integer: true, .. })
    }

    /// The same values under other dimensions.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Result<Self> {
        if numel(&dims)? != self.numel() {
            return Err(Error::model_invalid(format!(
                "a constant of shape {:?} cannot be reshaped to {dims:?}",
                self.dims
            )));
        }
        Ok(Self { dims, ..self.clone() })
    }

    fn loaded(&self, graph: &Graph<'_>) -> Result<Data> {
        match &self.data {
            Data::Stored { index, .. } => graph.load(&graph.initializers[*index]),
            data => Ok(data.clone()),
        }
    }

    /// The values as floats.
    pub(super) fn floats(&self, graph: &Graph<'_>) -> Result<Rc<Vec<f32>>> {
        Ok(match self.loaded(graph)? {
            Data::Floats(values) => values,
            Data::Ints(values) => Rc::new(values.iter().map(|v| *v as f32).collect()),
            Data::Stored { .. } => Rc::default(),
        })
    }

    /// The values as integers; floats are cut off, as a cast does.
    pub(super) fn ints(&self, graph: &Graph<'_>) -> Result<Rc<Vec<i64>>> {
        Ok(match self.loaded(graph)? {
            Data::Ints(values) => values,
            Data::Floats(values) => Rc::new(values.iter().map(|v| *v as i64).collect()),
            Data::Stored { .. } => Rc::default(),
        })
    }

    /// The value of a constant that has one.
    pub(super) fn single(&self, graph: &Graph<'_>) -> Result<Option<f32>> {
        if self.numel() != 1 {
            return Ok(None);
        }
        Ok(self.floats(graph)?.first().copied())
    }
}
