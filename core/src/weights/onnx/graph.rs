//! An ONNX file as a graph: nodes and their attributes in memory, initializers left in the file.
//!
//! Initializers are most of a file (hundreds of megabytes), so only their place is recorded and
//! they are decoded one by one when a weight is taken.

use std::collections::HashMap;
use std::ops::Range;

use super::constant::{Const, Data};
use crate::error::{Error, Result, ResultExt};
use crate::weights::wire::{Fields, Value, damaged};

/// Most nodes in one graph; the largest published taggers have some thousand.
const MAX_NODES: usize = 200_000;
/// Most initializers in one graph.
const MAX_INITIALIZERS: usize = 100_000;
/// Most entries in one attribute list or typed tensor field.
const MAX_LIST: usize = 1 << 28;
/// Most dimensions of one tensor.
const MAX_RANK: usize = 12;

/// One operation.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) op: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: HashMap<String, Attribute>,
}

/// An attribute of a node.
#[derive(Debug)]
pub(super) enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Stored),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    /// Subgraphs and other kinds that no supported operation has.
    Other,
}

/// A tensor of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    dtype: i64,
    /// Where the raw data lie in the file.
    raw: Option<Range<usize>>,
    /// Typed data, for tensors that are stored that way.
    floats: Vec<f32>,
    ints: Vec<i64>,
    external: bool,
}

/// A graph input or output with the dimensions that the file fixes.
#[derive(Debug, Default)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) dims: Vec<Option<usize>>,
}

/// A parsed file.
pub(super) struct Graph<'a> {
    bytes: &'a [u8],
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: Vec<Stored>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) opset: i64,
}

