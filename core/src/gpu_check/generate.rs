//! Generation: the demo model against the CPU, and the denoising network of SDXL at its published size.

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::{Report, seconds};
use crate::control::Control;
use crate::device::{Device, Placement, Precision, classify};
use crate::error::Result;
use crate::generate::{GenerateOptions, GeneratePipeline, GenerateRequest};
use crate::models::sdxl::{Added, UNet, UnetConfig};
use crate::nn::Keep;
use crate::options::LoadOptions;
use crate::weights::Weights;

/// What differs from the defaults in the `unet/config.json` of SDXL base 1.0.
const SDXL: &str = r#"{"_class_name": "UNet2DConditionModel", "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "projection_class_embeddings_input_dim": 2816, "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": true, "sample_size": 128}"#;
const POOLED: usize = 1280;
const TOKENS: usize = 77;

/// The demo model's pictures, on the device and on the CPU: the mean difference of their bytes, since
/// edges may fall on other pixels.
pub(super) fn compare(report: &mut Report, placements: [&Placement; 2]) -> Result<()> {
    let request = GenerateRequest::new("a red circle on a white background");
    let bytes = |device: Device, precision: Precision| -> Result<Vec<u8>> {
        let options = LoadOptions::default().device(device).precision(precision);
        let pipeline = GeneratePipeline::load("demo", &options)?;
        let options = GenerateOptions { n: 2, seed: Some(3), steps: 8, ..Default::default() };
        let requests = std::slice::from_ref(&request);
        let made = pipeline.generate_batch(requests, &options, &Control::new())?;
        let made = made.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(made.iter().flat_map(|made| made.image.pixels().to_vec()).collect())
    };
    let expected = bytes(Device::Cpu, Precision::F32)?;
    let mut section = Map::new();
    for (placement, allowed) in placements.into_iter().zip([0.5, 3.0]) {
        let found = bytes(placement.device(), placement.precision())?;
        let off: f32 = found.iter().zip(&expected).map(|(a, b)| f32::from(a.abs_diff(*b))).sum();
        let name = format!("demo generation, {placement}, mean of bytes");
        let outcome = report.compare(&name, off / expected.len() as f32, allowed);
        section.insert(name, outcome);
    }
    report.add("generation", Value::Object(section));
    Ok(())
}

/// One step of SDXL, with guidance.
pub(super) fn measure(report: &mut Report, placement: &Placement) -> Result<()> {
    placement.forget_peak();
    let weights = Weights::random(1, placement.candle(), placement.dtype());
    let network = UNet::load(&UnetConfig::parse(SDXL.as_bytes())?, &weights.root(), Keep::All)?;
    let mut section = Map::new();
    section.insert("memory, loaded".to_owned(), json!(placement.memory()));
    let device = placement.candle();
    let failed = |e| classify(e, "cannot make inputs");
    let text = Tensor::randn(0f32, 1f32, (TOKENS, 2048), device).map_err(failed)?;
    let pooled = Tensor::randn(0f32, 1f32, POOLED, device).map_err(failed)?;
    let sizes = [1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0];
    let prompt = network.prompt(&text, Some(Added { pooled: &pooled, sizes: &sizes }))?;
    for pictures in [1, 4] {
        let samples = 2 * pictures;
        placement.forget_peak();
        let latents = Tensor::randn(0f32, 1f32, (samples, 128, 128, 4), device).map_err(failed)?;
        let (times, prompts) = (vec![500.0; samples], vec![&prompt; samples]);
        let seconds = seconds(placement, 5, || {
            network
                .forward_onto(&latents, &times, &prompts, None, None)
                .map_err(candle_core::Error::wrap)
        })?;
        section.insert(
            format!("step, {pictures} x 1024 px, with guidance"),
            json!({"s": seconds, "memory": placement.memory()}),
        );
    }
    report.add("generation, full size", Value::Object(section));
    Ok(())
}
