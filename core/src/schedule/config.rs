//! The `scheduler_config.json` of a diffusers folder with `FlowMatchEulerDiscreteScheduler`.
//!
//! Every key that the class knows is read or, where another value would change the sigmas in a way
//! that is not computed here, refused by its name. A key that is unknown is refused too: it belongs
//! to a newer scheduler, and ignoring it would give silently other pictures.

use serde_json::{Map, Value};

use crate::error::{Error, Result, ResultExt};

/// The class that such a file names.
const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

/// Ways to choose sigmas that are not computed here; off in every published edit model.
const REFUSED: &[&str] = &[
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
    "invert_sigmas",
];

/// How mu bends the sigmas of dynamic shifting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeShift {
    /// `e^mu / (e^mu + (1 / sigma - 1))`.
    Exponential,
    /// `mu / (mu + (1 / sigma - 1))`.
    Linear,
}

/// What a `scheduler_config.json` says. The defaults are those of the class.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FlowMatchEuler {
    pub(crate) num_train_timesteps: usize,
    /// The static shift, for when the shift is not dynamic.
    pub(crate) shift: f64,
    pub(crate) use_dynamic_shifting: bool,
    pub(crate) base_shift: f64,
    pub(crate) max_shift: f64,
    pub(crate) base_image_seq_len: f64,
    pub(crate) max_image_seq_len: f64,
    /// The last sigma before zero, to which the others are stretched.
    pub(crate) shift_terminal: Option<f64>,
    pub(crate) time_shift_type: TimeShift,
}

impl Default for FlowMatchEuler {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256.0,
            max_image_seq_len: 4096.0,
            shift_terminal: None,
            time_shift_type: TimeShift::Exponential,
        }
    }
}

impl FlowMatchEuler {
    /// From the text of a `scheduler_config.json`. The caller adds the file to errors.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| Error::model_invalid(format!("not a JSON object: {e}")))?;
        let mut config = Self::default();
        for (key, value) in &value {
            config.set(key, value).context("field", key)?;
        }
        config.check()?;
        Ok(config)
    }

    /// The same schedule as the step-distilled Lightning LoRAs ask for: a shift of 3 whatever the
    /// size, and no stretching. Values from `generate_with_diffusers.py` of
    /// ModelTC/Qwen-Image-Lightning.
    #[must_use]
    pub(crate) fn lightning(&self) -> Self {
        Self {
            base_shift: 3f64.ln(),
            max_shift: 3f64.ln(),
            shift_terminal: None,
            use_dynamic_shifting: true,
            time_shift_type: TimeShift::Exponential,
            ..self.clone()
        }
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        match key {
            "_class_name" if value != CLASS => {
                return Err(Error::unsupported(format!(
                    "the scheduler {value} is not supported; supported is {CLASS}"
                )));
            }
            key if key.starts_with('_') => {}
            "num_train_timesteps" => {
                self.num_train_timesteps =
                    value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
                        Error::model_invalid(format!("{value} is not a number of steps"))
                    })?;
            }
            "shift" => self.shift = number(value)?,
            "use_dynamic_shifting" => self.use_dynamic_shifting = flag(value)?,
            "base_shift" => self.base_shift = number(value)?,
            "max_shift" => self.max_shift = number(value)?,
            "base_image_seq_len" => self.base_image_seq_len = number(value)?,
            "max_image_seq_len" => self.max_image_seq_len = number(value)?,
            // The class takes zero for "not given" too.
            "shift_terminal" if value.is_null() || value.as_f64() == Some(0.0) => {
                self.shift_terminal = None;
            }
            "shift_terminal" => self.shift_terminal = Some(number(value)?),
            "time_shift_type" => {
                self.time_shift_type = match value.as_str() {
                    Some("exponential") => TimeShift::Exponential,
                    Some("linear") => TimeShift::Linear,
                    _ => return Err(Error::unsupported(format!("{value} is not a known shift"))),
                };
            }
            key if REFUSED.contains(&key) => {
                if flag(value)? {
                    return Err(Error::unsupported(format!("`{key}` is not supported")));
                }
            }
            _ if value.is_null() => {}
            _ => {
                return Err(Error::unsupported(format!(
                    "`{key}` is no option of the known {CLASS}"
                )));
            }
        }
        Ok(())
    }

    /// Refuses values that would make sigmas of no use.
    fn check(&self) -> Result<()> {
        let wrong = |field: &'static str, why: &'static str| {
            Err(Error::model_invalid(why).with("field", field))
        };
        if self.num_train_timesteps == 0 {
            return wrong("num_train_timesteps", "there are no training steps");
        }
        if self.shift <= 0.0 {
            return wrong("shift", "a shift is greater than 0");
        }
        if self.shift_terminal.is_some_and(|last| !(0.0..1.0).contains(&last)) {
            return wrong("shift_terminal", "the last sigma is between 0 and 1");
        }
        if self.use_dynamic_shifting && self.base_image_seq_len == self.max_image_seq_len {
            return wrong(
                "max_image_seq_len",
                "no line goes through two shifts of the same sequence length",
            );
        }
        Ok(())
    }
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .filter(|number| number.is_finite())
        .ok_or_else(|| Error::model_invalid(format!("{value} is not a number")))
}

fn flag(value: &Value) -> Result<bool> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        other => Err(Error::model_invalid(format!("{other} is neither true nor false"))),
    }
}
