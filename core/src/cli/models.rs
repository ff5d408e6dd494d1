//! `tagbrush models`: which models go by a name.

use crate::{KNOWN_MODELS, Result, cache_dir};

use super::SUCCESS;

pub(super) fn run() -> Result<u8> {
    println!("{:48} {:8} {:>9}  also known as", "id", "for", "P = R at");
    for task in ["tag", "edit", "generate"] {
        println!("{:48} {task:8} {:>9}  (embedded, for trying things out)", "demo", "");
    }
    for model in KNOWN_MODELS {
        let threshold = model.recommended_threshold.map_or(String::new(), |t| format!("{t:.4}"));
        let notes = model
            .unsupported
            .map_or_else(|| model.aliases.join(", "), |reason| format!("not supported: {reason}"));
        println!("{:48} {:8} {threshold:>9}  {notes}", model.id, model.task.name());
    }
    println!();
    println!("Any other folder or id tags as well, if it has config.json, model.safetensors and");
    println!(
        "selected_tags.csv of a ViT, SwinV2, ConvNeXt or EVA-02 of timm, or a model.onnx of them."
    );
    println!("Any folder of the pipelines of Qwen-Image-Edit edits, as diffusers saves it.");
    if let Ok(dir) = cache_dir() {
        println!("Downloaded models are kept in {}.", dir.display());
    }
    Ok(SUCCESS)
}
