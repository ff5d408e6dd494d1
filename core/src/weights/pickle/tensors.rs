//! The tensors that a checkpoint's pickle describes: names, shapes, and where their numbers are.

use std::collections::BTreeMap;

use super::invalid;
use super::machine::{Global, Id, Kind, Pickle, Value};
use crate::error::{Error, Result};

/// Most tensors and numbers of one file.
const MAX_FOUND: usize = 100_000;
/// Dictionaries in dictionaries.
const DEPTH: usize = 8;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// A tensor by where its numbers are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) kind: Kind,
    /// The storage's name.
    pub(super) storage: String,
    /// Numbers of the storage.
    pub(super) of_storage: usize,
    /// Numbers of the storage before the first one.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) count: usize,
}

/// What a file has under a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Tensor(Stored),
    Number(f64),
}

/// All tensors and numbers of a value by their names: keys of dictionaries, and places in tuples and lists, with points
/// between them.
pub(super) fn found(pickle: &Pickle, root: Id) -> Result<BTreeMap<String, Found>> {
    let mut all = Walk { pickle, found: BTreeMap::new(), visited: 0 };
    all.visit(root, String::new(), 0)?;
    Ok(all.found)
}

struct Walk<'a> {
    pickle: &'a Pickle,
    found: BTreeMap<String, Found>,
    visited: usize,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, name: String, depth: usize) -> Result<()> {
        // What is used many times is there once, but visited each time.
        self.visited += 1;
        if self.visited > 4 * MAX_FOUND || depth > DEPTH {
            return Err(invalid("the pickle has more in it than a checkpoint has"));
        }
        let below = |part: &str| match name.is_empty() {
            true => part.to_owned(),
            false => format!("{name}.{part}"),
        };
        let pickle = self.pickle;
        match pickle.value(id) {
            Value::Dict(pairs) => {
                for (key, value) in pairs {
                    let part = match pickle.value(*key) {
                        Value::Text(text) => below(text),
                        Value::Int(number) => below(&number.to_string()),
                        _ => return Err(invalid("a key of the pickle is no text")),
                    };
                    self.visit(*value, part, depth + 1)?;
                }
            }
            Value::Tuple(items) | Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.visit(*item, below(&i.to_string()), depth + 1)?;
                }
            }
            Value::Call(..) => {
                let tensor = tensor(pickle, id).map_err(|error| error.with("tensor", &name))?;
                self.add(name, Found::Tensor(tensor))?;
            }
            Value::Int(number) => self.add(name, Found::Number(*number as f64))?,
            Value::Float(number) => self.add(name, Found::Number(*number))?,
            // Notes of programs.
            Value::None
            | Value::Bool(_)
            | Value::Text(_)
            | Value::Global(_)
            | Value::Outside(_) => {}
        }
        Ok(())
    }

    fn add(&mut self, name: String, found: Found) -> Result<()> {
        if self.found.len() >= MAX_FOUND {
            return Err(invalid(format!("more than {MAX_FOUND} tensors")));
        }
        match self.found.insert(name.clone(), found) {
            None => Ok(()),
            Some(_) => Err(invalid("two tensors have one name").with("tensor", name)),
        }
    }
}

/// A call that makes a tensor, maybe within others that make it something more special.
fn tensor(pickle: &Pickle, mut id: Id) -> Result<Stored> {
    for _ in 0..DEPTH {
        let Value::Call(global, arguments) = pickle.value(id) else { break };
        let arguments = pickle.tuple(*arguments).unwrap_or_default();
        match (global, arguments) {
            (Global::Parameter, [inner, ..]) => id = *inner,
            // A function, a class, and what the function is called with.
            (Global::Typed, [function, _, inner, ..])
                if *pickle.value(*function) == Value::Global(Global::Tensor) =>
            {
                return rebuilt(pickle, pickle.tuple(*inner).unwrap_or_default());
            }
            (Global::Tensor, arguments) => return rebuilt(pickle, arguments),
            _ => break,
        }
    }
    Err(invalid("the pickle describes a tensor in a way that is not known"))
}

/// Storage, offset, shape, strides, and what training needs.
fn rebuilt(pickle: &Pickle, arguments: &[Id]) -> Result<Stored> {
    let wrong = |what: &'static str| invalid(format!("the tensor's {what} cannot be read"));
    let [storage, offset, shape, strides, ..] = *arguments else { return Err(wrong("parts")) };
    let Value::Outside(storage) = pickle.value(storage) else { return Err(wrong("storage")) };
    let (kind, storage, of_storage) = match pickle.tuple(*storage) {
        Some([word, kind, name, _, count, rest @ ..]) => {
            let is_storage = pickle.text(*word) == Some("storage");
            // Views of storages are of files of the first versions.
            let is_whole = rest.iter().all(|view| *pickle.value(*view) == Value::None);
            match (pickle.value(*kind), pickle.text(*name), size(pickle, *count)) {
                (Value::Global(Global::Storage(kind)), Some(name), Some(count))
                    if is_storage && is_whole =>
                {
                    (*kind, name.to_owned(), count)
                }
                _ => return Err(wrong("storage")),
            }
        }
        _ => return Err(wrong("storage")),
    };
    let sizes = |id: Id| -> Option<Vec<usize>> {
        let items = pickle.tuple(id).filter(|items| items.len() <= MAX_RANK)?;
        items.iter().map(|id| size(pickle, *id)).collect()
    };
    let offset = size(pickle, offset).ok_or_else(|| wrong("offset"))?;
    let shape = sizes(shape).ok_or_else(|| wrong("shape"))?;
    let strides = sizes(strides).filter(|strides| strides.len() == shape.len());
    let strides = strides.ok_or_else(|| wrong("strides"))?;
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
    let count = count.ok_or_else(|| wrong("shape"))?;
    let mut expected = 1;
    for (side, stride) in shape.iter().zip(&strides).rev() {
        if *side != 1 && count > 0 && *stride != expected {
            let message = "the tensor's numbers are not stored in their order";
            return Err(Error::unsupported(message));
        }
        expected *= side;
    }
    match offset.checked_add(count) {
        Some(end) if end <= of_storage => {
            Ok(Stored { kind, storage, of_storage, offset, shape, count })
        }
        _ => Err(invalid("the tensor is larger than its storage")),
    }
}

fn size(pickle: &Pickle, id: Id) -> Option<usize> {
    usize::try_from(pickle.int(id)?).ok()
}
