//! Attention as the published models ask for it, by each kind of matrix units that the device has.

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::{Report, seconds};
use crate::device::{Placement, classify};
use crate::error::Result;
use crate::kernels::attention::{Options, flash_by, has_warpgroups};
use crate::kernels::cuda::Units;

/// Model, batch, heads, tokens, and values of a head.
const SHAPES: &[(&str, [usize; 4])] = &[
    ("Qwen-Image-Edit, 1024 px", [1, 24, 8492, 128]),
    ("SDXL, 1024 px, with guidance", [2, 10, 4096, 64]),
    ("ViT-B, 32 pictures", [32, 12, 784, 64]),
    ("EVA-02-L, 32 pictures", [32, 16, 1025, 64]),
];

pub(super) fn measure(report: &mut Report, placement: &Placement) -> Result<()> {
    let all = has_warpgroups(placement.candle());
    let mut section = Map::new();
    section.insert("warpgroups are in use".to_owned(), json!(all));
    for (name, [b, heads, n, d]) in SHAPES {
        let random = || {
            let x = Tensor::randn(0f32, 1f32, (*b, *n, *heads, *d), placement.candle())?;
            x.to_dtype(placement.dtype())?.transpose(1, 2)
        };
        let inputs = random().and_then(|q| Ok((q, random()?, random()?)));
        let (q, k, v) = inputs.map_err(|e| classify(e, "cannot make queries"))?;
        let scale = vec![(*d as f32).powf(-0.5); *heads];
        let work = 4.0 * (b * heads * n * n * d) as f64;
        let mut rates = Map::new();
        for units in [Units::Warps, Units::Warpgroups] {
            if units == Units::Warpgroups && !all {
                continue;
            }
            let seconds = seconds(placement, 10, || {
                flash_by(units, [&q, &k, &v], &Options::default(), &scale, *d)
            })?;
            let rate = work / seconds / 1e12;
            rates.insert(format!("{units:?}"), json!({"s": seconds, "TFLOP/s": rate}));
        }
        section.insert((*name).to_owned(), Value::Object(rates));
    }
    report.add("attention", Value::Object(section));
    Ok(())
}
