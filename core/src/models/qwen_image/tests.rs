use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::control::Control;
use crate::device::testing::device;
use crate::error::ErrorKind;
use crate::nn::Keep;
use crate::weights::{SafeTensorsFile, Source, Weights};

/// What answers may differ by from the reference's, as a part of its largest value.
const TOLERANCE: f32 = 1e-4;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit-networks").join(name)
}

fn config(name: &str) -> Value {
    let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn weights(name: &str, dtype: DType) -> Weights {
    let path = folder(name).join("diffusion_pytorch_model.safetensors");
    Weights::new(Arc::new(SafeTensorsFile::open(&path).unwrap()), &device(), dtype)
}

fn goldens(name: &str) -> SafeTensorsFile {
    SafeTensorsFile::open(&folder(name).join("golden.safetensors")).unwrap()
}

fn golden(file: &SafeTensorsFile, name: &str) -> Tensor {
    file.load(name, DType::F32, &device()).unwrap()
}

/// The largest difference, as a part of the largest expected value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |x: Tensor| -> f32 {
        x.to_dtype(DType::F32)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar()
            .unwrap()
    };
    let found = found.to_dtype(DType::F32).unwrap();
    largest((found - expected).unwrap()) / largest(expected.clone())
}

fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    let difference = difference(found, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: differs by {difference}, allowed {tolerance}");
}

#[derive(Deserialize)]
struct Golden {
    target: [usize; 2],
    references: Vec<[usize; 2]>,
    text: usize,
    time: f32,
}

impl Golden {
    fn sample(&self) -> Sample {
        let grid = |[rows, columns]: [usize; 2]| Grid { rows, columns };
        Sample {
            target: grid(self.target),
            references: self.references.iter().copied().map(grid).collect(),
            text: self.text,
        }
    }
}

