//! Configurations that are damaged, describe another network, or ask for too much.

use serde_json::{Value, json};
use tagbrush::{ErrorKind, Tagger};

use crate::folder::Folder;

/// Fails unless the folder with `value` at `pointer` of its configuration is refused, in words that
/// contain `expected`.
fn refused(model: &str, pointer: &str, value: Value, expected: &str) {
    let folder = Folder::of(model);
    folder.config(|config| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value.clone();
    });
    let error = folder.refused();
    assert!(
        matches!(error.kind(), ErrorKind::ModelInvalid | ErrorKind::Unsupported),
        "{pointer}={value}: {error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(expected), "{pointer}={value}: {text}");
}

/// Sizes that would take terabytes, and products of sizes that would wrap.
#[test]
fn huge_numbers_fail_before_memory_is_taken() {
    for (key, expected) in [
        ("depth", "`blocks.2.attn.qkv.weight` is missing"),
        ("embed_dim", "shape"),
        ("num_heads", "num_heads"),
        ("img_size", "pixels"),
        ("patch_size", "patch"),
        ("reg_tokens", "missing"),
    ] {
        let pointer = format!("/model_args/{key}");
        refused("vit-wd", &pointer, json!(65_536), expected);
        for beyond in [json!(65_537), json!(u64::MAX), json!(1e300), json!(-1), json!(0.5)] {
            refused("vit-wd", &pointer, beyond, key);
        }
    }
    for ratio in [json!(1e300), json!(65.0), json!(0), json!(-4.0)] {
        refused("vit-wd", "/model_args/mlp_ratio", ratio, "mlp_ratio");
    }
    refused("vit-wd", "/num_classes", json!(u64::MAX), "outputs");
}

/// Tables that are computed and not read, so that no shape in the file bounds them.
#[test]
fn huge_tables_fail_before_memory_is_taken() {
    refused("eva-wd", "/model_args/img_size", json!(65_536), "pixels");
    refused("swin-wd", "/model_args/img_size", json!(65_536), "pixels");
    let folder = Folder::of("eva-wd");
    folder.config(|config| {
        config["model_args"]["img_size"] = json!(4096);
        config["model_args"]["patch_size"] = json!(1);
        config["model_args"]["use_abs_pos_emb"] = json!(false);
    });
    assert!(folder.refused().to_string().contains("patches"));
    let folder = Folder::of("swin-wd");
    folder.config(|config| {
        config["model_args"]["window_size"] = json!(65_536);
        config["model_args"]["always_partition"] = json!(true);
    });
    assert!(folder.refused().to_string().contains("window_size"));
    // A ConvNeXt's weights say nothing about the size of its input.
    for side in [json!(65_535), json!(4097), json!(u32::MAX), json!(0), json!(-1), json!(8)] {
        let size = json!([3, side, side]);
        refused("convnext-v2", "/pretrained_cfg/input_size", size, "");
    }
}

#[test]
fn wrong_types_are_refused() {
    for value in [json!("many"), json!([]), json!({}), json!(true), json!([2, 2])] {
        refused("vit-wd", "/model_args/depth", value, "depth");
    }
    for (pointer, value) in [
        ("/model_args", json!([1])),
        ("/model_args/num_classes", json!("15")),
        ("/model_args/class_token", json!(1)),
        ("/model_args/act_layer", json!(7)),
        ("/model_args/act_layer", json!("gelu(); import os")),
        ("/model_args/global_pool", json!({})),
        ("/architecture", json!(null)),
        ("/architecture", json!("")),
        ("/architecture", json!("../../etc/passwd")),
        ("/architecture", json!("resnet50")),
        ("/num_classes", json!(-1)),
        ("/num_classes", json!(3.5)),
        ("/pretrained_cfg", json!("wd")),
        ("/pretrained_cfg/input_size", json!([3, 32])),
        ("/pretrained_cfg/input_size", json!([1, 32, 32])),
        ("/pretrained_cfg/mean", json!([0.5, 0.5])),
        ("/pretrained_cfg/std", json!([0.5, 0.0, 0.5])),
        ("/pretrained_cfg/std", json!([0.5, -1.0, 0.5])),
        ("/pretrained_cfg/std", json!([0.5, 1e300, 0.5])),
        ("/pretrained_cfg/interpolation", json!("nearest")),
    ] {
        refused("vit-wd", pointer, value, "");
    }
}

/// Unknown arguments mean another network; unknown keys elsewhere are timm's own business.
#[test]
fn unknown_keys() {
    refused("vit-wd", "/model_args/moe_experts", json!(8), "moe_experts");
    let folder = Folder::new();
    folder.config(|config| {
        config["trained_by"] = json!("someone");
        config["pretrained_cfg"]["license"] = json!({"name": ["mit"]});
    });
    folder.load().unwrap();
}

#[test]
fn text_that_is_no_configuration() {
    let nested = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let deep = format!(r#"{{"architecture":{}}}"#, nested("[", "]"));
    for text in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        "{'architecture': 'vit'}".to_owned(),
        "\u{feff}{}".to_owned(),
        nested("[", "]"),
        nested(r#"{"a":"#, "1}"),
        deep,
        r#"{"architecture":"vit_base_patch16_224","num_classes":1e999}"#.to_owned(),
    ] {
        let start: String = text.chars().take(40).collect();
        let error = Folder::new().write("config.json", text).refused();
        assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{start}: {error}");
        assert!(error.to_string().contains("config.json"), "{start}: {error}");
    }
    let error = Folder::new().write("config.json", b"{\"architecture\": \"\xFF\"}").refused();
    assert!(error.to_string().contains("not UTF-8"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "model.safetensors"] {
        let error = Folder::new().remove(file).refused();
        assert_eq!(error.kind(), ErrorKind::ModelNotFound);
        assert!(error.to_string().contains(file), "{error}");
    }
    // A folder in the place of a file is no file.
    let folder = Folder::new();
    folder.remove("config.json");
    std::fs::create_dir(folder.path().join("config.json")).unwrap();
    assert!(folder.refused().to_string().contains("config.json"));
    let empty = tempfile::tempdir().unwrap();
    let error = Tagger::load(empty.path().to_str().unwrap(), &Default::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
}
