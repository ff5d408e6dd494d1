//! Metadata as the web UI of AUTOMATIC1111 writes them, with the names that Fooocus gives to what only it has.

use super::{Generated, Recipe, Unusual, software, tuple};
use crate::error::Result;
use crate::schedule::{SamplerKind, Scheduler};

pub(super) fn text(made: &Generated, recipe: &Recipe) -> Result<String> {
    let Recipe { full: [prompt, negative], unstyled, setting } = recipe;
    let options = &setting.options;
    let guidance = options.size_guidance;
    let refiner = setting.refiner.as_ref();
    let Unusual { adaptive_guidance, clip_skip, freeu, refiner_swap } = Unusual::of(setting);
    let (mut hashes, mut weights) = (Vec::new(), Vec::new());
    for (lora, scale) in &setting.loras {
        hashes.extend(lora.hash()?.map(|hash| format!("{}: {hash}", lora.name)));
        weights.push(format!("{}: {scale:?}", lora.name));
    }
    let joined = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join(", "));
    let written = |value: f32| format!("{value:?}");
    let values = [
        ("Steps", Some(options.steps.to_string())),
        ("Sampler", Some(sampler(options.sampler, options.scheduler))),
        ("Seed", Some(made.seed.to_string())),
        ("Size", Some(format!("{}x{}", made.image.width(), made.image.height()))),
        ("CFG scale", Some(written(options.guidance_scale))),
        ("Sharpness", Some(written(options.sharpness))),
        ("ADM Guidance", Some(tuple(&[guidance.positive, guidance.negative, guidance.end]))),
        ("Model", Some(setting.model.name.clone())),
        ("Model hash", setting.model.hash()?),
        ("Performance", options.performance.map(|performance| performance.name().to_owned())),
        ("Scheduler", Some(options.scheduler.to_string())),
        ("VAE", Some(setting.vae().to_owned())),
        ("Raw prompt", Some(unstyled.prompt.clone())),
        ("Raw negative prompt", Some(unstyled.negative_prompt.clone())),
        ("Refiner", refiner.map(|refiner| refiner.name.clone())),
        ("Refiner hash", refiner.map(|refiner| refiner.hash()).transpose()?.flatten()),
        ("Adaptive CFG", adaptive_guidance.map(written)),
        ("Clip skip", clip_skip.map(|layer| layer.to_string())),
        ("Refiner Swap Method", refiner_swap),
        ("FreeU", freeu),
        ("Lora hashes", joined(hashes)),
        ("Lora weights", joined(weights)),
        ("Version", Some(software())),
    ];
    let values = values
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}: {}", quoted(&value))));
    let (prompt, negative) = (prompt.join(", "), negative.join(", "));
    let against = match negative.is_empty() {
        true => String::new(),
        false => format!("\nNegative prompt: {negative}"),
    };
    let text = format!("{prompt}{against}\n{}", values.collect::<Vec<_>>().join(", "));
    // A zero would end the text in every kind of file.
    Ok(text.replace('\0', " ").trim().to_owned())
}

/// The name of a sampler there; one that it does not have keeps the name that it has here, as in Fooocus.
fn sampler(kind: SamplerKind, scheduler: Scheduler) -> String {
    use SamplerKind::{
        Ddim, Dpm2, Dpm2Ancestral, DpmAdaptive, DpmFast, DpmPp2m, DpmPp2mSde, DpmPp2mSdeGpu,
        DpmPp2sAncestral, DpmPpSde, DpmPpSdeGpu, Euler, EulerAncestral, Heun, Lcm, Lms, Tcd, UniPc,
    };
    // Whether its variant for the schedule of Karras has a name of its own.
    let (name, has_karras) = match kind {
        Euler => ("Euler", false),
        EulerAncestral => ("Euler a", false),
        Heun => ("Heun", false),
        Dpm2 => ("DPM2", true),
        Dpm2Ancestral => ("DPM2 a", true),
        Lms => ("LMS", true),
        DpmFast => ("DPM fast", false),
        DpmAdaptive => ("DPM adaptive", false),
        DpmPp2sAncestral => ("DPM++ 2S a", true),
        DpmPpSde | DpmPpSdeGpu => ("DPM++ SDE", true),
        DpmPp2m => ("DPM++ 2M", true),
        DpmPp2mSde | DpmPp2mSdeGpu => ("DPM++ 2M SDE", true),
        Lcm => ("LCM", true),
        Tcd => ("TCD", true),
        Ddim => ("DDIM", false),
        UniPc => ("UniPC", false),
        _ => return kind.to_string(),
    };
    match has_karras && scheduler == Scheduler::Karras {
        true => format!("{name} Karras"),
        false => name.to_owned(),
    }
}

/// A value, in quotes if it has what separates values.
fn quoted(value: &str) -> String {
    match value.contains([',', ':', '\n']) {
        true => serde_json::Value::from(value).to_string(),
        false => value.to_owned(),
    }
}
