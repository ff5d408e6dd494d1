//! Every kernel over realistic shapes, on any device: what `gpu_check` compares with the CPU.

use candle_core::{D, DType, Device, Result, Tensor};

use super::activation::Activation;
use super::attention::{self, Rotation, Windows};
use super::bilateral_blur::{self, Blur};
use super::linear::{self, Combine, Window};
use super::modulation::{self, Gated, Shifted};
use super::norm::{self, Kind};
use super::{depthwise_conv, group_norm, largest};

/// What an operation gave.
pub(crate) struct Case {
    name: String,
    values: Tensor,
}

/// How far a device's results are from the CPU's in `f32`.
pub(crate) struct Outcome {
    /// Operation, shape and type.
    pub(crate) name: String,
    /// The largest difference, in units of the largest value.
    pub(crate) off: f32,
    pub(crate) allowed: f32,
}

/// Compares all kernels on `device`, in `f32` and bfloat16, with those of the CPU in `f32`, on the same
/// inputs. `there` calls what computes on the device.
pub(crate) fn compare(
    device: &Device,
    there: impl Fn(&dyn Fn() -> Result<Vec<Case>>) -> Result<Vec<Case>>,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (dtype, allowed) in [(DType::F32, 1e-4), (DType::BF16, 3e-2)] {
        let expected = cases(&Device::Cpu, dtype, DType::F32)?;
        let found = there(&|| cases(device, dtype, dtype))?;
        for (expected, found) in expected.into_iter().zip(found) {
            let values = found.values.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
            let off = largest(&(&values - &expected.values)?)? / largest(&expected.values)?;
            outcomes.push(Outcome { name: format!("{} {dtype:?}", found.name), off, allowed });
        }
    }
    Ok(outcomes)
}

