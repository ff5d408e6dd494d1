//! Against spandrel, in every spelling and file format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::*;
use crate::device::testing::{device, zeros};
use crate::weights::{Weights, open_upscaler};

#[derive(Deserialize)]
struct Case {
    file: String,
    scale: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-upscale")
}

fn load(file: &str) -> RrdbNet {
    let source = open_upscaler(&folder().join(file)).unwrap();
    let weights = Weights::new(source, &device(), DType::F32);
    let network = RrdbNet::load(&weights.root()).unwrap();
    weights.check_all_taken(|_| false).unwrap();
    network
}

fn tolerance() -> f32 {
    if crate::cpu_kernels().unwrap().contains("split") { 2e-4 } else { 1e-5 }
}

#[test]
fn networks_of_every_file_compute_what_spandrel_does() {
    let text = std::fs::read(folder().join("cases.json")).unwrap();
    let cases: BTreeMap<String, Case> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 7);
    let golden =
        candle_core::safetensors::load(folder().join("golden.safetensors"), &device()).unwrap();
    for (name, case) in cases {
        let network = load(&case.file);
        assert_eq!(network.scale(), case.scale, "{name}");
        let (picture, expected) =
            (&golden[&format!("{name}/picture")], &golden[&format!("{name}/larger")]);
        let found = network.forward(picture).unwrap();
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (found, expected) = (values(&found), values(expected));
        let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        let pairs = found.iter().zip(&expected);
        let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest;
        println!("{name}: {worst:.1e}");
        assert!(worst <= tolerance(), "{name} differs by {worst}");
    }
}

#[test]
fn pictures_of_nothing_are_refused() {
    let network = load("x2plus.pth");
    for shape in [[1, 0, 4, 3], [1, 4, 4, 4], [0, 4, 4, 3]] {
        assert!(network.forward(&zeros(&shape)).is_err(), "{shape:?}");
    }
    // Of one pixel there is nothing to mirror.
    let pixel = Tensor::ones((1, 1, 1, 3), DType::F32, &device()).unwrap();
    assert_eq!(network.forward(&pixel).unwrap().dims(), [1, 2, 2, 3]);
}

/// A checkpoint of tensors of these shapes.
fn shaped(shapes: &[(&str, &[usize])]) -> Weights {
    let tensors = shapes.iter().map(|(name, shape)| ((*name).to_owned(), zeros(shape)));
    Weights::made(tensors.collect(), "made.pth".to_owned(), &device(), DType::F32)
}

#[test]
fn networks_that_are_none_are_refused_by_their_tensors() {
    let first: (&str, &[usize]) = ("conv_first.weight", &[8, 3, 3, 3]);
    let dense: (&str, &[usize]) = ("body.0.rdb1.conv1.weight", &[4, 8, 3, 3]);
    let starting = |shape: &'static [usize]| -> (&str, &[usize]) { ("conv_first.weight", shape) };
    for (shapes, word) in [
        (&[first][..], "body.0.rdb1.conv1.weight"),
        (&[dense][..], "conv_first.weight"),
        (&[starting(&[8, 5, 3, 3]), dense][..], "5 channels"),
        (&[starting(&[8, 12, 3, 3]), dense][..], "smaller"),
        (&[starting(&[8, 3, 5, 5]), dense][..], "conv_first.weight"),
        (&[starting(&[0, 3, 3, 3]), dense][..], "channels"),
        (&[first, dense][..], "conv_first.bias"),
    ] {
        let error = RrdbNet::load(&shaped(shapes).root()).err().unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn files_without_such_a_network_are_refused() {
    let other = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens/generate-networks/vae/diffusion_pytorch_model.safetensors");
    let error = open_upscaler(&other).err().unwrap().to_string();
    assert!(error.contains("ESRGAN") && error.contains("diffusion_pytorch_model"), "{error}");
    let error = open_upscaler(Path::new("none.pth")).err().unwrap();
    assert_eq!(error.kind(), crate::ErrorKind::ModelNotFound);
}

/// What is left over would say that another network was meant.
#[test]
fn tensors_that_are_not_known_are_left_over() {
    let source = open_upscaler(&folder().join("trunk.pth")).unwrap();
    assert!(source.names().iter().all(|name| !name.contains("RRDB")), "{:?}", source.names());
    let mut tensors = BTreeMap::new();
    for name in source.names() {
        tensors.insert(name.clone(), source.load(&name, DType::F32, &device()).unwrap());
    }
    let extra = Tensor::zeros(3, DType::F32, &device()).unwrap();
    tensors.insert("attention.weight".to_owned(), extra);
    let weights = Weights::made(tensors, "made.pth".to_owned(), &device(), DType::F32);
    RrdbNet::load(&Arc::new(weights.root())).unwrap();
    let error = weights.check_all_taken(|_| false).unwrap_err().to_string();
    assert!(error.contains("attention.weight"), "{error}");
}
