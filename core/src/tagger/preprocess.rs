//! The `preprocess.json` of some collections: the steps from a picture to the network's input, as
//! dghs-imgutils reads them (`imgutils.preprocess`).
//!
//! A file has its stages under `test` (animetimm), `stages` (PixAI) or `val`. Each is an object with
//! a `type` and its options. What is not known is refused by its place and type: a step that is left
//! out is a silently wrong input.

use serde_json::{Map, Value};

use crate::error::{Error, Result, ResultExt};
use crate::pixels::{Filter, Size, Step};
use crate::weights::ModelDir;

/// The file's name.
pub(super) const FILE: &str = "preprocess.json";
/// Longest side that a stage may ask for.
const MAX_SIDE: usize = 1 << 14;
/// What lies under transparent pixels unless a stage says otherwise.
const WHITE: [u8; 3] = [255; 3];

/// What a `preprocess.json` asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Preprocess {
    pub(crate) background: [u8; 3],
    pub(crate) steps: Vec<Step>,
    /// Width and height of the result.
    pub(crate) size: Size,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

impl Preprocess {
    /// Reads the file, if the folder has one.
    pub(super) fn load(dir: &ModelDir) -> Result<Option<Self>> {
        if !dir.has(FILE) {
            return Ok(None);
        }
        serde_json::from_str(&dir.text(FILE)?)
            .map_err(|e| Error::model_invalid(format!("not valid JSON: {e}")))
            .and_then(|value| Self::parse(&value))
            .map(Some)
            .context("file", dir.origin(FILE))
    }

    /// From the content of a `preprocess.json`.
    pub(crate) fn parse(value: &Value) -> Result<Self> {
        let (part, stages) = ["test", "stages", "val"]
            .into_iter()
            .find_map(|part| Some((part, value.get(part)?.as_array()?)))
            .ok_or_else(|| Error::model_invalid("neither `test` nor `stages` lists any stages"))?;
        let mut reader = Reader::default();
        for (i, stage) in stages.iter().enumerate() {
            let place = format!("{part}[{i}]");
            Options::new(stage)
                .and_then(|options| reader.stage(options))
                .map_err(|error| error.with("stage", place))?;
        }
        let size = reader.size.ok_or_else(|| {
            Error::unsupported("the stages leave the size of the input to the picture")
        })?;
        if !reader.is_tensor {
            return Err(Error::model_invalid("the stages end without `to_tensor`"));
        }
        let (mean, std) = reader.statistics.unwrap_or(([0.0; 3], [1.0; 3]));
        let background = reader.background.unwrap_or(WHITE);
        Ok(Self { background, steps: reader.steps, size, mean, std })
    }
}

/// What the stages up to here make of a picture.
#[derive(Default)]
struct Reader {
    background: Option<[u8; 3]>,
    steps: Vec<Step>,
    /// The size, once it does not depend on the picture any more.
    size: Option<Size>,
    is_tensor: bool,
    statistics: Option<([f32; 3], [f32; 3])>,
}

impl Reader {
    fn stage(&mut self, mut options: Options) -> Result<()> {
        let kind = options.kind.clone();
        let of_pixels = |step| match self.is_tensor {
            true => {
                Err(Error::model_invalid(format!("`{kind}` behind the conversion to a tensor")))
            }
            false => Ok(Some(step)),
        };
        let step = match kind.as_str() {
            "convert_rgb" => {
                let background = options.take("force_background");
                // Pictures have their colours once; what comes later has nothing left to do.
                if self.steps.is_empty() && self.background.is_none() && !background.is_null() {
                    self.background = Some(colour(&background)?);
                }
                None
            }
            "resize" => {
                let filter = options.filter()?;
                let longest = options.take("max_size");
                let antialias = options.take("antialias");
                if antialias.as_bool() == Some(false) {
                    return Err(Error::unsupported("`resize` without `antialias`"));
                }
                of_pixels(match (sides(&options.take("size"))?, longest) {
                    (Sides::Both(height, width), Value::Null) => {
                        Step::Stretch { size: (width, height), filter }
                    }
                    (Sides::Both(..), _) => {
                        return Err(Error::model_invalid("`max_size` beside two sizes"));
                    }
                    (Sides::One(side), Value::Null) => {
                        Step::ShorterSide { side, longest: None, filter }
                    }
                    (Sides::One(side), longest) => {
                        Step::ShorterSide { side, longest: Some(side_of(&longest)?), filter }
                    }
                })?
            }
            "pad_to_size" => {
                let filter = options.filter()?;
                let background = match options.take("background_color") {
                    Value::Null => WHITE,
                    value => colour(&value)?,
                };
                let size = match sides(&options.take("size"))? {
                    Sides::One(side) => (side, side),
                    Sides::Both(width, height) => (width, height),
                };
                of_pixels(Step::Pad { size, background, filter })?
            }
            "center_crop" => {
                let size = match sides(&options.take("size"))? {
                    Sides::One(side) => (side, side),
                    Sides::Both(height, width) => (width, height),
                };
                of_pixels(Step::Crop { size })?
            }
            "to_tensor" | "maybe_to_tensor" => {
                if self.is_tensor && kind == "to_tensor" {
                    return Err(Error::model_invalid("a second conversion to a tensor"));
                }
                self.is_tensor = true;
                None
            }
            "normalize" => {
                options.take("inplace");
                let [mean, std] = ["mean", "std"].map(|name| statistics(&options.take(name), name));
                let (mean, std) = (mean?, std?);
                if !self.is_tensor || self.statistics.is_some() {
                    return Err(Error::unsupported(
                        "`normalize` must stand once, behind `to_tensor`",
                    ));
                }
                if std.iter().any(|std| *std <= 0.0) {
                    return Err(Error::model_invalid(format!("`std` is {std:?}")));
                }
                self.statistics = Some((mean, std));
                None
            }
            _ => return Err(Error::unsupported(format!("stages of type `{kind}`"))),
        };
        if let Some(step) = step {
            self.size = match step {
                Step::ShorterSide { .. } => self.size.map(|size| step.size(size)),
                _ => Some(step.size((1, 1))),
            };
            self.steps.push(step);
        }
        options.finish()
    }
}

