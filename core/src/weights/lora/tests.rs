use std::collections::BTreeMap;

use candle_core::DType;
use safetensors::tensor::Dtype;

use super::*;
use crate::error::ErrorKind;
use crate::weights::tests::{Stored, file, floats, folder, values};
use std::sync::Arc;

fn network() -> Arc<SafeTensorsFile> {
    let path = folder().join("../edit-networks/transformer/diffusion_pytorch_model.safetensors");
    Arc::new(SafeTensorsFile::open(&path).unwrap())
}

fn scales() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(folder().join("lora_scales.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn open(case: &str, base: &Arc<SafeTensorsFile>) -> Arc<Lora> {
    let path = folder().join(format!("lora_{case}.safetensors"));
    let networks = [(&Network::TRANSFORMER, base.clone() as Arc<dyn Source>)];
    Arc::new(Lora::open(&path, &networks).unwrap().remove(0))
}

fn load(source: &dyn Source, name: &str) -> Vec<f32> {
    values(&source.load(name, DType::F32, &Device::Cpu).unwrap())
}

/// The largest difference, as a part of the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn every_spelling_changes_weights_as_diffusers_does() {
    let base = network();
    let golden = SafeTensorsFile::open(&folder().join("lora.safetensors")).unwrap();
    let mut most = 0f32;
    for (case, scale) in scales() {
        let lora = open(&case, &base);
        assert_eq!(lora.len(), 3, "{case}");
        let adapted = Adapted::new(base.clone(), vec![(lora, scale)]).unwrap();
        assert_eq!(adapted.names(), base.names());
        for weight in golden.names() {
            let Some(weight) = weight.strip_prefix(&format!("{case}.")) else { continue };
            let expected = load(&golden, &format!("{case}.{weight}"));
            let off = difference(&load(&adapted, weight), &expected);
            println!("{case}: {weight} {off:.1e}");
            assert!(off <= 1e-6, "{case}: {weight} differs by {off}");
            assert!(difference(&load(&*base, weight), &expected) > 1e-4, "{case}: no change");
            most = most.max(off);
        }
        // What is not changed is the same to the bit.
        let other = "transformer_blocks.0.attn.to_k.weight";
        assert_eq!(load(&adapted, other), load(&*base, other));
        assert_eq!(adapted.shape(other), base.shape(other));
    }
    println!("at most {most:.1e}");
}

