//! The documented parameters of `/v1/engine/generate/`: their types, defaults and ranges. What was asked for
//! becomes [`Params`] whole, which are kept in the database and say what is made.

use serde::{Deserialize, Serialize};
use tagbrush::{ImageFormat, SamplerKind, Scheduler};

use super::pictures::Pictures;
use super::read::{Reader, Wrong, choice, text};

/// The parameters that are pictures, in the order in which they are read.
pub(crate) const PICTURES: [&str; 3] =
    ["uov_input_image", "inpaint_input_image", "inpaint_mask_image_upload"];
/// What stands for no file.
pub(super) const NONE: &str = "None";
/// What stands for the autoencoder of the model itself.
pub(super) const MODEL_VAE: &str = "Default (model)";
/// The styles unless others are named.
pub(super) const STYLES: [&str; 3] = ["Fooocus V2", "Fooocus Enhance", "Fooocus Sharp"];
/// The size unless another one is named.
pub(super) const SIZE: &str = "1152*896";
/// The inpaint engine unless another one is named.
pub(super) const INPAINT_ENGINE: &str = "v2.6";
const PERFORMANCES: [&str; 5] = ["Quality", "Speed", "Extreme Speed", "Lightning", "Hyper-SD"];
const UOV_METHODS: [&str; 7] = [
    "Disabled",
    "Vary (Subtle)",
    "Vary (Strong)",
    "Upscale (1.5x)",
    "Upscale (2x)",
    "Upscale (Fast 2x)",
    "Upscale (Custom)",
];
const SIDES: [&str; 4] = ["Left", "Right", "Top", "Bottom"];
const CONTROLS: [&str; 4] = ["ImagePrompt", "FaceSwap", "PyraCanny", "CPDS"];

/// A LoRA file.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct LoraParam {
    pub(super) enabled: bool,
    pub(super) model_name: String,
    pub(super) weight: f64,
}

/// A picture for a control network.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct ControlParam {
    pub(super) cn_img: String,
    pub(super) cn_stop: f64,
    pub(super) cn_weight: f64,
    pub(super) cn_type: String,
}

macro_rules! params {
    ($($name:ident: $type:ty = $read:expr;)*) => {
        /// All parameters, under their documented names. Pictures are where they are kept.
        #[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
        pub(crate) struct Params {
            $(pub(super) $name: $type,)*
        }

        impl Params {
            /// Reads them all; what is wrong stays with the reader. Pictures go into `pictures`.
            pub(super) fn read(reader: &mut Reader<'_>, pictures: &mut Pictures<'_>) -> Self {
                Self { $($name: {
                    let read: fn(&mut Reader<'_>, &str, &mut Pictures<'_>) -> $type = $read;
                    read(reader, stringify!($name), pictures)
                },)* }
            }
        }
    };
}

