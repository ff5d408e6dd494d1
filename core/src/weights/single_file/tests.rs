//! One file against the folders that it was made of.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::super::tests::{assert_same, file, floats};
use crate::error::ErrorKind;
use crate::models::clip::{ClipTextConfig, ClipTextModel};
use crate::models::sdxl::{AutoencoderConfig, AutoencoderKl, UnetConfig};
use crate::nn::Keep;
use crate::weights::Component::{TextEncoder, TextEncoder2, UNet, Vae};
use crate::weights::renamed::Part;
use crate::weights::{SafeTensorsFile, SingleFile, Weights};

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn checkpoint() -> SingleFile {
    SingleFile::open(&goldens().join("generate-single-file/sdxl.safetensors")).unwrap()
}

fn made_up(names: &[(&str, &[usize])]) -> SingleFile {
    let tensors: Vec<_> = names.iter().map(|(name, shape)| floats(name, shape, 1.0)).collect();
    SingleFile {
        source: Arc::new(file(&tensors, &[])),
        names: names.iter().map(|(name, _)| (*name).to_owned()).collect(),
        origin: "made up".into(),
    }
}

#[test]
fn components_are_those_of_the_folders() {
    let checkpoint = checkpoint();
    for (component, folder) in [
        (UNet, "generate-unet/refiner/diffusion_pytorch_model.safetensors"),
        (Vae, "generate-networks/vae/diffusion_pytorch_model.safetensors"),
        (TextEncoder, "generate-text/l.safetensors"),
        (TextEncoder2, "generate-text/g.safetensors"),
    ] {
        assert!(checkpoint.has(component));
        let expected = SafeTensorsFile::open(&goldens().join(folder)).unwrap();
        assert_same(&*checkpoint.component(component).unwrap(), &expected);
    }
}

#[test]
fn networks_take_all_that_a_component_has() {
    let checkpoint = checkpoint();
    let weights = |component| {
        Weights::new(checkpoint.component(component).unwrap(), &Device::Cpu, DType::F32)
    };
    let config = |name: &str| std::fs::read(goldens().join(name)).unwrap();
    let all = weights(UNet);
    let parsed = UnetConfig::parse(&config("generate-unet/refiner/config.json")).unwrap();
    crate::models::sdxl::UNet::load(&parsed, &all.root(), Keep::All).unwrap();
    all.check_all_taken(|_| false).unwrap();
    let all = weights(Vae);
    let parsed = AutoencoderConfig::parse(&config("generate-networks/vae/config.json")).unwrap();
    AutoencoderKl::load(&parsed, &all.root()).unwrap();
    all.check_all_taken(|_| false).unwrap();
    for (component, name) in [(TextEncoder, "l"), (TextEncoder2, "g")] {
        let all = weights(component);
        let parsed = config(&format!("generate-text/{name}.json"));
        ClipTextModel::load(&ClipTextConfig::parse(&parsed).unwrap(), &all.root(), Keep::All)
            .unwrap();
        all.check_all_taken(|_| false).unwrap();
    }
}

#[test]
fn components_stand_at_other_places_too() {
    let embedding = "token_embedding.weight";
    for (names, component, expected) in [
        (
            vec![format!("conditioner.embedders.0.model.{embedding}")],
            TextEncoder2,
            "text_model.embeddings.token_embedding.weight",
        ),
        (
            vec![format!("cond_stage_model.transformer.text_model.embeddings.{embedding}")],
            TextEncoder,
            "text_model.embeddings.token_embedding.weight",
        ),
        (
            vec![format!("cond_stage_model.transformer.embeddings.{embedding}")],
            TextEncoder,
            "embeddings.token_embedding.weight",
        ),
        (vec!["decoder.norm_out.weight".into()], Vae, "decoder.conv_norm_out.weight"),
        (vec!["diffusion_model.input_blocks.0.0.weight".into()], UNet, "conv_in.weight"),
        (vec!["input_blocks.0.0.weight".into()], UNet, "conv_in.weight"),
    ] {
        let names: Vec<(&str, &[usize])> =
            names.iter().map(|name| (name.as_str(), &[2, 2][..])).collect();
        let file = made_up(&names);
        for other in [UNet, Vae, TextEncoder, TextEncoder2] {
            assert_eq!(file.has(other), other == component, "{other:?} in {names:?}");
        }
        assert_eq!(file.component(component).unwrap().names(), [expected]);
        let error = file.component(if component == Vae { UNet } else { Vae }).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ModelInvalid);
        assert!(error.to_string().contains(names[0].0), "{error}");
    }
}

#[test]
fn names_that_nobody_knows_are_kept_and_left_over() {
    let names = [
        "input_blocks.0.0.weight",
        "input_blocks.1.0.in_layers.7.weight",
        "input_blocks.1.3.weight",
        "input_blocks.99999999999999999999.0.weight",
        "middle_block.3.weight",
        "output_blocks.0.4.x",
        "output_blocks.x.0.y",
        "label_emb.0.1.weight",
        "up_blocks",
        "",
    ];
    let file = made_up(&names.map(|name| (name, &[1][..])));
    let found = file.component(UNet).unwrap().names();
    let mut expected = names.map(|name| if name == names[0] { "conv_in.weight" } else { name });
    expected.sort_unstable();
    assert_eq!(found, expected);
    let names = [
        "decoder.norm_out.weight",
        "encoder.up.0.block.0.conv1.weight",
        "decoder.up.5.block.1.x",
        "decoder.mid.block_0.x",
        "decoder.mid.attn_1.z.weight",
        "decoder.mid.attn_1.q",
        "loss.x",
    ];
    let found = made_up(&names.map(|name| (name, &[1][..]))).component(Vae).unwrap().names();
    assert_eq!(
        found,
        [
            "decoder.conv_norm_out.weight",
            "decoder.mid.attn_1.q",
            "decoder.mid.attn_1.z.weight",
            "decoder.mid.block_0.x",
            "decoder.up_blocks.0.resnets.1.x",
            "encoder.up_blocks.5.resnets.0.conv1.weight",
        ]
    );
}

#[test]
fn tensors_that_have_no_such_part_are_refused_by_name() {
    let prefix = "conditioner.embedders.1.model.";
    let sign = format!("{prefix}token_embedding.weight");
    for (name, shape, component) in [
        ("transformer.resblocks.0.attn.in_proj_weight", &[4, 2][..], TextEncoder2),
        ("transformer.resblocks.0.attn.in_proj_bias", &[], TextEncoder2),
        ("text_projection", &[4], TextEncoder2),
        ("first_stage_model.decoder.mid.attn_1.q.weight", &[4, 4, 3, 3], Vae),
    ] {
        let full = if component == Vae { name.to_owned() } else { format!("{prefix}{name}") };
        let vae = "first_stage_model.decoder.norm_out.weight";
        let file = made_up(&[(&sign, &[1]), (vae, &[1]), (&full, shape)]);
        let error = file.component(component).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ModelInvalid);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(Part::Matrix.shape(&[4, 4]), Some(vec![4, 4]));
}