impl<'a> Graph<'a> {
    /// Parses the bytes of a file.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        refuse_other_formats(bytes)?;
        let mut graph = Graph {
            bytes,
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            opset: 0,
        };
        let mut found = None;
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                7 => found = Some(value.bytes()?),
                8 => graph.read_opset(value.bytes()?)?,
                _ => {}
            }
        }
        let found = found.ok_or_else(|| {
            Error::model_invalid("not an ONNX file: it holds no graph, or was cut off")
        })?;
        graph.read_graph(found)?;
        if graph.opset == 0 {
            return Err(Error::model_invalid("the ONNX file does not say its operator set"));
        }
        if graph.outputs.is_empty() {
            return Err(Error::model_invalid("the ONNX graph has no outputs"));
        }
        Ok(graph)
    }

    fn read_opset(&mut self, bytes: &[u8]) -> Result<()> {
        let (mut domain, mut version) = (String::new(), 0);
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => domain = value.text()?,
                2 => version = value.int()?,
                _ => {}
            }
        }
        if domain.is_empty() || domain == "ai.onnx" {
            self.opset = version;
        }
        Ok(())
    }

    fn read_graph(&mut self, bytes: &'a [u8]) -> Result<()> {
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => {
                    let node = self.read_node(value.bytes()?)?;
                    at_most("nodes", self.nodes.len(), MAX_NODES)?;
                    self.nodes.push(node);
                }
                5 => {
                    let tensor = self.read_tensor(value.bytes()?)?;
                    at_most("initializers", self.initializers.len(), MAX_INITIALIZERS)?;
                    self.initializers.push(tensor);
                }
                11 | 12 => {
                    let port = read_port(value.bytes()?)?;
                    let ports = if number == 11 { &mut self.inputs } else { &mut self.outputs };
                    at_most("inputs or outputs", ports.len(), MAX_INITIALIZERS)?;
                    ports.push(port);
                }
                15 => {
                    return Err(Error::unsupported("sparse initializers are not read"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_node(&self, bytes: &'a [u8]) -> Result<Node> {
        let mut node = Node::default();
        let mut domain = String::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => node.inputs.push(value.text()?),
                2 => node.outputs.push(value.text()?),
                3 => node.name = value.text()?,
                4 => node.op = value.text()?,
                5 => {
                    let (name, attribute) =
                        self.read_attribute(value.bytes()?).context("node", &node.name)?;
                    node.attributes.insert(name, attribute);
                }
                7 => domain = value.text()?,
                _ => {}
            }
        }
        if node.name.is_empty() {
            node.name = node.outputs.first().cloned().unwrap_or_default();
        }
        if !domain.is_empty() && domain != "ai.onnx" {
            node.op = format!("{domain}.{}", node.op);
        }
        Ok(node)
    }

    fn read_attribute(&self, bytes: &'a [u8]) -> Result<(String, Attribute)> {
        let (mut name, mut attribute) = (String::new(), Attribute::Other);
        let (mut ints, mut floats) = (Vec::new(), Vec::new());
        let mut kind = 0;
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => name = value.text()?,
                2 => attribute = Attribute::Float(value.float()?),
                3 => attribute = Attribute::Int(value.int()?),
                4 => attribute = Attribute::Text(value.text()?),
                5 => attribute = Attribute::Tensor(self.read_tensor(value.bytes()?)?),
                7 => value.push_floats(&mut floats, MAX_LIST)?,
                8 => value.push_ints(&mut ints, MAX_LIST)?,
                20 => kind = value.int()?,
                _ => {}
            }
        }
        // Proto3 leaves zeros out: the kind alone says that there is a number, or an empty list.
        attribute = match (attribute, kind) {
            (Attribute::Other, 1) => Attribute::Float(0.0),
            (Attribute::Other, 2) => Attribute::Int(0),
            (Attribute::Other, 6) => Attribute::Floats(floats),
            (Attribute::Other, 7) => Attribute::Ints(ints),
            (Attribute::Other, 0) if !ints.is_empty() => Attribute::Ints(ints),
            (attribute, _) => attribute,
        };
        Ok((name, attribute))
    }

    fn read_tensor(&self, bytes: &'a [u8]) -> Result<Stored> {
        let mut tensor = Stored::default();
        let mut dims = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => value.push_ints(&mut dims, MAX_RANK)?,
                2 => tensor.dtype = value.int()?,
                4 => value.push_floats(&mut tensor.floats, MAX_LIST)?,
                5 | 7 | 11 => value.push_ints(&mut tensor.ints, MAX_LIST)?,
                8 => tensor.name = value.text()?,
                9 => tensor.raw = Some(self.place(value)?),
                10 => value.push_doubles(&mut tensor.floats, MAX_LIST)?,
                13 => tensor.external = true,
                14 => tensor.external |= value.int()? == 1,
                _ => {}
            }
        }
        tensor.dims = dims
            .into_iter()
            .map(|dim| usize::try_from(dim).ok())
            .collect::<Option<_>>()
            .ok_or_else(|| damaged("a tensor has a negative dimension"))
            .context("tensor", &tensor.name)?;
        numel(&tensor.dims).context("tensor", &tensor.name)?;
        Ok(tensor)
    }

    /// Where the bytes of a field lie in the file.
    fn place(&self, value: Value<'a>) -> Result<Range<usize>> {
        let bytes = value.bytes()?;
        let start = bytes.as_ptr() as usize - self.bytes.as_ptr() as usize;
        Ok(start..start + bytes.len())
    }

    /// Decodes a tensor of the file.
    pub(super) fn load(&self, tensor: &Stored) -> Result<Data> {
        self.decode(tensor).context("tensor", &tensor.name)
    }

    fn decode(&self, tensor: &Stored) -> Result<Data> {
        if tensor.external {
            return Err(Error::unsupported(
                "the weights lie in a second file (external data, `.onnx_data`); such models are \
                 not read: use the safetensors files, or a model in one file",
            ));
        }
        let count = numel(&tensor.dims)?;
        let raw = tensor.raw.clone().map(|range| &self.bytes[range]);
        let width = match tensor.dtype {
            1 | 6 | 12 => 4,
            7 | 11 => 8,
            10 | 16 => 2,
            2 | 3 | 9 => 1,
            other => {
                return Err(Error::unsupported(format!(
                    "tensors of ONNX type {other} are not read"
                )));
            }
        };
        let Some(raw) = raw else {
            return typed(tensor, count);
        };
        if count.checked_mul(width) != Some(raw.len()) {
            return Err(Error::model_invalid(format!(
                "a tensor of shape {:?} has {} bytes",
                tensor.dims,
                raw.len()
            )));
        }
        let floats = |read: fn(&[u8]) -> f32| Data::floats(raw.chunks_exact(width).map(read));
        let ints = |read: fn(&[u8]) -> i64| Data::ints(raw.chunks_exact(width).map(read));
        Ok(match tensor.dtype {
            1 => floats(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            10 => floats(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
            16 => floats(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            11 => floats(|b| f64::from_le_bytes(b.try_into().unwrap_or_default()) as f32),
            6 => ints(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
            12 => ints(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
            7 => ints(|b| i64::from_le_bytes(b.try_into().unwrap_or_default())),
            3 => ints(|b| i64::from(b[0] as i8)),
            _ => ints(|b| b[0].into()),
        })
    }

    /// The constant that stands for initializer number `index`.
    pub(super) fn constant(&self, index: usize) -> Const {
        let tensor = &self.initializers[index];
        Const::stored(tensor.dims.clone(), index, !matches!(tensor.dtype, 1 | 10 | 11 | 16))
    }
}

/// Decodes a tensor whose values are stored in typed fields.
fn typed(tensor: &Stored, count: usize) -> Result<Data> {
    let data = match tensor.dtype {
        1 | 11 => Data::floats(tensor.floats.iter().copied()),
        10 => Data::floats(tensor.ints.iter().map(|v| half::f16::from_bits(*v as u16).to_f32())),
        16 => Data::floats(tensor.ints.iter().map(|v| half::bf16::from_bits(*v as u16).to_f32())),
        _ => Data::ints(tensor.ints.iter().copied()),
    };
    if data.len() != count {
        return Err(Error::model_invalid(format!(
            "a tensor of shape {:?} has {} values",
            tensor.dims,
            data.len()
        )));
    }
    Ok(data)
}

fn read_port(bytes: &[u8]) -> Result<Port> {
    let mut port = Port::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => port.name = value.text()?,
            2 => {
                // TypeProto { tensor_type = 1 { shape = 2 { dim = 1 { dim_value = 1 } } } }
                let shape = field(value.bytes()?, 1)?.map(|t| field(t, 2)).transpose()?.flatten();
                let mut dims = Fields::new(shape.unwrap_or_default());
                while let Some((number, value)) = dims.next()? {
                    if number == 1 {
                        at_most("dimensions", port.dims.len(), MAX_RANK)?;
                        let mut size = None;
                        let mut parts = Fields::new(value.bytes()?);
                        while let Some((number, value)) = parts.next()? {
                            if number == 1 {
                                size = usize::try_from(value.int()?).ok().filter(|n| *n > 0);
                            }
                        }
                        port.dims.push(size);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(port)
}

/// The last message of number `wanted` in a message.
fn field(bytes: &[u8], wanted: u32) -> Result<Option<&[u8]>> {
    let mut fields = Fields::new(bytes);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        if number == wanted {
            found = Some(value.bytes()?);
        }
    }
    Ok(found)
}

/// How many values a tensor of these dimensions has.
pub(super) fn numel(dims: &[usize]) -> Result<usize> {
    // A dimension of 0 must not hide others whose product overflows.
    let bound = dims.iter().try_fold(1usize, |product, dim| product.checked_mul((*dim).max(1)));
    match bound {
        Some(bound) if bound <= isize::MAX as usize / 8 => Ok(dims.iter().product()),
        _ => Err(Error::model_invalid(format!("a tensor of shape {dims:?} is too large"))),
    }
}

fn at_most(what: &str, count: usize, limit: usize) -> Result<()> {
    if count < limit {
        return Ok(());
    }
    Err(Error::model_invalid(format!("the ONNX graph has more than {limit} {what}")))
}

fn refuse_other_formats(bytes: &[u8]) -> Result<()> {
    let what = match bytes {
        [] => "empty",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => {
            "a Git LFS pointer; the model itself was not downloaded"
        }
        [b'<', ..] | [b'{', ..] => "text",
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file",
        _ => return Ok(()),
    };
    Err(Error::model_invalid(format!("not an ONNX file: it is {what}")))
}

impl Node {
    /// An integer attribute.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A float attribute.
    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// An attribute that is a list of integers.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// A text attribute.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(value)) => Some(value),
            _ => None,
        }
    }
}
