use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::super::tests::{difference, tolerance};
use super::super::{Added, FreeU, Prompt, UNet, UnetConfig};
use super::config::StageConfig;
use crate::device::testing::{device, zeros};
use crate::error::ErrorKind;
use crate::nn::Keep;
use crate::weights::{SafeTensorsFile, Source, Weights};

const KINDS: [&str; 3] = ["base", "refiner", "sd1"];

fn path(kind: &str, name: &str) -> PathBuf {
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    goldens.join("generate-unet").join(kind).join(name)
}

fn config(kind: &str) -> UnetConfig {
    UnetConfig::parse(&std::fs::read(path(kind, "config.json")).unwrap()).unwrap()
}

fn load(kind: &str, dtype: DType) -> UNet {
    let file = path(kind, "diffusion_pytorch_model.safetensors");
    let weights = Weights::new(Arc::new(SafeTensorsFile::open(&file).unwrap()), &device(), dtype);
    let network = UNet::load(&config(kind), &weights.root(), Keep::All).unwrap();
    weights.check_all_taken(|_| false).unwrap();
    network
}

/// What a network was asked, and what diffusers answered.
struct Golden {
    latents: Tensor,
    timesteps: Vec<f32>,
    texts: Vec<Tensor>,
    pooled: Option<Tensor>,
    sizes: Vec<Vec<f32>>,
    output: Tensor,
}

impl Golden {
    fn of(kind: &str) -> Self {
        let file = SafeTensorsFile::open(&path(kind, "golden.safetensors")).unwrap();
        let load = |name: &str| file.load(name, DType::F32, &device()).unwrap();
        let timesteps: Vec<f32> = load("timesteps").to_vec1().unwrap();
        let is_there = file.names().iter().any(|name| name == "pooled");
        Self {
            latents: load("latents"),
            texts: (0..timesteps.len()).map(|i| load(&format!("text.{i}"))).collect(),
            pooled: is_there.then(|| load("pooled")),
            sizes: if is_there { load("sizes").to_vec2().unwrap() } else { Vec::new() },
            output: load("output"),
            timesteps,
        }
    }

    fn prompts(&self, network: &UNet) -> Vec<Prompt> {
        let prompt = |(i, text): (usize, &Tensor)| {
            let pooled = self.pooled.as_ref().map(|pooled| pooled.get(i).unwrap());
            let added = pooled.as_ref().map(|pooled| Added { pooled, sizes: &self.sizes[i] });
            network.prompt(text, added).unwrap()
        };
        self.texts.iter().enumerate().map(prompt).collect()
    }

    fn answer(&self, network: &UNet) -> Tensor {
        let prompts = self.prompts(network);
        let prompts: Vec<_> = prompts.iter().collect();
        network.forward(&self.latents, &self.timesteps, &prompts, None).unwrap()
    }
}

#[test]
fn every_kind_computes_what_diffusers_does() {
    for kind in KINDS {
        let golden = Golden::of(kind);
        let worst = difference(&golden.answer(&load(kind, DType::F32)), &golden.output);
        println!("{kind}: {worst:.1e}");
        assert!(worst <= tolerance(), "{kind} differs by {worst}");
        let worst = difference(&golden.answer(&load(kind, DType::BF16)), &golden.output);
        println!("{kind} in bf16: {worst:.1e}");
        assert!((1e-5..=0.03).contains(&worst), "{kind} in bf16 differs by {worst}");
    }
}

/// Layers that are read again give what they give when they stay, and are counted as what they are.
#[test]
fn large_layers_need_not_stay() {
    for kind in KINDS {
        let file = SafeTensorsFile::open(&path(kind, "diffusion_pytorch_model.safetensors"));
        let file: Arc<dyn Source> = Arc::new(file.unwrap());
        let (config, golden) = (config(kind), Golden::of(kind));
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        for name in file.names().iter().filter(|name| config.is_of_large_layer(name)) {
            let (before, rest) = name.split_once(".transformer_blocks.").unwrap();
            let layer = format!("{before} {}", rest.split('.').next().unwrap());
            *sizes.entry(layer).or_default() += file.shape(name).unwrap().iter().product::<usize>();
        }
        assert_eq!(sizes.len(), config.large_layers(), "{kind}");
        assert!(sizes.values().all(|size| Some(size) == sizes.values().next()), "{kind}");

        let expected = golden.answer(&load(kind, DType::F32));
        for keep in 0..=sizes.len() {
            let weights = Weights::new(Arc::clone(&file), &device(), DType::F32);
            let network = UNet::load(&config, &weights.root(), Keep::First(keep)).unwrap();
            for _ in 0..2 {
                let found = golden.answer(&network);
                assert_eq!(difference(&found, &expected), 0.0, "{kind}, {keep} stay");
            }
            let prompts = golden.prompts(&network);
            let layers = prompts[0].layers.iter();
            let values: usize = layers.map(|layer| layer.dim(2).unwrap()).sum();
            assert_eq!(values, config.text_values());
        }
    }
}

