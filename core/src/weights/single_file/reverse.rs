//! The way back: what latent diffusion calls the layers of a network in the names of diffusers. Files
//! that belong to a checkpoint, such as LoRAs, may speak of its layers so.

use std::collections::BTreeSet;

use super::ldm::numbered;

/// Names of the layers of a denoising network.
#[derive(Debug)]
pub(crate) struct UNetNames {
    /// Layers of a stage with the one that changes the size.
    each: usize,
    /// Stages of the way up that attend to the text.
    attending: BTreeSet<usize>,
}

impl UNetNames {
    /// What can be told from all names of the network's tensors.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut each, mut attending) = (0, BTreeSet::new());
        for name in names {
            if let Some((0, part)) = numbered(name, "down_blocks")
                && let Some((number, _)) = numbered(part, "resnets")
            {
                each = each.max(number + 2);
            }
            if let Some((stage, part)) = numbered(name, "up_blocks")
                && part.starts_with("attentions.")
            {
                attending.insert(stage);
            }
        }
        Self { each, attending }
    }

    /// The name of a layer, without the tensor, if latent diffusion has another one for it.
    pub(crate) fn of_ldm(&self, layer: &str) -> Option<String> {
        self.down(layer)
            .or_else(|| self.up(layer))
            .or_else(|| middle(layer))
            .or_else(|| ends(layer))
    }

    fn down(&self, layer: &str) -> Option<String> {
        let (stage, part) = numbered(layer, "down_blocks")?;
        let first = stage * self.each + 1;
        if part == "downsamplers.0.conv" {
            return Some(format!("input_blocks.{}.0.op", stage * self.each + self.each));
        }
        let (i, part) = layer_of_block(part)?;
        Some(format!("input_blocks.{}.{part}", first + i))
    }

    fn up(&self, layer: &str) -> Option<String> {
        let (stage, part) = numbered(layer, "up_blocks")?;
        let first = stage * self.each;
        if part == "upsamplers.0.conv" {
            let place = if self.attending.contains(&stage) { 2 } else { 1 };
            let last = (first + self.each).checked_sub(1)?;
            return Some(format!("output_blocks.{last}.{place}.conv"));
        }
        let (i, part) = layer_of_block(part)?;
        Some(format!("output_blocks.{}.{part}", first + i))
    }
}

/// The number of a block in its stage, and what latent diffusion calls the layer in it.
fn layer_of_block(part: &str) -> Option<(usize, String)> {
    if let Some((i, part)) = numbered(part, "resnets") {
        return Some((i, format!("0.{}", layer_of_resnet(part)?)));
    }
    let (i, part) = numbered(part, "attentions")?;
    Some((i, format!("1.{part}")))
}

fn middle(layer: &str) -> Option<String> {
    let (i, part) = layer_of_block(layer.strip_prefix("mid_block.")?)?;
    Some(match part.strip_prefix("0.") {
        Some(part) => format!("middle_block.{}.{part}", 2 * i),
        None => format!("middle_block.{part}"),
    })
}

fn ends(layer: &str) -> Option<String> {
    let name = match layer {
        "conv_in" => "input_blocks.0.0",
        "time_embedding.linear_1" => "time_embed.0",
        "time_embedding.linear_2" => "time_embed.2",
        "add_embedding.linear_1" => "label_emb.0.0",
        "add_embedding.linear_2" => "label_emb.0.2",
        "conv_norm_out" => "out.0",
        "conv_out" => "out.2",
        _ => return None,
    };
    Some(name.to_owned())
}

fn layer_of_resnet(part: &str) -> Option<&'static str> {
    Some(match part {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Component, SingleFile};
    use super::*;

    #[test]
    fn every_layer_of_a_checkpoint_has_its_name() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        let file =
            SingleFile::open(&goldens.join("generate-single-file/sdxl.safetensors")).unwrap();
        let now = file.component(Component::UNet).unwrap().names();
        let names = UNetNames::of(now.iter().map(String::as_str));
        let mut count = 0;
        for name in &now {
            let (layer, tensor) = name.rsplit_once('.').unwrap();
            let old = names.of_ldm(layer).unwrap_or_else(|| panic!("{layer}"));
            let old = format!("model.diffusion_model.{old}.{tensor}");
            assert!(file.has_tensor(&old), "{name} as {old}");
            count += 1;
        }
        assert!(count > 100, "{count}");
        for name in ["", "down_blocks", "up_blocks.0.x.1.y", "mid_block.resnets.0.x", "a.b"] {
            assert_eq!(names.of_ldm(name), None, "{name}");
        }
    }
}
