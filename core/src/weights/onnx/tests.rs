//! Imports of the committed fixtures.

use std::path::{Path, PathBuf};

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx")
}

/// Writes what is imported from each folder of `TAGBRUSH_IMPORT_FROM` (the fixtures unless set)
/// to `TAGBRUSH_IMPORT_TO`, for `check_import.py` to compare with timm.
#[test]
fn writes_imports_for_the_comparison_with_timm() {
    let Some(to) = std::env::var_os("TAGBRUSH_IMPORT_TO").map(PathBuf::from) else { return };
    let from = std::env::var_os("TAGBRUSH_IMPORT_FROM").map_or_else(fixtures, PathBuf::from);
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        if !dir.join("model.onnx").is_file() {
            continue;
        }
        let start = std::time::Instant::now();
        let mut imports = vec![("", import(&dir.join("model.onnx")))];
        if dir.join("keras_metadata.pb").is_file() {
            imports.push(("@saved_model", crate::weights::saved_model::import(&dir)));
        }
        for (suffix, imported) in imports {
            match imported {
                Ok(imported) => {
                    let out = to.join(format!("{name}{suffix}"));
                    std::fs::create_dir_all(&out).unwrap();
                    let tensors: std::collections::HashMap<_, _> =
                        imported.tensors.into_iter().collect();
                    println!("{name}{suffix}: {} tensors, {:?}", tensors.len(), start.elapsed());
                    candle_core::safetensors::save(&tensors, out.join("model.safetensors"))
                        .unwrap();
                    let text = serde_json::to_string_pretty(&imported.config).unwrap();
                    std::fs::write(out.join("config.json"), text).unwrap();
                }
                Err(error) => failed.push(format!("{name}{suffix}: {error:?}")),
            }
        }
    }
    println!("refused:\n{}", failed.join("\n"));
}

fn imported(name: &str) -> Imported {
    import(&fixtures().join(name).join("model.onnx")).unwrap()
}

fn dims<'a>(imported: &'a Imported, name: &str) -> &'a [usize] {
    imported.tensors.get(name).unwrap_or_else(|| panic!("no {name}")).dims()
}

#[test]
fn reads_the_configuration_out_of_each_graph() {
    let arguments = |name: &str, wanted: Value| {
        let config = imported(name).config;
        let object = wanted.as_object().unwrap();
        for (key, value) in object {
            assert_eq!(&config["model_args"][key], value, "{name}: {key}");
        }
        assert_eq!(config["num_classes"], 11, "{name}");
        assert_eq!(config["pretrained_cfg"]["mean"], json!([0.5, 0.5, 0.5]), "{name}");
        assert_eq!(config["pretrained_cfg"]["std"], json!([0.5, 0.5, 0.5]), "{name}");
        config
    };
    let vit = json!({"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2,
        "class_token": false, "fc_norm": false, "img_size": 32});
    for (name, activation, epsilon) in [
        ("keras-vit-batch1", "gelu", Some(1e-3)),
        ("timm-vit", "gelu_tanh", None),
        ("timm-vit-dynamo", "gelu_tanh", None),
    ] {
        let config = arguments(name, vit.clone());
        assert_eq!(config["architecture"], "vit_base_patch16_224");
        assert_eq!(config["model_args"]["act_layer"], activation, "{name}");
        assert_eq!(config["tagbrush"]["norm_eps"].as_f64(), epsilon, "{name}");
    }
    let dims = json!([4, 8, 8, 12]);
    for (name, architecture, epsilon) in [
        ("keras-convnext", "convnext_base", json!(1e-3)),
        ("keras-convnextv2", "convnextv2_base", json!(1e-3)),
        ("timm-convnext", "convnext_base", Value::Null),
        ("timm-convnextv2", "convnextv2_base", Value::Null),
    ] {
        let config = arguments(name, json!({"dims": dims, "norm_eps": epsilon}));
        assert_eq!(config["architecture"], architecture, "{name}");
    }
    arguments(
        "keras-swinv2-batch1",
        json!({"window_size": 6, "depths": [2, 1], "act_layer": "gelu"}),
    );
    arguments("timm-swinv2", json!({"window_size": 4, "depths": [1, 2], "act_layer": "gelu_tanh"}));
    arguments("timm-eva02", json!({"ref_feat_shape": [4, 4], "num_heads": 2}));
}

#[test]
fn gives_tensors_timms_names_and_shapes() {
    let vit = imported("keras-vit");
    assert_eq!(dims(&vit, "patch_embed.proj.weight"), [16, 3, 8, 8]);
    assert_eq!(dims(&vit, "pos_embed"), [1, 16, 16]);
    assert_eq!(dims(&vit, "blocks.0.attn.qkv.weight"), [48, 16]);
    assert_eq!(dims(&vit, "blocks.0.mlp.fc1.weight"), [64, 16]);
    assert_eq!(dims(&vit, "blocks.0.ls1.gamma"), [16]);
    let swin = imported("keras-swinv2-batch1");
    assert_eq!(dims(&swin, "layers.0.blocks.1.attn.position_bias"), [2, 36, 36]);
    assert_eq!(dims(&swin, "layers.0.blocks.1.attn.logit_scale"), [2, 1, 1]);
    assert_eq!(dims(&swin, "layers.1.downsample.reduction.weight"), [16, 32]);
    let convnext = imported("keras-convnextv2");
    assert_eq!(dims(&convnext, "stages.0.blocks.0.conv_dw.weight"), [4, 1, 7, 7]);
    assert_eq!(dims(&convnext, "stages.1.blocks.0.mlp.grn.weight"), [32]);
    assert!(!convnext.tensors.contains_key("stages.0.blocks.0.gamma"));
    let eva = imported("timm-eva02");
    assert_eq!(dims(&eva, "pos_embed"), [1, 17, 24]);
    assert_eq!(dims(&eva, "blocks.0.mlp.fc1_g.weight"), [64, 24]);
    assert!(!eva.tensors.contains_key("blocks.0.attn.k_proj.bias"));
}

