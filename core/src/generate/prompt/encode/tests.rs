//! Against transformers' encoders with Fooocus' weights, on the small model of the goldens.

use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::device::testing::device;
use crate::models::clip::ClipTextConfig;
use crate::nn::Keep;
use crate::weights::{ModelDir, Weights};

#[derive(Deserialize)]
struct Golden {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    texts: Vec<String>,
    counted: usize,
    skip: usize,
}

fn goldens() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-pipeline")
}

fn encoders() -> TextEncoders {
    let dir = ModelDir::Disk(goldens().join("model"));
    let encoder = |folder: &str| {
        let config = dir.text(&format!("{folder}/config.json")).unwrap();
        let config = ClipTextConfig::parse(config.as_bytes()).unwrap();
        let source = dir.checkpoint(&format!("{folder}/model")).unwrap();
        let weights = Weights::new(source, &device(), DType::F32);
        Arc::new(ClipTextModel::load(&config, &weights.root(), Keep::All).unwrap())
    };
    TextEncoders {
        tokenizer: Arc::new(ClipTokenizer::read(&dir, "tokenizer").unwrap()),
        small: Some(encoder("text_encoder")),
        large: encoder("text_encoder_2"),
    }
}

fn check(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let off = values(found).into_iter().zip(values(expected)).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0, f32::max);
    println!("{what}: {off:.1e}");
    // Of values up to 9. More where operands are split: some prompts are scaled up by their means, which makes the
    // other order of sums with AVX-512 5.6e-5, too.
    let tolerance = if crate::cpu_kernels().unwrap().contains("split") { 5e-4 } else { 1e-4 };
    assert!(off < tolerance, "{what} is off by {off}");
}

#[test]
fn prompts_equal_the_reference() {
    let encoders = encoders();
    let golden: Golden =
        serde_json::from_slice(&std::fs::read(goldens().join("golden.json")).unwrap()).unwrap();
    let tensors =
        candle_core::safetensors::load(goldens().join("golden.safetensors"), &device()).unwrap();
    for (i, Prompt { texts, counted, skip }) in golden.prompts.iter().enumerate() {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let found = encoders.encode(&texts, *counted, *skip).unwrap();
        check(&found.states, &tensors[&format!("prompt.{i}.states")], &format!("prompt {i}"));
        check(&found.pooled, &tensors[&format!("prompt.{i}.pooled")], &format!("vector {i}"));
    }
}

#[test]
fn layers_that_are_not_there_are_refused() {
    let encoders = encoders();
    for skip in [0, 5] {
        let error = encoders.encode(&["a"], 1, skip).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
    }
}