#[test]
fn most_of_the_published_network_need_not_stay() {
    let config = UnetConfig::parse(
        br#"{"block_out_channels": [320, 640, 1280], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20]}"#,
    );
    let config = config.unwrap();
    assert_eq!(config.large_layers(), 60);
    assert_eq!(config.text_values(), 2 * (60 * 1280 + 10 * 640));
    for (name, is_large) in [
        ("down_blocks.2.attentions.1.transformer_blocks.9.norm1.weight", true),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", true),
        ("up_blocks.0.attentions.2.transformer_blocks.3.ff.net.2.bias", true),
        ("up_blocks.1.attentions.2.transformer_blocks.1.ff.net.2.bias", false),
        ("up_blocks.0.attentions.2.proj_in.weight", false),
        ("up_blocks.7.attentions.2.transformer_blocks.1.norm1.bias", false),
        ("conv_in.weight", false),
    ] {
        assert_eq!(config.is_of_large_layer(name), is_large, "{name}");
    }
}

#[test]
fn a_sample_gives_alone_what_it_gives_with_others() {
    if !crate::kernels::are_exact() {
        return;
    }
    for kind in KINDS {
        let (network, golden) = (load(kind, DType::F32), Golden::of(kind));
        let (all, prompts) = (golden.answer(&network), golden.prompts(&network));
        for (i, prompt) in prompts.iter().enumerate() {
            let row = |x: &Tensor| x.narrow(0, i, 1).unwrap();
            let times = &golden.timesteps[i..=i];
            let alone = network.forward(&row(&golden.latents), times, &[prompt], None).unwrap();
            assert_eq!(difference(&alone, &row(&all)), 0.0, "{kind}, sample {i}");
        }
    }
}

/// The folder that was written beside the others, since channels of theirs are not those that FreeU looks for.
#[test]
fn freeu_computes_what_its_authors_do() {
    let kind = "../generate-freeu";
    let (network, golden) = (load(kind, DType::F32), Golden::of(kind));
    assert!(difference(&golden.answer(&network), &golden.output) <= tolerance());
    let file = SafeTensorsFile::open(&path(kind, "golden.safetensors")).unwrap();
    let get = |name: &str| file.load(name, DType::F32, &device()).unwrap();
    let scales: Vec<f64> =
        get("scales").to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
    let freeu = FreeU { b1: scales[0], b2: scales[1], s1: scales[2], s2: scales[3] };
    let prompts = golden.prompts(&network);
    let prompts: Vec<_> = prompts.iter().collect();
    let answer =
        |freeu| network.forward(&golden.latents, &golden.timesteps, &prompts, Some(freeu)).unwrap();
    let worst = difference(&answer(freeu), &get("freeu"));
    println!("freeu: {worst:.1e}");
    assert!(worst <= tolerance(), "differs by {worst}");
    let none = FreeU { b1: 1.0, b2: 1.0, s1: 1.0, s2: 1.0 };
    assert!(difference(&answer(none), &golden.output) <= tolerance());
}