#[test]
fn names_what_it_does_not_support() {
    let error = import(&fixtures().join("keras-moat/model.onnx")).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    assert!(error.to_string().contains("MOAT"), "{error}");
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    for (bytes, what) in [
        (&b""[..], "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\x03\x04", "zip"),
        (b"\x08\x07", "no graph"),
        (b"\x3a\xff\xff\xff\xff\x0f", "damaged"),
    ] {
        let error = import_bytes(bytes).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(error.kind(), crate::ErrorKind::ModelInvalid);
    }
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let bytes = std::fs::read(fixtures().join("timm-vit/model.onnx")).unwrap();
    for length in 0..bytes.len() {
        // Only what follows the graph, such as the operator set, can be missing unnoticed at first.
        assert!(import_bytes(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn changed_bytes_never_panic() {
    for name in ["timm-eva02", "keras-swinv2-batch1", "keras-vit-batch1", "keras-convnextv2"] {
        let bytes = std::fs::read(fixtures().join(name).join("model.onnx")).unwrap();
        for at in (0..bytes.len()).step_by(997) {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let _ = import_bytes(&changed);
            }
        }
    }
}

/// One node on constants: shapes and values in, shape and values out.
fn evaluated(
    op: &str,
    inputs: &[(&[usize], &[f32])],
    ints: &[(&str, i64)],
) -> (Vec<usize>, Vec<f32>) {
    use super::constant::{Const, Data};
    // The smallest file that is a graph: operator set 13 and one output.
    let graph = Graph::parse(b"\x42\x02\x10\x0d\x3a\x05\x62\x03\x0a\x01y").unwrap();
    let node = graph::Node {
        op: op.to_owned(),
        outputs: vec!["y".to_owned()],
        attributes: ints
            .iter()
            .map(|(name, value)| ((*name).to_owned(), graph::Attribute::Int(*value)))
            .collect(),
        ..Default::default()
    };
    let constants: Vec<_> = inputs
        .iter()
        .map(|(dims, values)| {
            Some(Const::new(dims.to_vec(), Data::floats(values.iter().copied()), &[]).unwrap())
        })
        .collect();
    let made = super::eval::Evaluator::new(&graph).node(&node, &constants).unwrap();
    (made[0].dims.clone(), made[0].floats(&graph).unwrap().to_vec())
}

#[test]
fn evaluates_operations() {
    let a: (&[usize], &[f32]) = (&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let b: (&[usize], &[f32]) = (&[3], &[1., 0., -1.]);
    assert_eq!(evaluated("Add", &[a, b], &[]).1, [2., 2., 2., 5., 5., 5.]);
    assert_eq!(evaluated("Transpose", &[a], &[]).1, [1., 4., 2., 5., 3., 6.]);
    let m: (&[usize], &[f32]) = (&[3, 1], &[1., 0., -1.]);
    assert_eq!(evaluated("MatMul", &[a, m], &[]), (vec![2, 1], vec![-2., -2.]));
    assert_eq!(evaluated("Concat", &[a, a], &[("axis", 0)]).0, [4, 3]);
    let expected = [1., 2., 3., 1., 2., 3., 4., 5., 6., 4., 5., 6.];
    assert_eq!(evaluated("Concat", &[a, a], &[("axis", -1)]).1, expected);
    let index: (&[usize], &[f32]) = (&[2], &[2., -3.]);
    assert_eq!(evaluated("Gather", &[a, index], &[("axis", 1)]).1, [3., 1., 6., 4.]);
    let one: &[usize] = &[1];
    let slice = [a, (one, &[2.]), (one, &[-9.]), (one, &[1.]), (one, &[-2.])];
    assert_eq!(evaluated("Slice", &slice, &[]), (vec![2, 2], vec![3., 1., 6., 4.]));
    let axis: (&[usize], &[f32]) = (&[1], &[1.]);
    assert_eq!(evaluated("ReduceSum", &[a, axis], &[("keepdims", 0)]), (vec![2], vec![6., 15.]));
    assert_eq!(evaluated("ReduceMean", &[a], &[("keepdims", 0)]), (vec![], vec![3.5]));
    assert_eq!(evaluated("Clip", &[b, (&[], &[-0.5]), (&[], &[0.5])], &[]).1, [0.5, 0., -0.5]);
    assert_eq!(evaluated("Relu", &[b], &[]).1, [1., 0., 0.]);
    let shape: (&[usize], &[f32]) = (&[2], &[-1., 2.]);
    assert_eq!(evaluated("Reshape", &[a, shape], &[]).0, [3, 2]);
    let wide: (&[usize], &[f32]) = (&[2], &[2., 3.]);
    assert_eq!(evaluated("Expand", &[b, wide], &[]).1, [1., 0., -1., 1., 0., -1.]);
}
