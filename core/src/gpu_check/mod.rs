//! What `make gpu-check` runs on a machine with a device: kernels and models against the CPU, and full-size
//! networks with random weights for time and memory. No part of the interface.

mod attention;
mod edit;
mod generate;
mod steady;
mod taggers;

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::device::{Device, Placement, Precision, classify};
use crate::error::Result;
use crate::kernels::cuda::Units;
use crate::kernels::{attention as kernel, check, linear};

/// What was found.
pub struct Report {
    sections: Map<String, Value>,
    wrong: Vec<String>,
}

impl Report {
    /// Everything, for `benches/results`.
    pub fn json(&self) -> String {
        format!("{:#}\n", Value::Object(self.sections.clone()))
    }

    /// Whether all that was compared is within its bounds.
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    fn add(&mut self, name: &str, value: Value) {
        println!("{name}: {value:#}");
        self.sections.insert(name.to_owned(), value);
    }

    /// Notes how far something is off.
    fn compare(&mut self, name: &str, off: f32, allowed: f32) -> Value {
        // What is no number is not within bounds.
        let is_right = off <= allowed;
        if !is_right {
            eprintln!("WRONG: {name} is off by {off}, allowed {allowed}");
            self.wrong.push(name.to_owned());
        }
        json!({"off": off, "allowed": allowed, "is_right": is_right})
    }
}

/// Compares and measures; `quick` leaves out what takes minutes.
///
/// # Errors
/// Those of [`Placement::resolve`], and of networks that cannot run at all.
pub fn run(device: Device, quick: bool) -> Result<Report> {
    let at = |precision| Placement::resolve(device, precision);
    let (bf16, f32) = (at(Precision::Bf16)?, at(Precision::F32)?);
    let mut report = Report { sections: Map::new(), wrong: Vec::new() };
    let version = env!("CARGO_PKG_VERSION");
    let units = json!({
        "attention": kernel::has_warpgroups(bf16.candle()),
        "convolutions": linear::units(bf16.candle()) == Units::Warpgroups,
    });
    let about = json!({"version": version, "device": bf16.describe(), "warpgroups": units});
    report.add("about", about);

    let outcomes = check::compare(bf16.candle(), |run| run());
    let outcomes = outcomes.map_err(|e| classify(e, "the kernels failed"))?;
    let mut kernels = Map::new();
    for check::Outcome { name, off, allowed } in outcomes {
        let outcome = report.compare(&name, off, allowed);
        kernels.insert(name, outcome);
    }
    report.add("kernels", Value::Object(kernels));
    taggers::compare(&mut report, [&f32, &bf16])?;
    edit::compare(&mut report, [&f32, &bf16])?;
    generate::compare(&mut report, [&f32, &bf16])?;
    if !quick {
        let peak = matrix_peak(&bf16)?;
        report.add("matrix peak, TFLOP/s in bf16", json!(peak));
        attention::measure(&mut report, &bf16)?;
        taggers::measure(&mut report, &bf16)?;
        edit::measure(&mut report, &bf16, peak)?;
        generate::measure(&mut report, &bf16)?;
    }
    steady::run(&mut report, &bf16, quick)?;
    let wrong = report.wrong.clone();
    report.add("wrong", json!(wrong));
    Ok(report)
}

/// Seconds that `run` takes on the device, the median of `times` after one that does not count.
fn seconds(
    placement: &Placement,
    times: usize,
    mut run: impl FnMut() -> candle_core::Result<candle_core::Tensor>,
) -> Result<f64> {
    let mut once = || {
        placement.candle().synchronize()?;
        let start = Instant::now();
        let _result = run()?;
        placement.candle().synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let mut measured = Vec::with_capacity(times);
    for i in 0..=times {
        let seconds = once().map_err(|e| classify(e, "a measured run failed"))?;
        if i > 0 {
            measured.push(seconds);
        }
    }
    measured.sort_by(f64::total_cmp);
    Ok(measured[measured.len() / 2])
}

/// What the vendor's library reaches on a large product.
fn matrix_peak(placement: &Placement) -> Result<f64> {
    const N: usize = 8192;
    let one = || {
        let x = candle_core::Tensor::randn(0f32, 1f32, (N, N), placement.candle())?;
        x.to_dtype(placement.dtype())
    };
    let operands = one().and_then(|a| Ok((a, one()?)));
    let (a, b) = operands.map_err(|e| classify(e, "cannot make matrices"))?;
    let b = b.t().map_err(|e| classify(e, "cannot make matrices"))?;
    Ok(2.0 * (N as f64).powi(3) / seconds(placement, 10, || a.matmul(&b))? / 1e12)
}

/// The largest difference.
fn difference<'a>(
    a: impl IntoIterator<Item = &'a f32>,
    b: impl IntoIterator<Item = &'a f32>,
) -> f32 {
    // NaN stays: `f32::max` would drop it.
    let more = |most: f32, off: f32| if off > most || off.is_nan() { off } else { most };
    a.into_iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::named;

    /// On an emulated device (`core/gpu/emulate.sh`) this is most of what can be told without a real one.
    #[test]
    fn finds_the_device_right() {
        let report = run(named(), true).unwrap();
        assert!(report.is_right(), "{:?}", report.wrong);
    }

    #[test]
    fn tells_what_is_off() {
        let mut report = Report { sections: Map::new(), wrong: Vec::new() };
        report.compare("near", 0.1, 0.1);
        assert!(report.is_right());
        for (name, off) in [("far", 0.2), ("no number", f32::NAN)] {
            report.compare(name, off, 0.1);
            assert!(!report.is_right(), "{name}");
            report.wrong.clear();
        }
    }
}