#[test]
fn loras_add_up_and_leave_nothing_behind() {
    let base = network();
    let name = "txt_in.weight";
    let plain = load(&*base, name);
    let one = open("bare", &base);
    let two = open("peft", &base);
    let adapted = |loras: &[(&Arc<Lora>, f64)]| {
        let loras = loras.iter().map(|(lora, scale)| (Arc::clone(lora), *scale)).collect();
        load(&Adapted::new(base.clone(), loras).unwrap(), name)
    };
    let both = adapted(&[(&one, 0.5), (&two, -2.0)]);
    let apart: Vec<f32> = adapted(&[(&one, 0.5)])
        .iter()
        .zip(adapted(&[(&two, -2.0)]))
        .zip(&plain)
        .map(|((a, b), base)| a + b - base)
        .collect();
    assert!(difference(&both, &apart) < 1e-6);
    assert!(difference(&adapted(&[(&one, 1.0), (&one, -1.0)]), &plain) < 1e-6);
    assert_eq!(adapted(&[(&one, 0.0)]), plain);
    assert_eq!(adapted(&[]), plain);
    assert_eq!(load(&*base, name), plain);
    for scale in [f64::NAN, f64::INFINITY] {
        let error = Adapted::new(base.clone(), vec![(one.clone(), scale)]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    // LoRAs over LoRAs, and sums that are rounded once.
    let inner: Arc<dyn Source> =
        Arc::new(Adapted::new(base.clone(), vec![(one.clone(), 0.5)]).unwrap());
    let outer = Adapted::new(inner, vec![(two, -2.0)]).unwrap();
    assert!(difference(&load(&outer, name), &both) < 1e-6);
    let half = outer.load(name, DType::BF16, &Device::Cpu).unwrap();
    assert_eq!(half.dtype(), DType::BF16);
    assert!(difference(&values(&half), &both) < 4e-3);
}

#[test]
fn every_linear_layer_is_found_in_every_spelling() {
    let base = network();
    let layers = Layers::of(&*base, &Network::TRANSFORMER).unwrap();
    let mut count = 0;
    for name in base.names() {
        let Some(layer) = name.strip_suffix(".weight") else { continue };
        let is_linear = base.shape(&name).unwrap().len() == 2;
        let flat = format!("lora_unet_{}", layer.replace('.', "_"));
        let spelled = [layer.to_owned(), format!("transformer.{layer}"), flat];
        for spelled in spelled.into_iter().chain([format!("diffusion_model.{layer}")]) {
            let found = layers.weight(&spelled);
            assert_eq!(found.unwrap(), is_linear.then_some(&*name), "{spelled}");
        }
        count += usize::from(is_linear);
    }
    // Fourteen in each of two blocks, and six.
    assert_eq!(count, 34);
}

/// A network of one layer `a.b`, with three outputs and two inputs.
fn small(tensors: &[Stored], notes: &[(&str, &str)]) -> Result<Lora> {
    let base = file(&[floats("a.b.weight", &[3, 2], 1.0), floats("a.b.bias", &[3], 1.0)], &[]);
    let networks = [(&Network::TRANSFORMER, Arc::new(base) as Arc<dyn Source>)];
    Lora::new(Arc::new(file(tensors, notes)), &networks).map(|mut loras| loras.remove(0))
}

fn pair() -> Vec<Stored> {
    vec![floats("a.b.lora_A.weight", &[1, 2], 0.5), floats("a.b.lora_B.weight", &[3, 1], 2.0)]
}

fn and(more: Stored) -> Vec<Stored> {
    pair().into_iter().chain([more]).collect()
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    assert_eq!(small(&pair(), &[]).unwrap().len(), 1);
    let one = |name: &str| vec![floats(name, &[1, 2], 1.0)];
    let mut integers = pair();
    integers[0] = ("a.b.lora_A.weight".to_owned(), Dtype::I32, vec![1, 2], vec![0; 8]);
    for (tensors, words) in [
        (vec![], "empty"),
        (one("a.b.lora_A.weight"), "a.b.lora_A.weight"),
        (one("a.b.lora_up.weight"), "a.b.lora_up.weight"),
        (vec![floats("a.b.alpha", &[], 1.0)], "a.b.alpha"),
        (one("a.b.weight"), "a.b.weight"),
        (one("a.b"), "a.b"),
        (one(""), "none of a LoRA"),
        (one("a.c.lora_A.weight"), "a.c"),
        (one("text_encoder.a.b.lora_A.weight"), "text_encoder.a.b"),
        (one("lora_te_a_b.lora_down.weight"), "lora_te_a_b"),
        (one("lora_unet_a_c.lora_down.weight"), "lora_unet_a_c"),
        (and(floats("lora_unet_a_b.lora_down.weight", &[1, 2], 1.0)), "same"),
        (and(floats("a.b.lora_down.weight", &[1, 2], 1.0)), "a.b.lora_down.weight"),
        (and(floats("a.b.lokr_w1", &[1, 2], 1.0)), "two kinds"),
        (and(floats("a.b.hada_w1_a", &[1, 2], 1.0)), "two kinds"),
        (and(floats("a.b.dora_scale", &[1, 2], 1.0)), "DoRA"),
        (and(floats("a.b.lora_magnitude_vector", &[1, 2], 1.0)), "DoRA"),
        (and(floats("a.b.lora_mid.weight", &[1, 2], 1.0)), "do not fit"),
        (and(floats("a.b.lora_B.bias", &[3], 1.0)), "biases"),
        (and(floats("a.b.diff_b", &[3], 1.0)), "difference"),
        (and(floats("a.b.alpha", &[2], 1.0)), "a.b.alpha"),
        (and(floats("a.b.alpha", &[], f32::NAN)), "a.b.alpha"),
        (and(floats("a.b.alpha", &[0], 1.0)), "a.b.alpha"),
        (integers, "I32"),
    ] {
        let error = small(&tensors, &[]).err().expect(words);
        assert!(error.to_string().contains(words), "{error}, expected {words}");
        let kinds = [ErrorKind::ModelInvalid, ErrorKind::Unsupported];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
    for (down, up) in [
        (&[1, 3][..], &[3, 1][..]),
        (&[1, 2], &[2, 1]),
        (&[2, 2], &[3, 1]),
        (&[0, 2], &[3, 0]),
        (&[1, 2, 1, 2], &[3, 1, 1, 1]),
        (&[1, 2, 1], &[3, 1, 1]),
        (&[2], &[3]),
        (&[5000, 2], &[3, 5000]),
    ] {
        let tensors =
            [floats("a.b.lora_A.weight", down, 1.0), floats("a.b.lora_B.weight", up, 1.0)];
        let error = small(&tensors, &[]).err().expect("shapes");
        assert!(error.to_string().contains("a.b.lora_A.weight"), "{error}");
    }
}

#[test]
fn notes_say_how_matrices_are_scaled() {
    let scale = |text: &str| {
        let lora = small(&pair(), &[("lora_adapter_metadata", text)])?;
        lora.change("a.b.weight", &Device::Cpu).unwrap().map(|change| values(&change)[0])
    };
    assert_eq!(
        scale(r#"{"transformer.lora_alpha": 3, "text_encoder.lora_alpha": 9}"#).unwrap(),
        3.0
    );
    assert_eq!(scale(r#"{"lora_alpha": 3, "alpha_pattern": {"b": 5}}"#).unwrap(), 5.0);
    assert_eq!(scale(r#"{"lora_alpha": 3, "alpha_pattern": {"xa.b": 5}}"#).unwrap(), 3.0);
    for text in [
        "",
        "[]",
        "{}",
        r#"{"lora_alpha": "many"}"#,
        r#"{"lora_alpha": 1, "use_dora": true}"#,
        r#"{"lora_alpha": 1, "lora_bias": true}"#,
        r#"{"lora_alpha": 1, "alpha_pattern": 5}"#,
        r#"{"lora_alpha": 1, "alpha_pattern": {"a.*": 5}}"#,
        r#"{"lora_alpha": 1, "alpha_pattern": {"b": 5, "a.b": 6}}"#,
    ] {
        assert!(scale(text).is_err(), "{text}");
    }
    let both = and(floats("a.b.alpha", &[], 1.0));
    let error = small(&both, &[("lora_adapter_metadata", r#"{"lora_alpha": 1}"#)]).err().unwrap();
    assert!(error.to_string().contains("a.b.alpha"), "{error}");
}