params! {
    prompt: String = |r, name, _| r.text(name, "");
    negative_prompt: String = |r, name, _| r.text(name, "");
    style_selections: Vec<String> = |r, name, _| {
        r.list(name, text).unwrap_or_else(|| STYLES.map(str::to_owned).to_vec())
    };
    performance_selection: String = |r, name, _| r.choice(name, "Speed", &PERFORMANCES);
    aspect_ratios_selection: String = |r, name, _| r.text(name, SIZE);
    image_number: i64 = |r, name, _| r.int(name, 1, 1..=32);
    output_format: String = |r, name, _| r.choice(name, "png", &["png", "jpeg", "jpg", "webp"]);
    image_seed: i64 = |r, name, _| r.value(name, -1, seed);
    read_wildcards_in_order: bool = |r, name, _| r.flag(name, false);
    sharpness: f64 = |r, name, _| r.float(name, 2.0, 0.0..=30.0);
    guidance_scale: f64 = |r, name, _| r.float(name, 4.0, 1.0..=30.0);
    base_model_name: String = |r, name, _| r.text(name, "");
    refiner_model_name: String = |r, name, _| r.text(name, NONE);
    refiner_switch: f64 = |r, name, _| r.float(name, 0.5, 0.1..=1.0);
    loras: Vec<LoraParam> = |r, name, _| r.objects(name, lora).unwrap_or_default();
    input_image_checkbox: bool = |r, name, _| {
        // The document has it so, whatever is sent.
        r.flag(name, true);
        true
    };
    current_tab: String = |r, name, _| r.text(name, "uov");
    uov_method: String = |r, name, _| r.choice(name, "Disabled", &UOV_METHODS);
    uov_input_image: String = |r, name, p| p.read(r, name);
    outpaint_selections: Vec<String> = |r, name, _| {
        r.list(name, |side| choice(side, &SIDES)).unwrap_or_default()
    };
    outpaint_distance: Vec<i64> = |r, name, _| r.value(name, vec![0; 4], distances);
    inpaint_input_image: String = |r, name, p| p.read(r, name);
    inpaint_additional_prompt: String = |r, name, _| r.text(name, "");
    inpaint_mask_image_upload: String = |r, name, p| p.read(r, name);
    disable_preview: bool = |r, name, _| r.flag(name, false);
    disable_intermediate_results: bool = |r, name, _| r.flag(name, false);
    disable_seed_increment: bool = |r, name, _| r.flag(name, false);
    black_out_nsfw: bool = |r, name, _| r.flag(name, false);
    adm_scaler_positive: f64 = |r, name, _| r.float(name, 1.5, 0.0..=3.0);
    adm_scaler_negative: f64 = |r, name, _| r.float(name, 0.8, 0.0..=3.0);
    adm_scaler_end: f64 = |r, name, _| r.float(name, 0.3, 0.0..=1.0);
    adaptive_cfg: f64 = |r, name, _| r.float(name, 7.0, 1.0..=30.0);
    clip_skip: i64 = |r, name, _| r.int(name, 2, 1..=12);
    sampler_name: String = |r, name, _| {
        let names: Vec<_> = SamplerKind::ALL.iter().map(|sampler| sampler.name()).collect();
        r.choice(name, "dpmpp_2m_sde_gpu", &names)
    };
    scheduler_name: String = |r, name, _| {
        let names: Vec<_> = Scheduler::ALL.iter().map(|scheduler| scheduler.name()).collect();
        r.choice(name, "karras", &names)
    };
    vae_name: String = |r, name, _| r.text(name, MODEL_VAE);
    overwrite_step: i64 = |r, name, _| r.int(name, -1, -1..=1000);
    overwrite_switch: i64 = |r, name, _| r.int(name, -1, -1..=1000);
    overwrite_width: i64 = |r, name, _| r.int(name, -1, -1..=2048);
    overwrite_height: i64 = |r, name, _| r.int(name, -1, -1..=2048);
    overwrite_vary_strength: f64 = |r, name, _| r.float(name, -1.0, -1.0..=1.0);
    overwrite_upscale_strength: f64 = |r, name, _| r.float(name, -1.0, -1.0..=1.0);
    mixing_image_prompt_and_vary_upscale: bool = |r, name, _| r.flag(name, false);
    mixing_image_prompt_and_inpaint: bool = |r, name, _| r.flag(name, false);
    debugging_cn_preprocessor: bool = |r, name, _| r.flag(name, false);
    skipping_cn_preprocessor: bool = |r, name, _| r.flag(name, false);
    canny_low_threshold: i64 = |r, name, _| r.int(name, 64, 1..=255);
    canny_high_threshold: i64 = |r, name, _| r.int(name, 128, 1..=255);
    refiner_swap_method: String = |r, name, _| r.choice(name, "joint", &["joint", "separate", "vae"]);
    controlnet_softness: f64 = |r, name, _| r.float(name, 0.25, 0.0..=1.0);
    freeu_enabled: bool = |r, name, _| r.flag(name, false);
    freeu_b1: f64 = |r, name, _| r.float(name, 1.01, 0.0..=10.0);
    freeu_b2: f64 = |r, name, _| r.float(name, 1.02, 0.0..=10.0);
    freeu_s1: f64 = |r, name, _| r.float(name, 0.99, 0.0..=10.0);
    freeu_s2: f64 = |r, name, _| r.float(name, 0.95, 0.0..=10.0);
    debugging_inpaint_preprocessor: bool = |r, name, _| r.flag(name, false);
    inpaint_disable_initial_latent: bool = |r, name, _| r.flag(name, false);
    inpaint_engine: String = |r, name, _| {
        r.choice(name, INPAINT_ENGINE, &[NONE, "v1", "v2.5", "v2.6"])
    };
    inpaint_strength: f64 = |r, name, _| r.float(name, 1.0, 0.0..=1.0);
    inpaint_respective_field: f64 = |r, name, _| r.float(name, 0.618, 0.0..=1.0);
    inpaint_mask_upload_checkbox: bool = |r, name, _| r.flag(name, false);
    invert_mask_checkbox: bool = |r, name, _| r.flag(name, false);
    inpaint_erode_or_dilate: i64 = |r, name, _| r.int(name, 0, -64..=64);
    controlnet_image: Vec<ControlParam> = |r, name, _| r.objects(name, control).unwrap_or_default();
    generate_image_grid: bool = |r, name, _| r.flag(name, false);
    upscale_multiple: f64 = |r, name, _| r.float(name, 1.0, 1.0..=5.0);
    preset: String = |r, name, _| r.text(name, "initial");
    stream_output: bool = |r, name, _| r.flag(name, false);
    save_metadata_to_images: bool = |r, name, _| r.flag(name, true);
    metadata_scheme: String = |r, name, _| r.choice(name, "fooocus", &["fooocus", "a1111"]);
    require_base64: bool = |r, name, _| r.flag(name, false);
    async_process: bool = |r, name, _| r.flag(name, false);
    webhook_url: String = |r, name, _| r.value(name, String::new(), |value| match value.is_null() {
        true => Ok(String::new()),
        false => text(value),
    });
}

