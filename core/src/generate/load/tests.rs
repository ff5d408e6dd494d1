//! Another autoencoder in place of a model's own, under every name that its tensors have.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};

use super::*;
use crate::generate::{GenerateOptions, GeneratePipeline, GenerateRequest, MetadataScheme};

/// Stages of the model's autoencoder.
const STAGES: usize = 4;
const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-pipeline/model")
}

fn pipeline(model: &Path, vae: Option<&Path>) -> Result<GeneratePipeline> {
    let options = LoadOptions { vae: vae.map(Path::to_owned), ..LoadOptions::default() };
    GeneratePipeline::load(model.to_str().unwrap(), &options.precision(Precision::F32))
}

/// The values of a picture that is made from another one, through both halves of the autoencoder.
fn values(pipeline: &GeneratePipeline) -> Vec<f32> {
    let pixels = (0..64 * 64 * 3).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    let start = crate::Image::from_rgb8(64, 64, pixels).unwrap();
    let request = GenerateRequest::new("a cat").image(start).seed(3);
    let options = GenerateOptions::default().size(64, 64).steps(2).keep_values(true);
    pipeline.generate(&request, &options).unwrap()[0].values.as_ref().unwrap().to_vec()
}

/// What Stability's code calls a tensor. That this is right is tested with the files of its converters.
fn stability(name: &str) -> String {
    let name = name
        .replace("down_blocks.", "down.")
        .replace("downsamplers.0.", "downsample.")
        .replace("upsamplers.0.", "upsample.")
        .replace("mid_block.resnets.0.", "mid.block_1.")
        .replace("mid_block.resnets.1.", "mid.block_2.")
        .replace("mid_block.attentions.0.group_norm.", "mid.attn_1.norm.")
        .replace("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out.")
        .replace("mid_block.attentions.0.to_", "mid.attn_1.")
        .replace("resnets.", "block.")
        .replace("conv_shortcut.", "nin_shortcut.")
        .replace("conv_norm_out.", "norm_out.");
    let Some((half, rest)) = name.split_once(".up_blocks.") else { return name };
    let (stage, rest) = rest.split_once('.').unwrap();
    format!("{half}.up.{}.{rest}", STAGES - 1 - stage.parse::<usize>().unwrap())
}

fn write(tensors: &HashMap<String, Tensor>, file: &Path) {
    candle_core::safetensors::save(tensors, file).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn another_autoencoder_is_as_if_the_folder_had_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("folder");
    copy(&model(), &folder);
    // Another one of the same size: every tensor differs from the model's own.
    let tensors = candle_core::safetensors::load(model().join(WEIGHTS), &Device::Cpu).unwrap();
    let tensors: HashMap<_, _> =
        tensors.into_iter().map(|(name, t)| (name, t.affine(0.9, 0.01).unwrap())).collect();
    write(&tensors, &folder.join(WEIGHTS));
    let expected = values(&pipeline(&folder, None).unwrap());
    let own = values(&pipeline(&model(), None).unwrap());
    assert_ne!(own, expected);

    let is_matrix = |name: &str| name.contains("attentions.0.to_") && name.ends_with("weight");
    let renamed = |prefix: &str| -> HashMap<String, Tensor> {
        let rename = |(name, tensor): (&String, &Tensor)| {
            // Attention has convolutions of one pixel there.
            let tensor = match is_matrix(name) {
                true => tensor.unsqueeze(2).unwrap().unsqueeze(3).unwrap(),
                false => tensor.clone(),
            };
            (format!("{prefix}{}", stability(name)), tensor)
        };
        tensors.iter().map(rename).collect()
    };
    let file = |name: &str| root.path().join(name);
    write(&tensors, &file("diffusers.safetensors"));
    write(&renamed(""), &file("stability.safetensors"));
    let mut whole = renamed("first_stage_model.");
    let other = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    whole.insert("model.diffusion_model.out.2.weight".to_owned(), other);
    write(&whole, &file("whole.safetensors"));
    for name in ["diffusers", "stability", "whole"] {
        let pipeline = pipeline(&model(), Some(&file(&format!("{name}.safetensors")))).unwrap();
        assert_eq!(values(&pipeline), expected, "{name}");
        let options = GenerateOptions::default().size(64, 64).steps(1);
        let made = pipeline.generate(&GenerateRequest::new("a"), &options).unwrap().remove(0);
        let told = made.metadata(MetadataScheme::Fooocus).unwrap();
        assert!(told.contains(&format!(r#""vae":"{name}""#)), "{told}");
        let told = made.metadata(MetadataScheme::A1111).unwrap();
        assert!(told.contains(&format!("VAE: {name},")), "{told}");
    }
    let same = pipeline(&model(), Some(&model().join(WEIGHTS))).unwrap();
    assert_eq!(values(&same), own);
}

#[test]
fn what_is_no_autoencoder_for_the_model_is_refused_by_name() {
    let goldens = model().join("../..");
    for (file, kind) in [
        ("none.safetensors", ErrorKind::ModelNotFound),
        ("generate-pipeline/model/vae", ErrorKind::ModelNotFound),
        ("generate-lora/lora_kohya.safetensors", ErrorKind::ModelInvalid),
        // Of another size.
        ("generate-networks/vae/diffusion_pytorch_model.safetensors", ErrorKind::ModelInvalid),
        ("edit-formats/types.gguf", ErrorKind::Unsupported),
    ] {
        let error = pipeline(&model(), Some(&goldens.join(file))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("vae="), "{error}");
    }
}
