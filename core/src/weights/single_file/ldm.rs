//! The names that Stability's own code (latent diffusion, "LDM") gives to the tensors of SDXL and of
//! Stable Diffusion 1, in the names of diffusers and transformers. Single files have them.
//!
//! LDM numbers the layers of the denoising network through all stages, where diffusers counts within
//! each; it counts the stages of a decoder from the largest size; and its second text encoder is that
//! of OpenCLIP. All functions take names without what a file puts before those of a component.

use super::super::renamed::{Name, Part};

/// Names of the denoising network.
pub(super) struct UNet {
    /// Layers of a stage with the one that changes the size.
    each: usize,
}

impl UNet {
    /// What can be told from all names of the network. The first layer is a convolution of its own.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut halving, mut last) = (usize::MAX, 1);
        for name in names {
            if let Some((number, part)) = numbered(name, "input_blocks") {
                last = last.max(number);
                if part.starts_with("0.op.") {
                    halving = halving.min(number);
                }
            }
        }
        // A network of one stage changes the size nowhere.
        Self { each: if halving < usize::MAX { halving.max(1) } else { last + 1 } }
    }

    pub(super) fn rename(&self, name: &str) -> Name {
        now(self
            .down(name)
            .or_else(|| self.up(name))
            .or_else(|| middle(name))
            .or_else(|| ends(name)))
    }

    fn down(&self, name: &str) -> Option<String> {
        let (number, part) = numbered(name, "input_blocks")?;
        let number = number.checked_sub(1)?;
        let (stage, i) = (number / self.each, number % self.each);
        let block = format!("down_blocks.{stage}");
        match part.split_once('.')? {
            ("0", part) => match part.strip_prefix("op.") {
                Some(tensor) => Some(format!("{block}.downsamplers.0.conv.{tensor}")),
                None => Some(format!("{block}.resnets.{i}.{}", part_of_resnet(part)?)),
            },
            ("1", part) => Some(format!("{block}.attentions.{i}.{part}")),
            _ => None,
        }
    }

    fn up(&self, name: &str) -> Option<String> {
        let (number, part) = numbered(name, "output_blocks")?;
        let (stage, i) = (number / self.each, number % self.each);
        let block = format!("up_blocks.{stage}");
        let (kind, part) = part.split_once('.')?;
        match (kind, part.strip_prefix("conv.")) {
            ("1" | "2", Some(tensor)) => Some(format!("{block}.upsamplers.0.conv.{tensor}")),
            ("0", _) => Some(format!("{block}.resnets.{i}.{}", part_of_resnet(part)?)),
            ("1", _) => Some(format!("{block}.attentions.{i}.{part}")),
            _ => None,
        }
    }
}

fn middle(name: &str) -> Option<String> {
    Some(match numbered(name, "middle_block")? {
        (1, part) => format!("mid_block.attentions.0.{part}"),
        (number @ (0 | 2), part) => {
            format!("mid_block.resnets.{}.{}", number / 2, part_of_resnet(part)?)
        }
        _ => return None,
    })
}

/// What the network has before and behind its stages.
fn ends(name: &str) -> Option<String> {
    let (layer, tensor) = name.rsplit_once('.')?;
    let layer = match layer {
        "input_blocks.0.0" => "conv_in",
        "time_embed.0" => "time_embedding.linear_1",
        "time_embed.2" => "time_embedding.linear_2",
        "label_emb.0.0" => "add_embedding.linear_1",
        "label_emb.0.2" => "add_embedding.linear_2",
        "out.0" => "conv_norm_out",
        "out.2" => "conv_out",
        _ => return None,
    };
    Some(format!("{layer}.{tensor}"))
}

fn part_of_resnet(part: &str) -> Option<String> {
    let (layer, tensor) = part.rsplit_once('.')?;
    let layer = match layer {
        "in_layers.0" => "norm1",
        "in_layers.2" => "conv1",
        "emb_layers.1" => "time_emb_proj",
        "out_layers.0" => "norm2",
        "out_layers.3" => "conv2",
        "skip_connection" => "conv_shortcut",
        _ => return None,
    };
    Some(format!("{layer}.{tensor}"))
}

/// Names of the autoencoder.
pub(super) struct Vae {
    /// Stages of the decoder.
    stages: usize,
}

