//! Ways of sampling by their speed, as Fooocus names them.
//!
//! The fast ones are for networks with a LoRA over them that was trained to need few steps; with it guidance is
//! learned too, so it is off.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::find;
use super::options::{GenerateOptions, SizeGuidance};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Lora;
use crate::schedule::{SamplerKind, Scheduler};

/// A performance of Fooocus: steps, and for the fast ones everything else that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Performance {
    /// 60 steps.
    Quality,
    /// 30 steps; the defaults of [`GenerateOptions`].
    Speed,
    /// 8 steps with a LoRA for consistency (LCM).
    ExtremeSpeed,
    /// 4 steps with the LoRA of SDXL-Lightning.
    Lightning,
    /// 4 steps with the LoRA of Hyper-SD.
    HyperSd,
}

/// How a network with a LoRA for few steps is sampled.
struct Few {
    lora: &'static str,
    scale: f64,
    sampler: SamplerKind,
    scheduler: Scheduler,
}

impl Performance {
    /// All of them, from the slowest on.
    pub const ALL: &[Self] =
        &[Self::Quality, Self::Speed, Self::ExtremeSpeed, Self::Lightning, Self::HyperSd];

    /// Its name in Fooocus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quality => "Quality",
            Self::Speed => "Speed",
            Self::ExtremeSpeed => "Extreme Speed",
            Self::Lightning => "Lightning",
            Self::HyperSd => "Hyper-SD",
        }
    }

    /// Steps of a picture.
    pub fn steps(self) -> usize {
        match self {
            Self::Quality => 60,
            Self::Speed => 30,
            Self::ExtremeSpeed => 8,
            Self::Lightning | Self::HyperSd => 4,
        }
    }

    /// Steps where a picture is made larger and most of it stays.
    pub fn upscale_steps(self) -> usize {
        match self {
            Self::Quality => 36,
            Self::Speed => 18,
            fast => fast.steps(),
        }
    }

    /// The LoRA file that the model must have, by its name, and how strongly; none for the slow ones.
    pub fn lora(self) -> Option<Lora> {
        self.few().map(|few| Lora::new(few.lora).scale(few.scale))
    }

    /// That file in one of these folders, in which it may be anywhere below.
    ///
    /// # Errors
    /// [`ModelNotFound`](ErrorKind::ModelNotFound), naming the file, if it is in none.
    pub fn lora_in(self, folders: &[PathBuf]) -> Result<Option<Lora>> {
        let Some(lora) = self.lora() else { return Ok(None) };
        match folders.iter().find_map(|folder| find::below(folder, &lora.file)) {
            Some(file) => Ok(Some(Lora { file, ..lora })),
            None => Err(self.missing(&lora, "is in none of the folders of LoRA files")),
        }
    }

    /// The same options, sampling so. What is set afterwards is as it is set.
    pub(super) fn apply(self, mut options: GenerateOptions) -> GenerateOptions {
        options.performance = Some(self);
        options.steps = self.steps();
        if let Some(Few { sampler, scheduler, .. }) = self.few() {
            options.sampler = sampler;
            options.scheduler = scheduler;
            options.guidance_scale = 1.0;
            options.adaptive_guidance = 1.0;
            options.sharpness = 0.0;
            options.size_guidance = SizeGuidance::NONE;
            // The LoRA is for the first network only.
            options.refiner_switch = 1.0;
        }
        options
    }

    /// Fails unless the LoRA that is needed is one of those that are in use.
    pub(super) fn check_loras<'a>(self, in_use: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let Some(lora) = self.lora() else { return Ok(()) };
        match in_use.into_iter().any(|file| file.file_name() == lora.file.file_name()) {
            true => Ok(()),
            false => Err(self.missing(&lora, "is not applied to the model")),
        }
    }

    fn missing(self, lora: &Lora, how: &str) -> Error {
        let file = lora.file.display();
        let message = format!("{self} needs the LoRA file `{file}`, which {how}");
        Error::new(ErrorKind::ModelNotFound, message).with("field", "performance")
    }

    fn few(self) -> Option<Few> {
        let few = |lora, scale, sampler, scheduler| Some(Few { lora, scale, sampler, scheduler });
        match self {
            Self::Quality | Self::Speed => None,
            Self::ExtremeSpeed => {
                few("sdxl_lcm_lora.safetensors", 1.0, SamplerKind::Lcm, Scheduler::Lcm)
            }
            Self::Lightning => few(
                "sdxl_lightning_4step_lora.safetensors",
                1.0,
                SamplerKind::Euler,
                Scheduler::SgmUniform,
            ),
            Self::HyperSd => few(
                "sdxl_hyper_sd_4step_lora.safetensors",
                0.8,
                SamplerKind::DpmPpSdeGpu,
                Scheduler::Karras,
            ),
        }
    }
}

