use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::*;
use crate::device::testing::{device, zeros};
use crate::weights::{SafeTensorsFile, Source, Weights};

/// What answers may differ by from diffusers', as a part of its largest value: more where operands are
/// split.
pub(super) fn tolerance() -> f32 {
    if crate::cpu_kernels().unwrap().contains("split") { 2e-4 } else { 1e-5 }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-networks").join(name)
}

fn config() -> AutoencoderConfig {
    AutoencoderConfig::parse(&std::fs::read(path("vae/config.json")).unwrap()).unwrap()
}

fn load(dtype: DType) -> AutoencoderKl {
    let file = SafeTensorsFile::open(&path("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let weights = Weights::new(Arc::new(file), &device(), dtype);
    let vae = AutoencoderKl::load(&config(), &weights.root()).unwrap();
    weights.check_all_taken(|_| false).unwrap();
    vae
}

fn golden(name: &str) -> Tensor {
    let file = SafeTensorsFile::open(&path("vae/golden.safetensors")).unwrap();
    file.load(name, DType::F32, &device()).unwrap()
}

/// The largest difference, as a part of the largest expected value.
pub(super) fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let pairs = found.iter().zip(&expected);
    pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn the_autoencoder_computes_what_diffusers_does() {
    let vae = load(DType::F32);
    assert_eq!(config().scale(), 4);
    for (found, name) in [
        (vae.encode(&golden("picture")).unwrap(), "latents"),
        (vae.decode(&golden("noise")).unwrap(), "decoded"),
    ] {
        let worst = difference(&found, &golden(name));
        println!("{name}: {worst:.1e}");
        assert!(worst <= tolerance(), "{name} differ by {worst}");
    }
    let low = load(DType::BF16).decode(&golden("noise")).unwrap();
    let worst = difference(&low, &golden("decoded"));
    println!("decoded in bf16: {worst:.1e}");
    assert!((1e-5..=0.05).contains(&worst), "in bf16 they differ by {worst}");
}

#[test]
fn pictures_of_other_sides_are_refused() {
    let vae = load(DType::F32);
    for shape in [[1, 21, 12, 3], [1, 20, 13, 3], [1, 0, 12, 3]] {
        assert!(vae.encode(&zeros(&shape)).is_err(), "{shape:?}");
    }
}

#[test]
fn configurations_that_mean_nothing_are_refused_by_their_keys() {
    for (text, word) in [
        (r#"{"_class_name": "AutoencoderTiny"}"#, "_class_name"),
        (r#"{"act_fn": "gelu"}"#, "act_fn"),
        (r#"{"in_channels": 4}"#, "in_channels"),
        (r#"{"norm_num_groups": 0}"#, "norm_num_groups"),
        (r#"{"block_out_channels": [], "norm_num_groups": 4}"#, "block_out_channels"),
        (r#"{"block_out_channels": [10], "norm_num_groups": 4}"#, "block_out_channels"),
        (r#"{"down_block_types": ["DownBlock2D"]}"#, "down_block_types"),
        (r#"{"mid_block_add_attention": false}"#, "mid_block_add_attention"),
        (r#"{"use_quant_conv": 1}"#, "use_quant_conv"),
        (r#"{"scaling_factor": 0}"#, "scaling_factor"),
    ] {
        let error = AutoencoderConfig::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let published = AutoencoderConfig::parse(
        br#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "scaling_factor": 0.13025}"#,
    );
    assert_eq!(published.unwrap().scale(), 8);
}
