//! A machine for pickles that executes nothing: it lays out what a pickle describes, and knows the few names that
//! checkpoints need by heart. Any other name is refused, as it would be a call of whatever it stands for.
//!
//! Values are numbers of places in a list, so that a value that is used a million times is there once, and lists that
//! hold themselves do no harm.

use std::collections::HashMap;

use super::invalid;
use crate::error::{Error, Result};

/// Most values of a pickle; the largest published checkpoints have some hundred thousand.
const MAX_VALUES: usize = 1 << 21;

/// The number of a value.
pub(super) type Id = usize;

/// What a pickle describes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// In order.
    Dict(Vec<(Id, Id)>),
    /// A name that checkpoints need.
    Global(Global),
    /// What a program keeps outside of the pickle: storages.
    Outside(Id),
    /// A function of PyTorch's with its arguments.
    Call(Global, Id),
}

/// Names that checkpoints need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `torch._tensor._rebuild_from_type_v2`.
    Typed,
    /// The class of a tensor, which [`Typed`](Self::Typed) is given.
    Class,
    Storage(Kind),
}

/// The numbers of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F64,
    F16,
    BF16,
    U8,
    I64,
    I32,
    I16,
    I8,
    Bool,
}

impl Kind {
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::U8 | Self::I8 | Self::Bool => 1,
        }
    }
}

fn global(module: &str, name: &str) -> Result<Global> {
    let storage = match (module, name) {
        ("torch", "FloatStorage") => Kind::F32,
        ("torch", "DoubleStorage") => Kind::F64,
        ("torch", "HalfStorage") => Kind::F16,
        ("torch", "BFloat16Storage") => Kind::BF16,
        ("torch", "ByteStorage") => Kind::U8,
        ("torch", "LongStorage") => Kind::I64,
        ("torch", "IntStorage") => Kind::I32,
        ("torch", "ShortStorage") => Kind::I16,
        ("torch", "CharStorage") => Kind::I8,
        ("torch", "BoolStorage") => Kind::Bool,
        ("collections", "OrderedDict") => return Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => return Ok(Global::Tensor),
        ("torch._utils", "_rebuild_parameter") => return Ok(Global::Parameter),
        ("torch._tensor", "_rebuild_from_type_v2") => return Ok(Global::Typed),
        ("torch.nn.parameter", "Parameter") | ("torch", "Tensor") => return Ok(Global::Class),
        _ => {
            return Err(Error::unsupported(format!(
                "the pickle calls `{:.80}.{:.80}`, which is no part of a checkpoint; nothing of it was run",
                module, name
            )));
        }
    };
    Ok(Global::Storage(storage))
}

/// What was read of a pickle.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    pub(super) values: Vec<Value>,
}

