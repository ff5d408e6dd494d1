//! Edits: the demo model against the CPU, and the transformer and autoencoder of Qwen-Image-Edit-2511 at
//! their published size.

use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};

use super::taggers::picture;
use super::{Report, difference, seconds};
use crate::control::Control;
use crate::device::{Device, Placement, Precision, classify};
use crate::edit::{EditOptions, EditPipeline, EditRequest};
use crate::error::Result;
use crate::models::qwen_image::{
    Grid, Layout, Modulation, QwenImageTransformer, QwenImageVae, Sample, TransformerConfig,
    VaeConfig,
};
use crate::nn::Keep;
use crate::options::LoadOptions;
use crate::weights::Weights;

/// Tokens of a prompt with a picture, as the language model gives them to the transformer.
const TEXT: usize = 300;

/// The demo model's pictures as values of 0 to 1, on the device and on the CPU.
pub(super) fn compare(report: &mut Report, placements: [&Placement; 2]) -> Result<()> {
    let requests = [
        EditRequest::new(picture(64, 64, 1)?, "make the background blue"),
        EditRequest::new(picture(64, 48, 2)?, "turn the circle red"),
    ];
    let values = |device: Device, precision: Precision| -> Result<Vec<f32>> {
        let options = LoadOptions::default().device(device).precision(precision);
        let pipeline = EditPipeline::load("demo", &options)?;
        let options = EditOptions::default().n(2).seed(3).keep_values(true);
        let edited = pipeline.edit_batch(&requests, &options, &Control::new())?;
        let edited = edited.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(edited.iter().flat_map(|e| e.values.iter().flat_map(|v| v.iter().copied())).collect())
    };
    let expected = values(Device::Cpu, Precision::F32)?;
    let mut section = Map::new();
    // In bfloat16 some edges move.
    for (placement, allowed) in placements.into_iter().zip([2e-3, 0.1]) {
        let found = values(placement.device(), placement.precision())?;
        let name = format!("demo edit, {placement}");
        let outcome = report.compare(&name, difference(&found, &expected), allowed);
        section.insert(name, outcome);
    }
    report.add("edits", Value::Object(section));
    Ok(())
}

/// One step of the published transformer, and its autoencoder.
pub(super) fn measure(report: &mut Report, placement: &Placement, peak: f64) -> Result<()> {
    let mut section = Map::new();
    let config = TransformerConfig::parse(json!({"zero_cond_t": true}))?;
    placement.forget_peak();
    let weights = Weights::random(1, placement.candle(), placement.dtype());
    let modulations = Modulation::schedule(&config, &weights.root(), &[0.9])?;
    let transformer = QwenImageTransformer::load(&config, &weights.root(), Keep::All)?;
    section.insert("memory, loaded".to_owned(), json!(placement.memory()));
    let (width, layers) = (config.width() as f64, config.num_layers as f64);
    let channels = config.in_channels;
    let mut step = |name: &str, side: usize, samples: usize| -> Result<f64> {
        let grid = Grid { rows: side / 16, columns: side / 16 };
        let sample = Sample { target: grid, references: vec![grid], text: TEXT };
        let layout = Layout::new(&vec![sample; samples], &config, placement.candle())?;
        let random = |rows: usize, width: usize| {
            Tensor::randn(0f32, 1f32, (rows, width), placement.candle())?
                .to_dtype(placement.dtype())
        };
        let inputs = random(layout.image(), channels)
            .and_then(|image| Ok((image, random(layout.text(), config.joint_attention_dim)?)));
        let (image, text) = inputs.map_err(|e| classify(e, "cannot make latents"))?;
        let times = vec![&modulations[0]; samples];
        placement.forget_peak();
        let seconds = seconds(placement, 5, || {
            transformer.forward(&image, &text, &layout, &times, &Control::new())
        })?;
        // Each token goes through 12 squares of the width in linear layers, twice that in operations, and
        // each pair of tokens of a sample through 4 widths.
        let tokens = (layout.image() + layout.text()) as f64;
        let pairs = tokens * tokens / samples as f64;
        let work = layers * (24.0 * width * width * tokens + 4.0 * width * pairs);
        let rate = work / seconds / 1e12;
        section.insert(
            name.to_owned(),
            json!({"s": seconds, "TFLOP/s": rate, "of the peak": rate / peak,
                "memory": placement.memory()}),
        );
        Ok(seconds)
    };
    step("step, 1024 px, with guidance", 1024, 2)?;
    let one = step("step, 512 px, with guidance", 512, 2)?;
    let four = step("step, 4 x 512 px, with guidance", 512, 8)?;
    section.insert("four together against four alone".to_owned(), json!(4.0 * one / four));
    drop(transformer);

    let vae = QwenImageVae::load(&VaeConfig::default(), &weights.root())?;
    for side in [512, 1024] {
        placement.forget_peak();
        let shape = (1, side / 8, side / 8, 16);
        let latents = Tensor::randn(0f32, 1f32, shape, placement.candle())
            .map_err(|e| classify(e, "cannot make latents"))?;
        let decode = seconds(placement, 3, || vae.decode(&latents))?;
        let picture = Tensor::zeros((1, side, side, 3), DType::F32, placement.candle())
            .map_err(|e| classify(e, "cannot make a picture"))?;
        let encode = seconds(placement, 3, || vae.encode(&picture))?;
        section.insert(
            format!("autoencoder, {side} px"),
            json!({"decode, s": decode, "encode, s": encode, "memory": placement.memory()}),
        );
    }
    report.add("edits, full size", Value::Object(section));
    Ok(())
}
