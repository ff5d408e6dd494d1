//! The names that Wan's own code gives to the tensors of its video autoencoder, in the names of
//! diffusers. ComfyUI publishes the autoencoder of Qwen-Image under them.
//!
//! Wan numbers layers where diffusers names them: the encoder has one list `downsamples`, the decoder
//! one list `upsamples` of three residual blocks and a resampling layer for each stage, and a residual
//! block is the list `residual` of norm, activation, convolution and so on.

/// Residual blocks and the resampling layer of a stage of the decoder.
const STAGE: usize = 4;

/// Whether these are names of Wan's.
pub(super) fn is_wan(names: &[String]) -> bool {
    names.iter().any(|name| name.starts_with("decoder.upsamples."))
}

/// The name in diffusers of the tensor `name`, if it has one.
pub(super) fn to_diffusers(name: &str) -> Option<String> {
    let (layer, tensor) = name.rsplit_once('.')?;
    let layer = match layer {
        "conv1" => "quant_conv".to_owned(),
        "conv2" => "post_quant_conv".to_owned(),
        _ => {
            let (half, layer) = layer.split_once('.')?;
            let layer = match half {
                "encoder" => encoder(layer),
                "decoder" => decoder(layer),
                _ => None,
            }?;
            format!("{half}.{layer}")
        }
    };
    Some(format!("{layer}.{tensor}"))
}

fn encoder(layer: &str) -> Option<String> {
    let Some((number, part)) = numbered(layer, "downsamples") else { return ends(layer) };
    Some(format!("down_blocks.{number}.{}", part_of_block(part)?))
}

fn decoder(layer: &str) -> Option<String> {
    let Some((number, part)) = numbered(layer, "upsamples") else { return ends(layer) };
    let part = part_of_block(part)?;
    Some(match (number / STAGE, number % STAGE) {
        (stage, 3) => format!("up_blocks.{stage}.upsamplers.0.{part}"),
        (stage, block) => format!("up_blocks.{stage}.resnets.{block}.{part}"),
    })
}

/// The number and the rest of `list.number.rest`.
fn numbered<'a>(layer: &'a str, list: &str) -> Option<(usize, &'a str)> {
    let (number, part) = layer.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
    Some((number.parse().ok()?, part))
}

/// What encoder and decoder have around their stages.
fn ends(layer: &str) -> Option<String> {
    match layer {
        "conv1" => return Some("conv_in".to_owned()),
        "head.0" => return Some("norm_out".to_owned()),
        "head.2" => return Some("conv_out".to_owned()),
        _ => {}
    }
    match numbered(layer, "middle")? {
        (1, part @ ("norm" | "to_qkv" | "proj")) => Some(format!("mid_block.attentions.0.{part}")),
        (number @ (0 | 2), part) => {
            Some(format!("mid_block.resnets.{}.{}", number / 2, part_of_block(part)?))
        }
        _ => None,
    }
}

/// A layer of a residual block or of resampling.
fn part_of_block(part: &str) -> Option<&'static str> {
    Some(match part {
        "residual.0" => "norm1",
        "residual.2" => "conv1",
        "residual.3" => "norm2",
        "residual.6" => "conv2",
        "shortcut" => "conv_shortcut",
        "resample.1" => "resample.1",
        "time_conv" => "time_conv",
        _ => return None,
    })
}