/// The options of one stage; all of them must be asked for.
struct Options {
    kind: String,
    values: Map<String, Value>,
}

impl Options {
    fn new(stage: &Value) -> Result<Self> {
        let mut values = stage.as_object().cloned().unwrap_or_default();
        match values.remove("type") {
            Some(Value::String(kind)) => Ok(Self { kind, values }),
            _ => Err(Error::model_invalid("a stage without a `type`")),
        }
    }

    /// An option; `null` is one that is not given.
    fn take(&mut self, name: &str) -> Value {
        self.values.remove(name).unwrap_or_default()
    }

    fn filter(&mut self) -> Result<Filter> {
        let value = self.take("interpolation");
        let name = value.as_str().map(str::to_ascii_lowercase);
        // Numbers are Pillow's.
        match (name.as_deref(), value.as_u64()) {
            (Some("bilinear"), _) | (_, Some(2)) => Ok(Filter::Bilinear),
            (Some("bicubic"), _) | (_, Some(3)) => Ok(Filter::Bicubic),
            (Some("lanczos"), _) | (_, Some(1)) => Ok(Filter::Lanczos),
            (Some("hamming"), _) | (_, Some(5)) => Ok(Filter::Hamming),
            _ if value.is_null() => Ok(Filter::Bilinear),
            _ => Err(Error::unsupported(format!("`interpolation` {value} of `{}`", self.kind))),
        }
    }

    fn finish(self) -> Result<()> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::unsupported(format!("`{name}` of `{}`", self.kind))),
        }
    }
}

/// A size as it is written; which side comes first depends on the stage.
enum Sides {
    One(usize),
    Both(usize, usize),
}

fn sides(value: &Value) -> Result<Sides> {
    match value.as_array().map(Vec::as_slice) {
        None => Ok(Sides::One(side_of(value)?)),
        Some([side]) => Ok(Sides::One(side_of(side)?)),
        Some([first, second]) => Ok(Sides::Both(side_of(first)?, side_of(second)?)),
        Some(_) => Err(Error::model_invalid(format!("`size` is {value}"))),
    }
}

fn side_of(value: &Value) -> Result<usize> {
    value
        .as_u64()
        .and_then(|side| usize::try_from(side).ok())
        .filter(|side| (1..=MAX_SIDE).contains(side))
        .ok_or_else(|| Error::model_invalid(format!("`size` is {value}")))
}

/// A colour of Pillow: a name, `#rrggbb`, a grey level or a list of channels.
fn colour(value: &Value) -> Result<[u8; 3]> {
    let unknown = || Error::unsupported(format!("the colour {value}"));
    let level = |value: &Value| value.as_u64().and_then(|level| u8::try_from(level).ok());
    match value {
        Value::String(name) => match name.to_ascii_lowercase().as_str() {
            "white" => Ok(WHITE),
            "black" => Ok([0; 3]),
            "gray" | "grey" => Ok([128; 3]),
            hex => hex
                .strip_prefix('#')
                .filter(|digits| digits.len() == 6)
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .map(|rgb| [(rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8])
                .ok_or_else(unknown),
        },
        // The fourth channel is alpha, which pictures have none of here.
        Value::Array(channels) if matches!(channels.len(), 3 | 4) => {
            match [&channels[0], &channels[1], &channels[2]].map(level) {
                [Some(red), Some(green), Some(blue)] => Ok([red, green, blue]),
                _ => Err(unknown()),
            }
        }
        _ => level(value).map(|level| [level; 3]).ok_or_else(unknown),
    }
}

/// A value for each channel, or one for all.
fn statistics(value: &Value, name: &str) -> Result<[f32; 3]> {
    let number = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
    let found = match value.as_array().map(Vec::as_slice) {
        None => number(value).map(|x| [x; 3]),
        Some([all]) => number(all).map(|x| [x; 3]),
        Some([red, green, blue]) => match [red, green, blue].map(number) {
            [Some(red), Some(green), Some(blue)] => Some([red, green, blue]),
            _ => None,
        },
        Some(_) => None,
    };
    found.ok_or_else(|| Error::model_invalid(format!("`{name}` is {value}")))
}

#[cfg(test)]
mod tests;