#[test]
fn latents_may_be_of_another_type() {
    let (network, mut golden) = (load("base", DType::BF16), Golden::of("base"));
    let expected = golden.answer(&network);
    golden.latents = golden.latents.to_dtype(DType::BF16).unwrap();
    assert_eq!(difference(&golden.answer(&network), &expected), 0.0);
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let (network, golden) = (load("base", DType::F32), Golden::of("base"));
    let (text, pooled) = (&golden.texts[0], &golden.pooled.as_ref().unwrap().get(0).unwrap());
    let sizes = &golden.sizes[0][..];
    for (text, added) in [
        (text, None),
        (text, Some(Added { pooled, sizes: &sizes[1..] })),
        (text, Some(Added { pooled: &zeros(&[1, 10]), sizes })),
        (&zeros(&[5, 7]), Some(Added { pooled, sizes })),
        (&zeros(&[0, 6]), Some(Added { pooled, sizes })),
        (&zeros(&[1, 5, 6]), Some(Added { pooled, sizes })),
    ] {
        let error = network.prompt(text, added).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let plain = load("sd1", DType::F32);
    assert!(plain.prompt(text, Some(Added { pooled, sizes })).is_err());
    let prompt = network.prompt(text, Some(Added { pooled, sizes })).unwrap();
    assert_eq!(prompt.tokens(), 5);
    for (shape, times, count) in [
        (&[1, 8, 8, 5][..], 1, 1),
        (&[1, 0, 8, 4], 1, 1),
        (&[0, 8, 8, 4], 0, 0),
        (&[8, 8, 4], 1, 1),
        (&[2, 8, 8, 4], 1, 2),
        (&[2, 8, 8, 4], 2, 1),
    ] {
        let error = network
            .forward(&zeros(shape), &vec![1.0; times], &vec![&prompt; count], None)
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{shape:?}");
    }
    let error = plain.forward(&zeros(&[1, 8, 8, 9]), &[1.0], &[&prompt], None).err().unwrap();
    assert!(error.to_string().contains("another network"), "{error}");
}

#[test]
fn configurations_of_other_networks_are_refused_by_their_keys() {
    for (text, word) in [
        (r#"{"_class_name": "UNet2DModel"}"#, "_class_name"),
        (r#"{"act_fn": "gelu"}"#, "act_fn"),
        (r#"{"addition_embed_type": "image"}"#, "addition_embed_type"),
        (r#"{"addition_embed_type": "text_time"}"#, "addition_time_embed_dim"),
        (
            r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 256}"#,
            "projection_class_embeddings_input_dim",
        ),
        (r#"{"attention_head_dim": 7}"#, "attention_head_dim"),
        (r#"{"attention_head_dim": [5, 10]}"#, "attention_head_dim"),
        (r#"{"block_out_channels": [320, 644, 1280, 1280]}"#, "block_out_channels"),
        (r#"{"block_out_channels": [1, 2], "norm_num_groups": 1}"#, "block_out_channels"),
        (r#"{"block_out_channels": []}"#, "block_out_channels"),
        (r#"{"block_out_channels": [320, 640]}"#, "down_block_types"),
        (r#"{"class_embed_type": "projection"}"#, "class_embed_type"),
        (r#"{"conv_in_kernel": 1}"#, "conv_in_kernel"),
        (r#"{"down_block_types": ["DownBlock2D"]}"#, "down_block_types"),
        (r#"{"freq_shift": -1}"#, "freq_shift"),
        (r#"{"layers_per_block": 0}"#, "layers_per_block"),
        (r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#, "mid_block_type"),
        (r#"{"norm_num_groups": 0}"#, "norm_num_groups"),
        (r#"{"num_attention_heads": 8}"#, "num_attention_heads"),
        (r#"{"resnet_out_scale_factor": 1.5}"#, "resnet_out_scale_factor"),
        (r#"{"time_cond_proj_dim": 256}"#, "time_cond_proj_dim"),
        (r#"{"transformer_layers_per_block": [[1], 2, 3, 4]}"#, "transformer_layers_per_block"),
        (r#"{"up_block_types": "UpBlock2D"}"#, "up_block_types"),
        (r#"{"use_linear_projection": 1}"#, "use_linear_projection"),
    ] {
        let error = UnetConfig::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn the_default_configuration_is_that_of_stable_diffusion_1() {
    let config = UnetConfig::parse(br#"{"resnet_out_scale_factor": 1, "dropout": 0.0}"#).unwrap();
    let stage = |channels, attends| StageConfig {
        channels,
        blocks: 2,
        attends_down: attends,
        attends_up: attends,
        layers: 1,
        heads: 8,
    };
    let stages = [(320, true), (640, true), (1280, true), (1280, false)];
    assert_eq!(config.stages, stages.map(|(channels, attends)| stage(channels, attends)));
    assert_eq!((config.cross_attention_dim, config.use_linear_projection), (1280, false));
}