impl Params {
    /// The format of pictures.
    pub(super) fn format(&self) -> ImageFormat {
        self.output_format.parse().unwrap_or_default()
    }

    /// Where pictures are, in their order, of those that there are.
    pub(super) fn pictures(&mut self) -> impl Iterator<Item = &mut String> {
        let all = [
            &mut self.uov_input_image,
            &mut self.inpaint_input_image,
            &mut self.inpaint_mask_image_upload,
        ];
        all.into_iter().filter(|picture| !picture.is_empty())
    }
}

/// Numbers that are no seeds stand for a random one.
fn seed(value: &serde_json::Value) -> Result<i64, Wrong> {
    let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    match number {
        Some(seed) => Ok(seed.max(-1)),
        None if value.is_number() && value.as_f64().is_none_or(|n| n.fract() == 0.0) => Ok(-1),
        None => Err(Wrong("int_type", "Input should be a valid integer".to_owned())),
    }
}

fn distances(value: &serde_json::Value) -> Result<Vec<i64>, Wrong> {
    let numbers = value.as_array().map(|all| all.iter().map(serde_json::Value::as_i64).collect());
    let sides: Option<Vec<i64>> = numbers.flatten();
    match sides {
        Some(sides) if sides.len() == 4 && sides.iter().all(|side| (0..=8192).contains(side)) => {
            Ok(sides)
        }
        _ => Err(Wrong(
            "value_error",
            "Input should be four whole numbers from 0 to 8192: left, top, right, bottom"
                .to_owned(),
        )),
    }
}

fn lora(reader: &mut Reader<'_>) -> LoraParam {
    reader.require("enabled");
    reader.require("model_name");
    LoraParam {
        enabled: reader.flag("enabled", false),
        model_name: reader.text("model_name", NONE),
        weight: reader.float("weight", 0.5, -2.0..=2.0),
    }
}

fn control(reader: &mut Reader<'_>) -> ControlParam {
    let image = |value: &serde_json::Value| match value.is_null() {
        true => Ok(String::new()),
        false => text(value),
    };
    let image = reader.value("cn_img", String::new(), image);
    if !super::pictures::is_none(&image) {
        reader.refuse("cn_img", super::refused::CONTROL);
    }
    ControlParam {
        cn_img: String::new(),
        cn_stop: reader.float("cn_stop", 0.6, 0.0..=1.0),
        cn_weight: reader.float("cn_weight", 0.6, 0.0..=2.0),
        cn_type: reader.choice("cn_type", "ImagePrompt", &CONTROLS),
    }
}
