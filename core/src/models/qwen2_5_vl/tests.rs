use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::device::testing::device;
use crate::error::ErrorKind;
use crate::nn::Keep;
use crate::weights::{SafeTensorsFile, Source, Weights};

/// What answers may differ by from the reference's, as a part of its largest value: more where
/// operands are split.
fn tolerance() -> f32 {
    if crate::cpu_kernels().unwrap().contains("split") { 1e-4 } else { 1e-5 }
}

/// The same in bfloat16, where the reference's own answers are up to 0.019 away from those in f32.
const LOW_TOLERANCE: f32 = 0.03;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit-text-encoder").join(name)
}

fn published() -> Value {
    serde_json::from_slice(&std::fs::read(path("config.json")).unwrap()).unwrap()
}

fn parse(config: &Value) -> crate::error::Result<VlConfig> {
    VlConfig::parse(config.to_string().as_bytes())
}

fn file(name: &str) -> SafeTensorsFile {
    SafeTensorsFile::open(&path(name)).unwrap()
}

fn weights(dtype: DType) -> Weights {
    Weights::new(Arc::new(file("model.safetensors")), &device(), dtype)
}

fn golden(name: &str) -> Tensor {
    file("golden.safetensors").load(name, DType::F32, &device()).unwrap()
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

fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    let difference = difference(found, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: differs by {difference}, allowed {tolerance}");
}

fn assert_equal(found: &[Tensor], expected: &[Tensor], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(difference(found, expected), 0.0, "{what}");
    }
}

#[derive(Deserialize)]
struct Golden {
    grids: Vec<(usize, usize)>,
    prompts: Vec<GoldenPrompt>,
    names: Vec<String>,
}

#[derive(Deserialize)]
struct GoldenPrompt {
    ids: Vec<u32>,
    pictures: Vec<GoldenPicture>,
    dropped: usize,
    positions: Vec<[u32; 3]>,
}

#[derive(Deserialize)]
struct GoldenPicture {
    picture: usize,
    at: [usize; 2],
}

impl Golden {
    fn read() -> Self {
        serde_json::from_slice(&std::fs::read(path("golden.json")).unwrap()).unwrap()
    }

    /// What the vision part makes of some of the pictures, in one call.
    fn encode(&self, tower: &VisionTower, which: &[usize]) -> Vec<Tensor> {
        let patches: Vec<_> = which.iter().map(|i| golden(&format!("patches.{i}"))).collect();
        let grids: Vec<_> = which.iter().map(|i| self.grids[*i]).collect();
        tower.encode(&Tensor::cat(&patches, 0).unwrap(), &grids).unwrap()
    }

    /// All prompts, with vectors of all pictures.
    fn prompts(&self, vectors: &[Tensor]) -> Vec<Prompt> {
        let picture = |GoldenPicture { picture, at }: &GoldenPicture| Picture {
            tokens: at[0]..at[1],
            grid: self.grids[*picture],
            vectors: vectors[*picture].clone(),
        };
        let prompts = self.prompts.iter().map(|prompt| Prompt {
            ids: prompt.ids.clone(),
            pictures: prompt.pictures.iter().map(picture).collect(),
            dropped: prompt.dropped,
        });
        prompts.collect()
    }
}

/// Both parts with the first `blocks` and `layers`.
fn load(weights: &Weights, blocks: usize, layers: usize) -> (VisionTower, LanguageModel) {
    let mut config = parse(&published()).unwrap();
    (config.vision.depth, config.text.num_hidden_layers) = (blocks, layers);
    let tower = VisionTower::load(&config.vision, &weights.root(), Keep::First(1)).unwrap();
    let model = LanguageModel::load(&config.text, &weights.root(), Keep::First(1)).unwrap();
    (tower, model)
}

#[test]
fn every_block_computes_what_transformers_does() {
    let all = Golden::read();
    let weights = weights(DType::F32);
    for depth in 1..=3 {
        let (tower, model) = load(&weights, depth, depth);
        let vectors = all.encode(&tower, &[0, 1, 2]);
        let joined = Tensor::cat(&vectors, 0).unwrap();
        let what = format!("vision.{depth}");
        assert_close(&joined, &golden(&what), tolerance(), &what);
        // The reference's layers have the vectors of all blocks before them.
        let (tower, _) = load(&weights, 3, 1);
        let prompts = all.prompts(&all.encode(&tower, &[0, 1, 2]));
        for (i, found) in model.encode(&prompts).unwrap().iter().enumerate() {
            let what = format!("states.{depth}.{i}");
            assert_close(found, &golden(&what), tolerance(), &what);
        }
    }
    weights.check_all_taken(is_unused).unwrap();
    assert!(weights.check_all_taken(|_| false).unwrap_err().to_string().contains("lm_head"));
}

