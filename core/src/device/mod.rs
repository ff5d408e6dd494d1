//! Where networks run and in which number format.
//!
//! What a user names is never silently replaced: a device that is not there and a precision that
//! the device cannot compute are errors. What `auto` resolved to is reported by [`Placement`].

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::str::FromStr;

use candle_core::DType;

use crate::error::{Error, ErrorKind, Result};

/// The device that a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The best device of this build and machine: CUDA, else Metal, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
    /// The Metal device of this index.
    Metal(usize),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, index.parse().ok()),
            None => (text, Some(0)),
        };
        match (name, index) {
            ("auto", _) if name == text => Ok(Device::Auto),
            ("cpu", _) if name == text => Ok(Device::Cpu),
            ("cuda", Some(index)) => Ok(Device::Cuda(index)),
            ("metal" | "mps", Some(index)) => Ok(Device::Metal(index)),
            _ => Err(Error::invalid_input(format!(
                "unknown device `{text}`; known: auto, cpu, cuda, cuda:N, metal"
            ))
            .with("field", "device")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Metal(index) => write!(f, "metal:{index}"),
        }
    }
}

/// The number format that a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// The fastest format of the device that keeps the model's answers.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floating point.
    F16,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Precision::Auto),
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            "f16" => Ok(Precision::F16),
            _ => Err(Error::invalid_input(format!(
                "unknown precision `{text}`; known: auto, f32, bf16, f16"
            ))
            .with("field", "precision")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        })
    }
}

/// A device and a precision after `auto` was resolved: what a model really runs on.
#[derive(Clone, Debug)]
pub struct Placement {
    device: Device,
    precision: Precision,
    candle: candle_core::Device,
}

/// Bytes of a device's memory.
#[cfg(feature = "gpu-check")]
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Memory {
    /// Of tensors, now.
    pub(crate) used: u64,
    /// The most since the peak was forgotten.
    pub(crate) peak: u64,
    /// What could still be had.
    pub(crate) free: u64,
}

impl Placement {
    /// Resolves what a user asked for.
    ///
    /// # Errors
    /// [`ErrorKind::DeviceUnavailable`] if the named device is not part of this build or machine,
    /// [`ErrorKind::Unsupported`] if it cannot compute in the named precision.
    pub fn resolve(device: Device, precision: Precision) -> Result<Self> {
        #[cfg(test)]
        let (device, precision) = testing::instead_of(device, precision);
        let (device, candle) = match device {
            // What keeps a device from being opened is told where it is named.
            Device::Auto => [Device::Cuda(0), Device::Metal(0)]
                .into_iter()
                .find_map(|device| Some((device, open(device).ok()?)))
                .unwrap_or((Device::Cpu, candle_core::Device::Cpu)),
            named => (named, open(named)?),
        };
        let precision = match (precision, device) {
            (Precision::Auto, Device::Cuda(_)) => Precision::Bf16,
            (Precision::Auto | Precision::F32, _) => Precision::F32,
            (Precision::Bf16, _) => Precision::Bf16,
            (Precision::F16, _) => {
                return Err(Error::unsupported(format!(
                    "{precision} is not available on {device}; use f32, bf16 or auto"
                ))
                .with("field", "precision"));
            }
        };
        Ok(Self { device, precision, candle })
    }

    /// The device; never [`Device::Auto`].
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision; never [`Precision::Auto`].
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device in words.
    #[cfg(feature = "gpu-check")]
    pub(crate) fn describe(&self) -> String {
        match &self.candle {
            #[cfg(feature = "cuda")]
            candle_core::Device::Cuda(device) => cuda::describe(device),
            _ => self.device.to_string(),
        }
    }

    /// Bytes of the device's memory, where it tells.
    #[cfg(feature = "gpu-check")]
    pub(crate) fn memory(&self) -> Option<Memory> {
        match &self.candle {
            #[cfg(feature = "cuda")]
            candle_core::Device::Cuda(device) => cuda::memory(device).ok(),
            _ => None,
        }
    }

    /// From now on, what is the most in use is counted anew.
    #[cfg(feature = "gpu-check")]
    pub(crate) fn forget_peak(&self) {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = &self.candle {
            // What cannot be counted anew is counted from the start.
            let _ = cuda::forget_peak(device);
        }
    }

    pub(crate) fn candle(&self) -> &candle_core::Device {
        &self.candle
    }

    pub(crate) fn dtype(&self) -> DType {
        match self.precision {
            Precision::Auto | Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device, self.precision)
    }
}

/// Sets how many threads the whole process uses for pictures and networks. Can be called once,
/// before any work; the variable `RAYON_NUM_THREADS` does the same.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for zero, or if the threads run already.
pub fn set_threads(threads: usize) -> Result<()> {
    if threads == 0 {
        return Err(Error::invalid_input("the number of threads is 0").with("field", "threads"));
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|e| {
        Error::invalid_input(format!("cannot set the number of threads: {e}"))
            .with("field", "threads")
            .caused_by(e)
    })
}

/// Opens a named device.
fn open(device: Device) -> Result<candle_core::Device> {
    let opened = match device {
        Device::Auto | Device::Cpu => Ok(candle_core::Device::Cpu),
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => cuda::open(index).map_err(|why| format!("CUDA: {why}")),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err("this build has no CUDA support".to_owned()),
        #[cfg(feature = "metal")]
        Device::Metal(index) => {
            candle_core::Device::new_metal(index).map_err(|why| format!("Metal: {why}"))
        }
        #[cfg(not(feature = "metal"))]
        Device::Metal(_) => Err("this build has no Metal support".to_owned()),
    };
    opened.map_err(|why| Error::new(ErrorKind::DeviceUnavailable, why).with("device", device))
}

/// Which devices this build can use, beside the CPU.
#[doc(hidden)]
pub fn device_features() -> [(&'static str, bool); 2] {
    [("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))]
}

/// Turns a tensor library's error into ours. The only place that recognises a full memory.
pub(crate) fn classify(error: candle_core::Error, action: &str) -> Error {
    let text = error.to_string();
    let first_line = text.lines().next().unwrap_or_default();
    let kind = if text.contains("out of memory") || text.contains("OUT_OF_MEMORY") {
        ErrorKind::OutOfMemory
    } else {
        ErrorKind::Internal
    };
    Error::new(kind, format!("{action}: {first_line}")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "metal:0"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:x", "cpu:0", "auto:1"] {
            let error = name.parse::<Device>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn a_named_device_is_never_replaced() {
        for device in [Device::Cuda(0), Device::Metal(0)] {
            match Placement::resolve(device, Precision::Auto) {
                Ok(placement) => assert_eq!(placement.device(), device),
                Err(error) => assert_eq!(error.kind(), ErrorKind::DeviceUnavailable),
            }
        }
        let error = Placement::resolve(Device::Cpu, Precision::F16).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let auto = Placement::resolve(Device::Auto, Precision::Auto).unwrap();
        if cfg!(not(any(feature = "cuda", feature = "metal"))) {
            assert_eq!(auto.to_string(), "cpu f32");
        }
    }
}