impl FromStr for Performance {
    type Err = Error;

    /// The name in Fooocus; case, spaces, `-` and `_` do not matter.
    fn from_str(text: &str) -> Result<Self> {
        let plain = |text: &str| {
            let letters = text.chars().filter(|c| !matches!(c, ' ' | '-' | '_'));
            letters.collect::<String>().to_ascii_lowercase()
        };
        let wanted = plain(text);
        let found = Self::ALL.iter().find(|known| plain(known.name()) == wanted);
        found.copied().ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|known| known.name()).collect();
            let message = format!("unknown performance `{text}`; known: {}", known.join(", "));
            Error::invalid_input(message).with("field", "performance")
        })
    }
}

impl fmt::Display for Performance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_fooocus_and_read_leniently() {
        for performance in Performance::ALL {
            assert_eq!(performance.name().parse::<Performance>().unwrap(), *performance);
        }
        for (text, expected) in [
            ("extreme_speed", Performance::ExtremeSpeed),
            ("EXTREME SPEED", Performance::ExtremeSpeed),
            ("hyper-sd", Performance::HyperSd),
        ] {
            assert_eq!(text.parse::<Performance>().unwrap(), expected);
        }
        let error = "turbo".parse::<Performance>().unwrap_err().to_string();
        assert!(error.contains("turbo") && error.contains("Hyper-SD"), "{error}");
    }

    #[test]
    fn slow_ones_set_steps_and_fast_ones_everything() {
        let plain = GenerateOptions::default();
        let speed = plain.clone().performance(Performance::Speed);
        assert_eq!(GenerateOptions { performance: None, ..speed }, plain);
        let quality = GenerateOptions::default().sharpness(5.0).performance(Performance::Quality);
        assert_eq!((quality.steps, quality.sharpness), (60, 5.0));
        for (performance, steps, upscale, sampler, scheduler, scale) in [
            (Performance::ExtremeSpeed, 8, 8, SamplerKind::Lcm, Scheduler::Lcm, 1.0),
            (Performance::Lightning, 4, 4, SamplerKind::Euler, Scheduler::SgmUniform, 1.0),
            (Performance::HyperSd, 4, 4, SamplerKind::DpmPpSdeGpu, Scheduler::Karras, 0.8),
        ] {
            let options = plain.clone().performance(performance);
            assert_eq!((options.steps, performance.upscale_steps()), (steps, upscale));
            assert_eq!((options.sampler, options.scheduler), (sampler, scheduler));
            assert_eq!((options.guidance_scale, options.sharpness), (1.0, 0.0));
            assert_eq!(options.size_guidance, SizeGuidance::NONE);
            assert_eq!(performance.lora().unwrap().scale, scale);
            options.check().unwrap();
            assert_eq!(options.steps(6).steps, 6);
        }
    }

    #[test]
    fn files_that_are_needed_are_named() {
        let folder = std::env::temp_dir().join(format!("tagbrush-loras-{}", std::process::id()));
        let below = folder.join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let folders = [folder.join("none"), folder.clone()];
        assert_eq!(Performance::Speed.lora_in(&folders).unwrap(), None);
        let name = "sdxl_lightning_4step_lora.safetensors";
        let error = Performance::Lightning.lora_in(&folders).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ModelNotFound);
        assert!(error.to_string().contains(name), "{error}");
        std::fs::write(below.join(name), "").unwrap();
        let found = Performance::Lightning.lora_in(&folders).unwrap().unwrap();
        assert_eq!((found.file, found.scale), (below.join(name), 1.0));
        let check = |file: &str| Performance::Lightning.check_loras([Path::new(file)]);
        assert!(check(&format!("x/{name}")).is_ok());
        assert!(check("x/other.safetensors").unwrap_err().to_string().contains(name));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