#[test]
fn bfloat16_is_as_near_as_the_reference_in_it() {
    let all = Golden::read();
    let (tower, model) = load(&weights(DType::BF16), 3, 3);
    let vectors = all.encode(&tower, &[0, 1, 2]);
    let joined = Tensor::cat(&vectors, 0).unwrap();
    assert_eq!(joined.dtype(), DType::BF16);
    for reference in ["vision.3", "vision.bf16"] {
        assert_close(&joined, &golden(reference), LOW_TOLERANCE, reference);
    }
    for (i, found) in model.encode(&all.prompts(&vectors)).unwrap().iter().enumerate() {
        for reference in ["3", "bf16"] {
            let what = format!("states.{reference}.{i}");
            assert_close(found, &golden(&what), LOW_TOLERANCE, &what);
        }
    }
}

#[test]
fn tokens_have_the_positions_of_the_reference_and_they_matter() {
    let all = Golden::read();
    let config = parse(&published()).unwrap();
    let (tower, model) = load(&weights(DType::F32), 3, 3);
    let prompts = all.prompts(&all.encode(&tower, &[0, 1, 2]));
    let states = model.encode(&prompts).unwrap();
    for (i, (prompt, expected)) in prompts.iter().zip(&all.prompts).enumerate() {
        assert_eq!(prompt.positions(&config.text), expected.positions);
        let line = difference(&states[i], &golden(&format!("states.line.{i}")));
        assert!(if prompt.pictures.is_empty() { line < tolerance() } else { line > 0.1 }, "{line}");
    }
}

#[test]
fn a_batch_gives_what_its_parts_give_alone() {
    let all = Golden::read();
    for dtype in [DType::F32, DType::BF16] {
        let (tower, model) = load(&weights(dtype), 3, 3);
        let alone: Vec<_> = (0..3).map(|i| all.encode(&tower, &[i]).remove(0)).collect();
        for which in [&[0, 1, 2][..], &[2, 2, 0], &[1, 0]] {
            let expected: Vec<_> = which.iter().map(|i| alone[*i].clone()).collect();
            assert_equal(&all.encode(&tower, which), &expected, &format!("pictures {which:?}"));
        }
        let prompts = all.prompts(&alone);
        let one = |prompt: &Prompt| model.encode(std::slice::from_ref(prompt)).unwrap().remove(0);
        let alone: Vec<_> = prompts.iter().map(one).collect();
        for which in [&[0, 1, 2, 3][..], &[3, 0, 3], &[2, 1]] {
            let some: Vec<_> = which.iter().map(|i| prompts[*i].clone()).collect();
            let expected: Vec<_> = which.iter().map(|i| alone[*i].clone()).collect();
            assert_equal(&model.encode(&some).unwrap(), &expected, &format!("prompts {which:?}"));
        }
    }
}

#[test]
fn dropped_states_change_no_others() {
    let all = Golden::read();
    let (tower, model) = load(&weights(DType::F32), 1, 3);
    let mut prompts = all.prompts(&all.encode(&tower, &[0, 1, 2]));
    let some = model.encode(&prompts).unwrap();
    let dropped: Vec<_> = prompts.iter_mut().map(|p| std::mem::take(&mut p.dropped)).collect();
    let every = model.encode(&prompts).unwrap();
    let rest =
        |(all, dropped): (&Tensor, usize)| all.narrow(0, dropped, all.dims()[0] - dropped).unwrap();
    let rest: Vec<_> = every.iter().zip(dropped).map(rest).collect();
    assert_equal(&some, &rest, "states");
}

#[test]
fn tensors_have_the_names_of_either_version() {
    let all = Golden::read();
    let rename = |name: &str| match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None if name.starts_with("visual.") => format!("model.{name}"),
        None => name.to_owned(),
    };
    let stored = file("model.safetensors");
    let tensors: BTreeMap<_, _> = stored
        .names()
        .iter()
        .map(|name| (rename(name), stored.load(name, DType::BF16, &device()).unwrap()))
        .collect();
    let mut names: Vec<_> = tensors.keys().cloned().collect();
    let mut expected = all.names.clone();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let renamed = Weights::made(tensors, "golden".into(), &device(), DType::F32);
    let run = |weights: &Weights| {
        load(&weights.clone().trial(), 3, 3);
        let (tower, model) = load(weights, 3, 3);
        weights.check_all_taken(is_unused).unwrap();
        model.encode(&all.prompts(&all.encode(&tower, &[0, 1, 2]))).unwrap()
    };
    assert_equal(&run(&renamed), &run(&weights(DType::F32)), "states");
}