impl Vae {
    /// What can be told from all names of the autoencoder.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let number = |name: &'a str| Some(numbered(name, "decoder.up")?.0 + 1);
        Self { stages: names.filter_map(number).max().unwrap_or(0) }
    }

    pub(super) fn rename(&self, name: &str) -> Name {
        let Some((half, part)) = name.split_once('.') else { return Name::Kept };
        match half {
            // Only training needs them.
            "loss" | "model_ema" => return Name::Hidden,
            "encoder" | "decoder" => {}
            _ => return Name::Kept,
        }
        if let Some(part) = part.strip_prefix("mid.attn_1.") {
            return attention(&format!("{half}.mid_block.attentions.0"), part);
        }
        let part = self
            .stage(part)
            .or_else(|| middle_of_vae(part))
            .or_else(|| Some(format!("conv_norm_out.{}", part.strip_prefix("norm_out.")?)));
        now(part.map(|part| format!("{half}.{part}")))
    }

    fn stage(&self, part: &str) -> Option<String> {
        if let Some((number, part)) = numbered(part, "down") {
            let block = format!("down_blocks.{number}");
            return Some(match part.strip_prefix("downsample.") {
                Some(part) => format!("{block}.downsamplers.0.{part}"),
                None => format!("{block}.{}", block_of_vae(part)?),
            });
        }
        let (number, part) = numbered(part, "up")?;
        let block = format!("up_blocks.{}", self.stages.checked_sub(number + 1)?);
        Some(match part.strip_prefix("upsample.") {
            Some(part) => format!("{block}.upsamplers.0.{part}"),
            None => format!("{block}.{}", block_of_vae(part)?),
        })
    }
}

/// `block.i` of a stage.
fn block_of_vae(part: &str) -> Option<String> {
    let (number, part) = numbered(part, "block")?;
    Some(format!("resnets.{number}.{}", shortcut(part)))
}

fn middle_of_vae(part: &str) -> Option<String> {
    let (number, part) = part.strip_prefix("mid.block_")?.split_once('.')?;
    let number = number.parse::<usize>().ok()?.checked_sub(1)?;
    Some(format!("mid_block.resnets.{number}.{}", shortcut(part)))
}

fn shortcut(part: &str) -> String {
    match part.strip_prefix("nin_shortcut.") {
        Some(tensor) => format!("conv_shortcut.{tensor}"),
        None => part.to_owned(),
    }
}

/// Attention of the autoencoder: convolutions of one pixel in LDM, linear layers in diffusers.
fn attention(to: &str, part: &str) -> Name {
    let Some((layer, tensor)) = part.split_once('.') else { return Name::Kept };
    let layer = match layer {
        "norm" => return Name::Now(format!("{to}.group_norm.{tensor}")),
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        _ => return Name::Kept,
    };
    let part = if tensor == "weight" { Part::Matrix } else { Part::Whole };
    Name::Parts(vec![(format!("{to}.{layer}.{tensor}"), part)])
}

/// Names of transformers' CLIP, which LDM keeps.
pub(super) fn clip(name: &str) -> Name {
    // A list of whole numbers in files of older versions.
    if name.ends_with("embeddings.position_ids") { Name::Hidden } else { Name::Kept }
}

/// Names of OpenCLIP.
pub(super) fn open_clip(name: &str) -> Name {
    let whole = match name {
        "logit_scale" => return Name::Hidden,
        "text_projection" => {
            return Name::Parts(vec![("text_projection.weight".to_owned(), Part::Transposed)]);
        }
        "positional_embedding" => Some("embeddings.position_embedding.weight".to_owned()),
        "token_embedding.weight" => Some("embeddings.token_embedding.weight".to_owned()),
        "ln_final.weight" => Some("final_layer_norm.weight".to_owned()),
        "ln_final.bias" => Some("final_layer_norm.bias".to_owned()),
        _ => None,
    };
    if let Some(whole) = whole {
        return Name::Now(format!("text_model.{whole}"));
    }
    let Some((number, part)) = numbered(name, "transformer.resblocks") else { return Name::Kept };
    let layer = format!("text_model.encoder.layers.{number}");
    if let Some(tensor) = part.strip_prefix("attn.in_proj_") {
        let part = |(i, name)| (format!("{layer}.self_attn.{name}_proj.{tensor}"), Part::Third(i));
        return Name::Parts(["q", "k", "v"].into_iter().enumerate().map(part).collect());
    }
    let renamed = [
        ("attn.out_proj.", "self_attn.out_proj."),
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    now(renamed
        .into_iter()
        .find_map(|(old, new)| Some(format!("{layer}.{new}{}", part.strip_prefix(old)?))))
}

/// What nobody knows keeps its name, so that it is left over and reported.
fn now(name: Option<String>) -> Name {
    name.map_or(Name::Kept, Name::Now)
}

/// The number and the rest of `list.number.rest`.
pub(super) fn numbered<'a>(name: &'a str, list: &str) -> Option<(usize, &'a str)> {
    let (number, part) = name.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
    // No network has more layers; sums of such numbers stay far from overflow.
    Some((number.parse::<u16>().ok()?.into(), part))
}