impl Pickle {
    pub(super) fn value(&self, id: Id) -> &Value {
        // Numbers are given by the machine only.
        self.values.get(id).unwrap_or(&Value::None)
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    pickle: Pickle,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

/// Reads the pickle at the start of `bytes`: its values, which of them it is, and what is behind it.
pub(super) fn read(bytes: &[u8]) -> Result<(Pickle, Id, &[u8])> {
    let mut machine = Machine {
        rest: bytes,
        pickle: Pickle::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while !machine.step()? {}
    let result = machine.pop()?;
    Ok((machine.pickle, result, machine.rest))
}

fn damaged(what: &str) -> Error {
    invalid(format!("the pickle {what}"))
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| damaged("is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or_else(|| damaged("is cut short"))?)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| damaged("has a name that is no text"))
    }

    fn text(&mut self, length: u64) -> Result<()> {
        let length = usize::try_from(length).map_err(|_| damaged("is cut short"))?;
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|_| damaged("has a text that is none"))?.to_owned();
        self.push(Value::Text(text))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.pickle.values.len() >= MAX_VALUES {
            return Err(damaged("describes more than two million values"));
        }
        self.stack.push(self.pickle.values.len());
        self.pickle.values.push(value);
        Ok(())
    }

    /// The value on top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = (self.stack.len() > floor).then(|| self.stack.pop()).flatten();
        top.ok_or_else(|| damaged("takes what is not there"))
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(floor..).and_then(<[Id]>::last).copied();
        top.ok_or_else(|| damaged("takes what is not there"))
    }

    /// All above the last mark, which goes.
    fn marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| damaged("has no mark where it needs one"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match self.pickle.values.get_mut(list) {
            Some(Value::List(known)) => {
                known.extend(items);
                Ok(())
            }
            _ => Err(damaged("adds to what is no list")),
        }
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.pickle.values.get_mut(dict) {
            Some(Value::Dict(known)) if rest.is_empty() => {
                known.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            _ => Err(damaged("sets keys of what has none")),
        }
    }

    fn keep(&mut self, place: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<()> {
        let id = self.memo.get(&place).copied();
        self.stack.push(id.ok_or_else(|| damaged("recalls what it never kept"))?);
        // Values are there once, but places on the stack may be many.
        match self.stack.len() > MAX_VALUES {
            true => Err(damaged("describes more than two million values")),
            false => Ok(()),
        }
    }

    fn call(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        if self.pickle.tuple(arguments).is_none() {
            return Err(damaged("calls something without arguments"));
        }
        match *self.pickle.value(callee) {
            Value::Global(Global::OrderedDict) => self.push(Value::Dict(Vec::new())),
            Value::Global(global @ (Global::Tensor | Global::Parameter | Global::Typed)) => {
                self.push(Value::Call(global, arguments))
            }
            _ => Err(damaged("calls what is no function")),
        }
    }

    /// One instruction; whether it was the last one.
    fn step(&mut self) -> Result<bool> {
        let code = self.take(1)?[0];
        match code {
            // The version, and the length of what follows, which is read as it comes.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = global(module, name)?;
                self.push(Value::Global(global))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id| self.pickle.text(id).ok_or_else(|| damaged("has no name"));
                let global = global(text(module)?, text(name)?)?;
                self.push(Value::Global(global))?;
            }
            b'q' => {
                let place = self.number(1)? as u32;
                self.keep(place)?;
            }
            b'r' => {
                let place = self.number(4)? as u32;
                self.keep(place)?;
            }
            0x94 => self.keep(self.memo.len() as u32)?,
            b'h' => {
                let place = self.number(1)? as u32;
                self.recall(place)?;
            }
            b'j' => {
                let place = self.number(4)? as u32;
                self.recall(place)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items))?;
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.append(items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(&items)?;
            }
            b'X' | b'T' => {
                let length = self.number(4)?;
                self.text(length)?;
            }
            0x8c | b'U' => {
                let length = self.number(1)?;
                self.text(length)?;
            }
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Value::Int(number.into()))?;
            }
            b'K' => {
                let number = self.number(1)? as i64;
                self.push(Value::Int(number))?;
            }
            b'M' => {
                let number = self.number(2)? as i64;
                self.push(Value::Int(number))?;
            }
            0x8a => {
                let length = self.number(1)? as usize;
                let number = long(self.take(length)?);
                // The number by which old files say that they are PyTorch's has ten bytes.
                self.push(number.map_or(Value::None, Value::Int))?;
            }
            b'G' => {
                let bits =
                    self.take(8)?.iter().fold(0, |bits, byte| (bits << 8) | u64::from(*byte));
                self.push(Value::Float(f64::from_bits(bits)))?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Outside(id))?;
            }
            b'R' => self.call()?,
            // Attributes, of which dictionaries have notes about versions only.
            b'b' => {
                self.pop()?;
                if !matches!(self.pickle.value(self.top()?), Value::Dict(_)) {
                    return Err(damaged("gives attributes to what has none"));
                }
            }
            b'.' => return Ok(true),
            other => {
                return Err(Error::unsupported(format!(
                    "the pickle has the instruction 0x{other:02x}, which checkpoints do not need"
                )));
            }
        }
        Ok(false)
    }
}

/// A whole number of up to eight bytes, the lowest first.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xFF } else { 0 }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}
