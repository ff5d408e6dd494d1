//! What people write as a prompt, made into requests: styles, wildcards, arrays, LoRA files and seeds, as Fooocus
//! does it. No model is needed for it, and a seed always makes the same of a prompt.

mod arrays;
mod inline_loras;
mod random;
mod styles;
#[cfg(test)]
mod tests;
mod wildcards;

use std::path::{Path, PathBuf};
use std::slice;

use self::random::PythonRandom;
use self::styles::{EXPANSION, RANDOM, Styles};
use self::wildcards::Wildcards;
use super::options::{GenerateRequest, Unstyled};
use super::prompt::lines::said;
use crate::error::{Error, Result};
use crate::options::Lora;
use crate::schedule::TorchGenerator;

/// Seeds are below this in Fooocus.
const SEEDS: u64 = 1 << 63;
/// Most pictures of one prompt.
const MAX_PICTURES: usize = 1024;

/// What is made of one prompt, beside the prompt itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PrepareOptions {
    /// Pictures. Each is a request of its own, as its wildcards and arrays may differ.
    pub n: usize,
    /// Styles by their names, in order; `Random Style` stands for any of them.
    pub styles: Vec<String>,
    /// The seed of the first picture, below 2^63; drawn unless set.
    pub seed: Option<u64>,
    /// Whether all pictures have that seed, and not the next ones.
    pub same_seed: bool,
    /// Whether wildcards take the lines of their files in order, a line for a picture, and not by chance.
    pub wildcards_in_order: bool,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self { n: 1, styles: Vec::new(), seed: None, same_seed: false, wildcards_in_order: false }
    }
}

impl PrepareOptions {
    /// The same options with another number of pictures.
    #[must_use]
    pub fn n(mut self, n: usize) -> Self {
        self.n = n;
        self
    }

    /// The same options with these styles.
    #[must_use]
    pub fn styles(mut self, styles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.styles = styles.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with a seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The same options with one seed for all pictures, or not.
    #[must_use]
    pub fn same_seed(mut self, same: bool) -> Self {
        self.same_seed = same;
        self
    }

    /// The same options with wildcards in order, or by chance.
    #[must_use]
    pub fn wildcards_in_order(mut self, in_order: bool) -> Self {
        self.wildcards_in_order = in_order;
        self
    }
}

/// Requests made of a prompt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Prepared {
    /// One for each picture, with its seed.
    pub requests: Vec<GenerateRequest>,
    /// The LoRA files that the prompt names, which the model must have: see
    /// [`GeneratePipeline::set_loras`](super::GeneratePipeline::set_loras).
    pub loras: Vec<Lora>,
}

/// Prepares prompts, with what lies in the user's folders.
///
/// - Each line of a prompt is a text of its own; the first one is what styles are around.
/// - `<lora:name:0.8>` in the first line is a LoRA file by its name.
/// - `__name__` is a line of `name.txt`.
/// - `[[red, green, blue]]` is another one for each picture.
#[derive(Clone, Debug, Default)]
pub struct Prompter {
    styles: Styles,
    wildcards: Option<PathBuf>,
    loras: Vec<PathBuf>,
}