#[test]
fn pictures_and_prompts_that_do_not_fit_are_refused() {
    let all = Golden::read();
    let (tower, model) = load(&weights(DType::F32), 1, 1);
    let patches = golden("patches.1");
    assert!(tower.encode(&patches, &[(4, 6)]).is_ok());
    assert!(tower.encode(&patches, &[(4, 4), (2, 4)]).is_ok());
    for grids in [
        &[(4, 4)][..],
        &[(4, 6), (2, 2)],
        &[(3, 8)],
        &[(0, 6), (4, 6)],
        &[(usize::MAX - 1, 4)],
        &[],
    ] {
        let error = tower.encode(&patches, grids).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{grids:?}");
    }
    assert!(tower.encode(&patches.narrow(1, 0, 95).unwrap(), &[(4, 6)]).is_err());
    assert!(tower.encode(&patches.narrow(0, 0, 0).unwrap(), &[]).is_err());

    let prompts = all.prompts(&all.encode(&tower, &[0, 1, 2]));
    assert!(model.encode(&[]).unwrap().is_empty());
    let refused = |change: &dyn Fn(&mut Prompt)| {
        let mut prompt = prompts[1].clone();
        change(&mut prompt);
        let error = model.encode(&[prompts[0].clone(), prompt]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("prompt=1"), "{error}");
    };
    refused(&|prompt| prompt.ids.clear());
    refused(&|prompt| prompt.dropped = prompt.ids.len());
    refused(&|prompt| prompt.ids[0] = 40);
    refused(&|prompt| prompt.ids[0] = 39);
    refused(&|prompt| prompt.ids[6] = 0);
    refused(&|prompt| prompt.pictures.truncate(1));
    refused(&|prompt| prompt.pictures.reverse());
    refused(&|prompt| prompt.pictures[0].grid = (6, 6));
    refused(&|prompt| prompt.pictures[0].tokens = 6..12);
    refused(&|prompt| prompt.pictures[1].tokens = 30..48);
    refused(&|prompt| {
        let vectors = prompt.pictures[0].vectors.narrow(0, 0, 5).unwrap();
        prompt.pictures[0].vectors = vectors;
    });
}

#[test]
fn configurations_of_either_version_are_read() {
    let old = parse(&published()).unwrap();
    let new = VlConfig::parse(&std::fs::read(path("config-5.json")).unwrap()).unwrap();
    assert_eq!(old, new);
    assert_eq!((old.text.mrope_section, old.text.rope_theta), ([1, 2, 3], 50_000.0));
    assert_eq!((old.vision.window, old.vision.patch()), (3, 96));
    let mut large = published();
    for (key, value) in [
        ("hidden_size", json!(3584)),
        ("num_attention_heads", json!(28)),
        ("num_key_value_heads", json!(4)),
        ("rope_scaling", json!({"type": "mrope", "mrope_section": [16, 24, 24]})),
        ("vision_config", json!({"hidden_size": 1280})),
    ] {
        large[key] = value;
    }
    let large = parse(&large).unwrap();
    assert_eq!((large.text.head(), large.vision.window, large.vision.patch()), (128, 4, 1176));
    assert_eq!(large.vision.fullatt_block_indexes, [7, 15, 23, 31]);
}

#[test]
fn other_configurations_are_refused_by_key() {
    let refused = |key: &str, pointer: &str, value: Value| {
        let mut config = published();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[last] = value.clone();
        let error = parse(&config).unwrap_err();
        assert!(error.to_string().contains(key), "{pointer} {value}: {error}");
    };
    for (key, value) in [
        ("model_type", json!("qwen3_vl")),
        ("hidden_act", json!("gelu")),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("vocab_size", json!(1u64 << 40)),
        ("hidden_size", json!(0)),
        ("hidden_size", json!("48")),
        ("intermediate_size", json!(-1)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_attention_heads", json!(5)),
        ("num_attention_heads", json!(16)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(16)),
        ("rms_norm_eps", json!(0)),
        ("rope_theta", json!("large")),
        ("rope_scaling", json!([])),
        ("image_token_id", json!(null)),
        ("vision_config", json!(null)),
    ] {
        refused(key, &format!("/{key}"), value);
    }
    for (key, value) in [
        ("type", json!("yarn")),
        ("rope_type", json!("dynamic")),
        ("mrope_section", json!([2, 4])),
        ("mrope_section", json!([2, 2, 3])),
        ("mrope_section", json!([u64::MAX, 2, 3])),
        ("mrope_section", json!("wide")),
    ] {
        refused(key, &format!("/rope_scaling/{key}"), value);
    }
    for (key, value) in [
        ("hidden_act", json!("quick_gelu")),
        ("depth", json!(0)),
        ("hidden_size", json!(1u64 << 33)),
        ("num_heads", json!(3)),
        ("patch_size", json!([4, 4])),
        ("spatial_merge_size", json!(0)),
        ("window_size", json!(7)),
        ("out_hidden_size", json!(64)),
        ("fullatt_block_indexes", json!([-1])),
        ("rope_parameters", json!({"rope_type": "linear"})),
    ] {
        refused(key, &format!("/vision_config/{key}"), value);
    }
    for text in ["", "[]", "{", "{\"vision_config\": 3}", "{\"vision_config\": {}}"] {
        assert_eq!(VlConfig::parse(text.as_bytes()).unwrap_err().kind(), ErrorKind::ModelInvalid);
    }
}