/// All operations with inputs that were rounded to `rounded`, in `dtype`.
fn cases(device: &Device, rounded: DType, dtype: DType) -> Result<Vec<Case>> {
    let make = |shape: &[usize], seed: u64| {
        values(shape, seed)?.to_dtype(rounded)?.to_dtype(dtype)?.to_device(device)
    };
    let wide = |shape: &[usize], seed: u64| values(shape, seed)?.to_device(device);
    let mut cases = Vec::new();
    let mut push = |name: String, values: Tensor| cases.push(Case { name, values });

    for (heads, groups, n, d, causal, biased) in [
        (4, 4, 784, 64, false, false),
        (2, 2, 1000, 128, false, false),
        (4, 2, 300, 128, true, false),
        (4, 4, 196, 32, false, true),
        (2, 2, 333, 80, false, false),
        (1, 1, 256, 384, false, false),
    ] {
        // As linear layers leave them: tokens outside, heads inside.
        let part = |heads: usize, seed| make(&[2, n, heads, d], seed)?.transpose(1, 2);
        let (q, k, v) = (part(heads, 1)?, part(groups, 2)?, part(groups, 3)?);
        let rms = |seed| norm::Weights::new(Kind::Rms, &wide(&[d], seed)?, &wide(&[d], 9)?, 1e-6);
        let angles = (wide(&[n - 1, d], 6)? * 3.0)?;
        let rotation = Rotation { sin: angles.sin()?, cos: angles.cos()?, prefix: 1 };
        let options = attention::Options {
            scale: vec![(d as f32).powf(-0.5)],
            norms: Some((rms(4)?, rms(5)?)),
            bias: biased.then(|| wide(&[heads, n, n], 7)).transpose()?,
            windows: None,
            causal,
        };
        let y = attention::forward(&q, &k, &v, &options, Some(&rotation))?;
        push(format!("attention {heads}x{n}x{d} causal {causal} biased {biased}"), y);
    }

    let (side, length, heads, d) = (24, 144, 4, 32);
    let [q, k, v] = [1, 2, 3].map(|seed| make(&[2, heads, side * side, d], seed));
    let tokens: Vec<u32> = (0..side * side).map(|i| (5 * i + 3) as u32 % 576).collect();
    let regions: Vec<f32> = (0..side * side).map(|i| (i % 4 / 2) as f32).collect();
    let shape = (side * side / length, length);
    let tokens = Tensor::from_vec(tokens, shape, &Device::Cpu)?.to_device(device)?;
    let regions = Tensor::from_vec(regions, shape, &Device::Cpu)?.to_device(device)?;
    let options = attention::Options {
        scale: (1..=heads).map(|i| i as f32).collect(),
        bias: Some(wide(&[heads, length, length], 4)?),
        windows: Some(Windows::new(tokens, Some(regions))?),
        ..Default::default()
    };
    push("attention in windows".to_owned(), attention::forward(&q?, &k?, &v?, &options, None)?);

    for width in [768, 3072] {
        let x = make(&[333, width], 1)?;
        let weights =
            norm::Weights::new(Kind::Layer, &wide(&[width], 2)?, &wide(&[width], 3)?, 1e-6)?;
        let y = norm::forward(&x, &weights, Activation::Silu, Some(&make(&[333, width], 4)?))?;
        push(format!("norm {width}"), y);
        let vector = |seed| make(&[width], seed);
        let runs = [(300, 5), (33, 7)];
        let shifted = runs.map(|(rows, seed)| {
            Ok(Shifted { rows, shift: vector(seed)?, scale: vector(seed + 1)? })
        });
        let shifted = shifted.into_iter().collect::<Result<Vec<_>>>()?;
        let gated = runs.map(|(rows, seed)| Ok(Gated { rows, gate: vector(seed)? }));
        let gated = gated.into_iter().collect::<Result<Vec<_>>>()?;
        let y = modulation::modulate(&x, &shifted, 1e-6)?;
        push(format!("modulation {width}"), modulation::add_gated(&x, &y, &gated)?);

        let weight = (make(&[width / 2, width], 8)? * (width as f64).powf(-0.5))?;
        let weights = linear::Weights::new(&weight, &wide(&[width / 2], 9)?)?;
        let other = make(&[333, width / 2], 10)?;
        let add = Combine::Add(&other);
        for (activation, combine) in [
            (Activation::Identity, add),
            (Activation::Identity, Combine::Multiply(&other)),
            (Activation::GeluTanh, Combine::Keep),
            (Activation::GeluTanh, add),
            (Activation::GeluErf, add),
            (Activation::QuickGelu, add),
        ] {
            let options = linear::Options { norm: None, window: None, activation, combine, dtype };
            let y = linear::forward(&x, &weights, &options)?;
            let with = match combine {
                Combine::Keep => "alone",
                Combine::Add(_) => "added",
                Combine::Multiply(_) => "multiplied",
            };
            push(format!("linear {width} {activation:?} {with}"), y);
        }
    }

    let picture = make(&[2, 37, 45, 64], 1)?;
    let weight = (make(&[96, 9 * 64], 2)? * 0.04)?;
    let weights = linear::Weights::new(&weight, &wide(&[96], 3)?)?;
    for stride in [1, 2] {
        let ones = (1, 1);
        let window = Window { size: (3, 3), stride: (stride, stride), rows: ones, columns: ones };
        let (activation, combine) = (Activation::Identity, Combine::Keep);
        let window = Some(window);
        let options = linear::Options { norm: None, window, activation, combine, dtype };
        push(
            format!("convolution, stride {stride}"),
            linear::forward(&picture, &weights, &options)?,
        );
    }
    let y = depthwise_conv::forward(&picture, &wide(&[7, 7, 64], 4)?, &wide(&[64], 5)?)?;
    push("depthwise convolution".to_owned(), y);
    for groups in [4, 32] {
        let weights = group_norm::Weights::new(&wide(&[64], 6)?, &wide(&[64], 7)?, groups, 1e-6)?;
        let shift = make(&[2, 64], 8)?;
        let y = group_norm::forward(&picture, Some(&shift), &weights, Activation::Silu)?;
        push(format!("group norm {groups}"), y);
    }
    let (latents, guide) = (wide(&[24, 40, 4], 10)?, wide(&[24, 40, 4], 11)?);
    let blur = Blur { reach: 6, deviation: 3.0 };
    push("bilateral blur".to_owned(), bilateral_blur::forward(&latents, &guide, blur)?);
    let halves = picture.narrow(D::Minus1, 32, 32)?;
    push("activation".to_owned(), Activation::Silu.forward(&halves)?);
    Ok(cases)
}

/// Reproducible values of -1 to 1.
pub(super) fn values(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let count = shape.iter().product();
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    Tensor::from_vec((0..count).map(next).collect::<Vec<f32>>(), shape, &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::super::testing::emulated;
    use super::*;

    #[test]
    fn what_is_no_number_is_never_close() {
        for place in [0, 1, 2] {
            let mut values = [1.0, -3.0, 2.0];
            values[place] = f32::NAN;
            assert!(largest(&Tensor::new(&values, &Device::Cpu).unwrap()).unwrap().is_nan());
        }
        assert_eq!(largest(&Tensor::new(&[1f32, -3.0], &Device::Cpu).unwrap()).unwrap(), 3.0);
    }

    #[test]
    fn finds_the_emulated_kernels_right() {
        for outcome in compare(&Device::Cpu, emulated).unwrap() {
            assert!(outcome.off <= outcome.allowed, "{}: {}", outcome.name, outcome.off);
        }
    }
}
