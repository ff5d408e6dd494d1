use std::path::PathBuf;
use std::sync::Arc;

use candle_core::DType;

use super::*;
use crate::device::testing::device;
use crate::error::ErrorKind;
use crate::weights::{SafeTensorsFile, Source, Weights};

/// What answers may differ by from transformers', as a part of its largest value: more where operands
/// are split.
fn tolerance() -> f32 {
    if crate::cpu_kernels().unwrap().contains("split") { 1e-4 } else { 1e-5 }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-text").join(name)
}

fn config(name: &str) -> ClipTextConfig {
    ClipTextConfig::parse(&std::fs::read(path(&format!("{name}.json"))).unwrap()).unwrap()
}

fn load(name: &str, config: &ClipTextConfig, dtype: DType) -> ClipTextModel {
    let file = SafeTensorsFile::open(&path(&format!("{name}.safetensors"))).unwrap();
    let weights = Weights::new(Arc::new(file), &device(), dtype);
    let model = ClipTextModel::load(config, &weights.root(), Keep::All).unwrap();
    weights.check_all_taken(|_| false).unwrap();
    model
}

fn prompts() -> Vec<Vec<u32>> {
    serde_json::from_slice(&std::fs::read(path("golden.json")).unwrap()).unwrap()
}

fn golden(name: &str) -> Tensor {
    let file = SafeTensorsFile::open(&path("golden.safetensors")).unwrap();
    file.load(name, DType::F32, &device()).unwrap()
}

/// The largest difference, as a part of the largest expected value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let values = |x: &Tensor| -> Vec<f32> {
        x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let pairs = found.iter().zip(&expected);
    pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn every_layer_computes_what_transformers_does() {
    for (name, layers) in [("l", 3), ("g", 4)] {
        let config = config(name);
        assert_eq!(config.num_hidden_layers, layers);
        let model = load(name, &config, DType::F32);
        let mut most = 0f32;
        for skipped in 0..layers {
            let found = model.encode(&prompts(), skipped).unwrap();
            let expected = golden(&format!("{name}.states.{}", layers - skipped));
            let worst = difference(&found.states, &expected);
            assert!(worst <= tolerance(), "{name} without {skipped} layers differs by {worst}");
            most = most.max(worst);
            let worst = difference(&found.pooled, &golden(&format!("{name}.pooled")));
            most = most.max(worst);
            assert!(worst <= tolerance(), "the vectors of {name} differ by {worst}");
        }
        println!("{name}: {most:.1e}");
        let low = load(name, &config, DType::BF16).encode(&prompts(), 1).unwrap();
        let worst = difference(&low.states, &golden(&format!("{name}.states.{}", layers - 1)));
        println!("{name} in bf16: {worst:.1e}");
        assert!((1e-5..=0.03).contains(&worst), "{name} in bf16 differs by {worst}");
    }
}

#[test]
fn tensors_have_the_names_of_either_version() {
    let config = config("l");
    let file = SafeTensorsFile::open(&path("l.safetensors")).unwrap();
    let tensors = file.names().into_iter().map(|name| {
        let tensor = file.load(&name, DType::F32, &device()).unwrap();
        (name.strip_prefix("text_model.").unwrap().to_owned(), tensor)
    });
    let weights = Weights::made(tensors.collect(), "golden".into(), &device(), DType::F32);
    let model = ClipTextModel::load(&config, &weights.root(), Keep::All).unwrap();
    weights.check_all_taken(|_| false).unwrap();
    let [found, expected] =
        [model, load("l", &config, DType::F32)].map(|model| model.encode(&prompts(), 1).unwrap());
    assert_eq!(difference(&found.states, &expected.states), 0.0);
}

#[test]
fn a_prompt_gives_alone_what_it_gives_with_others() {
    let model = load("g", &config("g"), DType::F32);
    let all = model.encode(&prompts(), 1).unwrap();
    for (i, prompt) in prompts().into_iter().enumerate() {
        let alone = model.encode(&[prompt], 1).unwrap();
        let row = |x: &Tensor| x.narrow(0, i, 1).unwrap();
        assert_eq!(difference(&alone.states, &row(&all.states)), 0.0);
        assert_eq!(difference(&alone.pooled, &row(&all.pooled)), 0.0);
    }
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let model = load("l", &config("l"), DType::F32);
    for (prompts, skipped) in [
        (vec![], 1),
        (vec![vec![]], 1),
        (vec![vec![1; 10]], 1),
        (vec![vec![1; 3], vec![1; 4]], 1),
        (vec![vec![1, 40]], 1),
        (vec![vec![1; 3]], 3),
    ] {
        let error = model.encode(&prompts, skipped).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{prompts:?}");
    }
}

#[test]
fn configurations_that_mean_nothing_are_refused_by_their_keys() {
    for (text, word) in [
        ("[]", "not a JSON object"),
        (r#"{"model_type": "t5"}"#, "model_type"),
        (r#"{"hidden_act": "relu"}"#, "hidden_act"),
        (r#"{"hidden_size": 30, "num_attention_heads": 4}"#, "num_attention_heads"),
        (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers"),
        (r#"{"layer_norm_eps": -1}"#, "layer_norm_eps"),
    ] {
        let error = ClipTextConfig::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let published = ClipTextConfig::parse(b"{}").unwrap();
    assert_eq!((published.hidden_size, published.max_position_embeddings), (512, 77));
}
