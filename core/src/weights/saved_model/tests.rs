//! Imports of the committed fixtures, which must equal those of the ONNX file next to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx").join(name)
}

#[test]
fn equals_the_import_of_the_onnx_file() {
    for name in ["keras-vit", "keras-convnextv2"] {
        let dir = fixture(name);
        let saved = super::import(&dir).unwrap();
        let onnx = crate::weights::onnx::import(&dir.join("model.onnx")).unwrap();
        for key in ["architecture", "num_classes", "num_features", "model_args", "tagbrush"] {
            assert_eq!(saved.config[key], onnx.config[key], "{name}: {key}");
        }
        assert_eq!(saved.config["pretrained_cfg"]["mean"], onnx.config["pretrained_cfg"]["mean"]);
        assert!(saved.tensors.keys().eq(onnx.tensors.keys()), "{name}");
        for (key, tensor) in &saved.tensors {
            let other = &onnx.tensors[key];
            assert_eq!(tensor.dims(), other.dims(), "{name}: {key}");
            let values =
                |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let pairs = values(tensor).into_iter().zip(values(other));
            let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(most < 1e-6, "{name}: {key} differs by {most}");
        }
    }
}

#[test]
fn reads_the_windows_of_a_swin_v2() {
    let saved = super::import(&fixture("keras-swinv2")).unwrap();
    let onnx = crate::weights::onnx::import(&fixture("keras-swinv2/model.onnx")).unwrap();
    assert_eq!(saved.config["model_args"]["window_size"], 4);
    assert_eq!(saved.config["tagbrush"], serde_json::json!({"final_norm_eps": 1e-3}));
    for key in ["architecture", "num_classes", "num_features", "model_args", "tagbrush"] {
        assert_eq!(saved.config[key], onnx.config[key], "{key}");
    }
    // The graph has what follows from the network of the position biases, which this file has.
    let without = |tensors: &BTreeMap<String, Tensor>, part: &str| {
        tensors.keys().filter(|key| !key.contains(part)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(without(&saved.tensors, "cpb_mlp"), without(&onnx.tensors, "position_bias"));
}

#[test]
fn windows_that_do_not_fit_the_network_are_refused() {
    let bytes = std::fs::read(fixture("keras-swinv2").join("saved_model.pb")).unwrap();
    let window = |bytes: &[u8], side, depths: &[usize]| super::swin::window(bytes, side, depths);
    assert_eq!(window(&bytes, 8, &[2, 1, 1]).unwrap(), 4);
    for (side, depths, reason) in [
        (16, &[2, 1, 1][..], "on maps of [16, 8, 4]"),
        (8, &[2, 1], "on maps of [8, 4]"),
        (10, &[2, 1, 1], "on maps of [10, 5, 2]"),
        (0, &[1], "on maps of [0]"),
    ] {
        let error = window(&bytes, side, depths).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(window(b"", 8, &[1]).unwrap_err().to_string().contains("does not record"));
    for length in 0..bytes.len() {
        let _ = window(&bytes[..length], 8, &[2, 1, 1]);
    }
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        refused += usize::from(window(&changed, 8, &[2, 1, 1]).is_err());
    }
    // Every table of coordinates is checked, and one mask that is right is enough.
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_damaged_or_missing_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(super::import(dir.path()).is_err());
    let from = fixture("keras-vit");
    std::fs::create_dir(dir.path().join("variables")).unwrap();
    let copy = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        std::fs::write(dir.path().join(name), change(std::fs::read(from.join(name)).unwrap()))
            .unwrap();
    };
    let data = "variables/variables.data-00000-of-00001";
    for name in ["keras_metadata.pb", "variables/variables.index", data] {
        copy(name, &|bytes| bytes);
    }
    assert!(super::import(dir.path()).is_ok());
    copy(data, &|mut bytes| {
        bytes.truncate(100);
        bytes
    });
    assert!(super::import(dir.path()).is_err());
    copy(data, &|mut bytes| {
        bytes[100] ^= 1;
        bytes
    });
    let error = super::import(dir.path()).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}