impl Prompter {
    /// With a few styles of our own and no folders.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the styles of a folder, as `sdxl_styles` of Fooocus is one, in place of our own.
    ///
    /// # Errors
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) if there is no such folder,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the file, for one that has no styles.
    pub fn styles(mut self, folder: impl AsRef<Path>) -> Result<Self> {
        self.styles = Styles::read(folder.as_ref())?;
        Ok(self)
    }

    /// With the folder of wildcards.
    #[must_use]
    pub fn wildcards(mut self, folder: impl Into<PathBuf>) -> Self {
        self.wildcards = Some(folder.into());
        self
    }

    /// With one more folder of LoRA files that prompts may name.
    #[must_use]
    pub fn loras(mut self, folder: impl Into<PathBuf>) -> Self {
        self.loras.push(folder.into());
        self
    }

    /// The names of all styles, and `Random Style`.
    pub fn style_names(&self) -> Vec<&str> {
        std::iter::once(RANDOM).chain(self.styles.all().iter().map(|style| &*style.name)).collect()
    }

    /// The requests for a prompt and what is not to be seen.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for options that mean nothing and unknown styles,
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) for LoRA files that are not there,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for `Fooocus V2`, which is another network, and
    /// [`Io`](crate::ErrorKind::Io) for wildcards that cannot be read.
    pub fn prepare(
        &self,
        prompt: &str,
        negative_prompt: &str,
        options: &PrepareOptions,
    ) -> Result<Prepared> {
        self.check(options)?;
        let mut with = said(prompt).into_iter();
        let mut against = said(negative_prompt).into_iter();
        let (main, loras) = inline_loras::taken_out(&with.next().unwrap_or_default());
        let loras = inline_loras::files(&loras, &self.loras)?;
        let texts = Texts {
            main,
            with: with.collect(),
            negative: against.next().unwrap_or_default(),
            against: against.collect(),
        };
        let seed = options.seed.unwrap_or_else(TorchGenerator::drawn_seed);
        let requests = (0..options.n).map(|i| {
            let next = if options.same_seed { 0 } else { i as u64 };
            self.request(&texts, options, i, (seed + next) % SEEDS)
        });
        Ok(Prepared { requests: requests.collect::<Result<_>>()?, loras })
    }

    fn check(&self, options: &PrepareOptions) -> Result<()> {
        if !(1..=MAX_PICTURES).contains(&options.n) {
            let message = format!("n is {}, expected 1 to {MAX_PICTURES}", options.n);
            return Err(Error::invalid_input(message).with("field", "n"));
        }
        if let Some(seed) = options.seed.filter(|seed| *seed >= SEEDS) {
            let message = format!("the seed {seed} is not below 2^63");
            return Err(Error::invalid_input(message).with("field", "seed"));
        }
        for style in &options.styles {
            match &**style {
                RANDOM => {}
                EXPANSION => {
                    let message = format!(
                        "the style `{EXPANSION}` is a network that writes more prompt \
                         (prompt_expansion/fooocus_expansion/pytorch_model.bin); it is not there yet"
                    );
                    return Err(Error::unsupported(message).with("field", "styles"));
                }
                name => {
                    self.styles.get(name)?;
                }
            }
        }
        Ok(())
    }

    /// The request for picture `i`. What is drawn is drawn in the order of Fooocus.
    fn request(
        &self,
        texts: &Texts,
        options: &PrepareOptions,
        i: usize,
        seed: u64,
    ) -> Result<GenerateRequest> {
        let random = &mut PythonRandom::new(seed);
        let mut styles = Vec::new();
        let wildcards = Wildcards {
            folder: self.wildcards.as_deref(),
            in_order: options.wildcards_in_order.then_some(i),
        };
        let main = arrays::picked(&wildcards.replaced(&texts.main, random)?, i);
        let negative = wildcards.replaced(&texts.negative, random)?;
        let mut replaced = |texts: &[String]| -> Result<Vec<String>> {
            texts.iter().map(|text| wildcards.replaced(text, random)).collect()
        };
        let (more_with, more_against) = (replaced(&texts.with)?, replaced(&texts.against)?);
        let (mut with, mut against, mut has_prompt) = (Vec::new(), Vec::new(), false);
        for name in &options.styles {
            let style = match &**name {
                RANDOM => random.choice(self.styles.all()),
                name => Some(self.styles.get(name)?),
            };
            let Some(style) = style else { continue };
            styles.push(style.name.clone());
            let (texts, texts_against, has_place) = style.around(&main);
            with.extend(texts);
            against.extend(texts_against);
            has_prompt |= has_place;
        }
        let unstyled = Unstyled {
            prompt: joined([slice::from_ref(&main), &*more_with].concat()),
            negative_prompt: joined([slice::from_ref(&negative), &*more_against].concat()),
            styles,
        };
        if !has_prompt {
            with.insert(0, main);
        }
        with.extend(more_with);
        against.push(negative);
        against.extend(more_against);
        let mut request = GenerateRequest::new(joined(with)).negative_prompt(joined(against));
        (request.seed, request.as_is) = (Some(seed), true);
        request.unstyled = Some(unstyled);
        Ok(request)
    }
}

/// A line of each text that says something.
fn joined(texts: Vec<String>) -> String {
    let said: Vec<_> = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
    said.join("\n")
}

/// The lines of a prompt and of what is against it, each with its first one apart.
struct Texts {
    main: String,
    with: Vec<String>,
    negative: String,
    against: Vec<String>,
}