fn samples() -> Vec<Golden> {
    let text = std::fs::read_to_string(folder("transformer").join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A transformer with the modulations of all samples' times.
struct Loaded {
    config: TransformerConfig,
    network: QwenImageTransformer,
    modulations: Vec<Modulation>,
}

impl Loaded {
    fn new(zero_cond_t: bool, dtype: DType) -> Self {
        let mut config = config("transformer");
        config["zero_cond_t"] = json!(zero_cond_t);
        let config = TransformerConfig::parse(config).unwrap();
        let weights = weights("transformer", dtype);
        let load = |weights: &Weights| {
            QwenImageTransformer::load(&config, &weights.root(), Keep::First(1)).unwrap()
        };
        load(&weights.clone().trial());
        let network = load(&weights);
        let times: Vec<f32> = samples().iter().map(|sample| sample.time).collect();
        let modulations = Modulation::schedule(&config, &weights.root(), &times).unwrap();
        weights.check_all_taken(|name| QwenImageTransformer::is_unused(&config, name)).unwrap();
        Self { config, network, modulations }
    }

    /// The answers to golden samples as one batch, one for each.
    fn run(&self, which: &[usize]) -> Vec<Tensor> {
        let (file, samples) = (goldens("transformer"), samples());
        let all = |name: &str| {
            let parts: Vec<_> =
                which.iter().map(|i| golden(&file, &format!("{name}.{i}"))).collect();
            Tensor::cat(&parts, 0).unwrap()
        };
        let sizes: Vec<_> = which.iter().map(|i| samples[*i].sample()).collect();
        let layout = Layout::new(&sizes, &self.config, &device()).unwrap();
        let modulations: Vec<_> = which.iter().map(|i| &self.modulations[*i]).collect();
        let y = self
            .network
            .forward(&all("image"), &all("text"), &layout, &modulations, &Control::new())
            .unwrap();
        let mut start = 0;
        let answers = sizes.iter().map(|sample| {
            let rows = sample.target.tokens();
            start += rows;
            y.narrow(0, start - rows, rows).unwrap()
        });
        let answers = answers.collect();
        assert_eq!(y.dims()[0], start);
        answers
    }
}

#[test]
fn the_transformer_computes_what_diffusers_does() {
    let file = goldens("transformer");
    for (zero_cond_t, name) in [(false, "plain"), (true, "zero")] {
        let loaded = Loaded::new(zero_cond_t, DType::F32);
        for i in 0..samples().len() {
            let expected = golden(&file, &format!("{name}.{i}"));
            assert_close(&loaded.run(&[i])[0], &expected, TOLERANCE, &format!("{name} {i}"));
        }
    }
    let loaded = Loaded::new(false, DType::BF16);
    for i in 0..samples().len() {
        let expected = golden(&file, &format!("bf16.{i}"));
        assert_close(&loaded.run(&[i])[0], &expected, 0.02, &format!("bf16 {i}"));
    }
}

#[test]
fn a_ragged_batch_gives_what_its_samples_give_alone() {
    for zero_cond_t in [false, true] {
        let loaded = Loaded::new(zero_cond_t, DType::F32);
        let alone: Vec<_> = (0..samples().len()).map(|i| loaded.run(&[i]).remove(0)).collect();
        for which in [&[0, 1, 2][..], &[2, 1], &[1, 1, 0, 2, 1]] {
            for (i, found) in which.iter().zip(loaded.run(which)) {
                let what = format!("{zero_cond_t} sample {i} of {which:?}");
                assert_close(&found, &alone[*i], 1e-6, &what);
            }
        }
    }
}

#[test]
fn batches_that_do_not_fit_their_layout_are_refused() {
    let loaded = Loaded::new(false, DType::F32);
    let (config, device) = (&loaded.config, device());
    let sample = samples()[2].sample();
    let layout = Layout::new(std::slice::from_ref(&sample), config, &device).unwrap();
    let modulation = &loaded.modulations[2];
    let image = Tensor::zeros((4, config.in_channels), DType::F32, &device).unwrap();
    let text = Tensor::zeros((5, config.joint_attention_dim), DType::F32, &device).unwrap();
    let run = |image: &Tensor, text: &Tensor, modulations: &[&Modulation]| {
        loaded.network.forward(image, text, &layout, modulations, &Control::new())
    };
    assert!(run(&image, &text, &[modulation]).is_ok());
    assert!(run(&image.narrow(0, 0, 3).unwrap(), &text, &[modulation]).is_err());
    assert!(run(&image, &text.narrow(1, 0, 3).unwrap(), &[modulation]).is_err());
    assert!(run(&image, &text, &[]).is_err());
    let nothing = Layout::new(&[], config, &device).unwrap();
    let (image, text) = (image.narrow(0, 0, 0).unwrap(), text.narrow(0, 0, 0).unwrap());
    assert!(loaded.network.forward(&image, &text, &nothing, &[], &Control::new()).is_err());
    let mut huge = sample.clone();
    huge.references = vec![Grid { rows: usize::MAX, columns: 2 }];
    let error = Layout::new(&[sample, huge], config, &device).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let empty = Sample { target: Grid { rows: 0, columns: 3 }, references: Vec::new(), text: 1 };
    let error = Layout::new(&[empty], config, &device).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_autoencoder_computes_what_diffusers_does() {
    let file = goldens("vae");
    let config = VaeConfig::parse(config("vae")).unwrap();
    for (dtype, tolerance) in [(DType::F32, TOLERANCE), (DType::BF16, 0.1)] {
        let weights = weights("vae", dtype);
        let vae = QwenImageVae::load(&config, &weights.root()).unwrap();
        weights.check_all_taken(QwenImageVae::is_unused).unwrap();
        let latents = vae.encode(&golden(&file, "picture")).unwrap();
        assert_close(&latents, &golden(&file, "latents"), tolerance, &format!("encode {dtype:?}"));
        let decoded = vae.decode(&golden(&file, "noise")).unwrap().clamp(-1f32, 1f32).unwrap();
        assert_close(&decoded, &golden(&file, "decoded"), tolerance, &format!("decode {dtype:?}"));
        assert!(vae.encode(&Tensor::zeros((1, 8, 10, 3), dtype, &device()).unwrap()).is_err());
    }
}

#[test]
fn latents_become_tokens_and_latents_again() {
    let file = goldens("vae");
    let (latents, packed) = (golden(&file, "latents"), golden(&file, "packed"));
    assert_close(&pack(&latents).unwrap(), &packed, 0.0, "packed");
    assert_close(&unpack(&packed).unwrap(), &latents, 0.0, "unpacked");
    assert!(pack(&latents.narrow(1, 0, 3).unwrap()).is_err());
    assert!(unpack(&packed.narrow(3, 0, 3).unwrap()).is_err());
}

#[test]
fn published_configurations_are_read_and_others_refused_by_key() {
    let published = TransformerConfig::parse(json!({
        "_class_name": "QwenImageTransformer2DModel", "pooled_projection_dim": 768,
        "attention_head_dim": 128, "num_attention_heads": 24
    }));
    let published = published.unwrap();
    assert_eq!((published.width(), published.outputs()), (3072, 64));
    let published = VaeConfig::parse(json!({"attn_scales": [], "dropout": 0.0})).unwrap();
    assert_eq!(published.scale(), 8);
    for (key, value) in [
        ("guidance_embeds", json!(true)),
        ("use_layer3d_rope", json!(true)),
        ("use_additional_t_cond", json!(true)),
        ("num_layers", json!(0)),
        ("num_attention_heads", json!(1u64 << 40)),
        ("axes_dims_rope", json!([16, 56, 58])),
        ("axes_dims_rope", json!([15, 57, 56])),
        ("quantization_config", json!({})),
    ] {
        let error = TransformerConfig::parse(json!({key: value})).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    for (key, value) in [
        ("attn_scales", json!([1.0])),
        ("temperal_downsample", json!([true])),
        ("dim_mult", json!([])),
        ("latents_std", json!([1.0, 0.0])),
        ("latents_mean", json!([])),
        ("z_dims", json!(4)),
    ] {
        let error = VaeConfig::parse(json!({key: value})).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}
