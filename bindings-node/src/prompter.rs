//! The preparation of prompts under that of `lib/prompter.ts`, which has the signatures that people see.

use napi::Either;
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;

use crate::edit::LoraFile;
use crate::errors::{Answer, answer};
use crate::generate::UnstyledPrompt;
use crate::options::{Options, prepare_options};
use crate::values::exact;

/// Prepares prompts.
#[napi]
pub struct Prompter(tagbrush::Prompter);

/// One request.
#[napi(object)]
pub struct PreparedPrompt {
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative: String,
    /// Its seed.
    pub seed: Either<f64, BigInt>,
    /// Both prompts without their styles.
    pub unstyled: UnstyledPrompt,
}

/// Requests and the LoRA files that they need.
#[napi(object)]
pub struct PreparedPrompts {
    /// One for each picture.
    pub requests: Vec<PreparedPrompt>,
    /// Files and their scales.
    pub loras: Vec<LoraFile>,
}

#[napi]
impl Prompter {
    /// With these folders.
    #[napi]
    pub fn open(
        styles: Option<String>,
        wildcards: Option<String>,
        loras: Vec<String>,
    ) -> Answer<Prompter> {
        let mut prompter = Ok(tagbrush::Prompter::new());
        if let Some(folder) = styles {
            prompter = prompter.and_then(|prompter| prompter.styles(folder));
        }
        answer(prompter.map(|prompter| {
            let prompter = match wildcards {
                Some(folder) => prompter.wildcards(folder),
                None => prompter,
            };
            Prompter(loras.into_iter().fold(prompter, tagbrush::Prompter::loras))
        }))
    }

    /// The names of all styles.
    #[napi(getter)]
    pub fn style_names(&self) -> Vec<String> {
        self.0.style_names().into_iter().map(str::to_owned).collect()
    }

    /// The requests for a prompt.
    #[napi]
    pub fn prepare(
        &self,
        prompt: String,
        negative: String,
        options: Options<'_>,
    ) -> Answer<PreparedPrompts> {
        let prepared = prepare_options(&options)
            .and_then(|options| self.0.prepare(&prompt, &negative, &options));
        answer(prepared.map(|prepared| {
            let requests = prepared.requests.into_iter().map(|request| PreparedPrompt {
                prompt: request.prompt,
                negative: request.negative_prompt,
                seed: exact(request.seed.unwrap_or_default()),
                unstyled: request.unstyled.unwrap_or_default().into(),
            });
            let loras = prepared
                .loras
                .into_iter()
                .map(|lora| LoraFile { file: lora.file.display().to_string(), scale: lora.scale });
            PreparedPrompts { requests: requests.collect(), loras: loras.collect() }
        }))
    }
}
