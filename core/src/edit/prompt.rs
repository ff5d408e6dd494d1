//! From an instruction to the tokens of the text encoder.
//!
//! The instruction stands in a chat that the models were trained with, behind the pictures it is
//! about. Each picture is a placeholder in the text; of its token there are as many copies as the
//! vision part gives vectors. The chat up to the user's turn is the same for every edit, and its
//! hidden states are dropped behind the encoder.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use tokenizers::Tokenizer;

use crate::error::{Error, ErrorKind, Result};
use crate::tokens::{bpe, qwen};
use crate::weights::ModelDir;

/// The chat up to the user's turn. The models know it by heart, so it is kept to the letter.
pub(super) const PREFIX: &str = "<|im_start|>system\nDescribe the key features of the input image (color, \
    shape, size, texture, objects, background), then explain how the user's text instruction should \
    alter or modify the image. Generate a new image that meets the user's requirements while \
    maintaining consistency with the original input where appropriate.<|im_end|>\n<|im_start|>user\n";
/// The chat behind the user's turn.
const SUFFIX: &str = "<|im_end|>\n<|im_start|>assistant\n";
/// What stands for a picture.
const PICTURE: &str = "<|vision_start|><|image_pad|><|vision_end|>";
/// The token of which there is one for every vector of a picture.
const IMAGE_PAD: &str = "<|image_pad|>";
/// The tokens that the chat is made of.
const NEEDED: [&str; 5] =
    ["<|im_start|>", "<|im_end|>", "<|vision_start|>", IMAGE_PAD, "<|vision_end|>"];

/// The id of [`IMAGE_PAD`] in the vocabulary of the published models, and the tokens of [`PREFIX`]
/// there. The reference has the second number built in.
const PUBLISHED: (u32, usize) = (151_655, 64);

/// Where the files of the tokenizer are; the second has always been there.
const FOLDERS: [&str; 2] = ["processor", "tokenizer"];

/// How pictures and instruction are put into the user's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// Qwen-Image-Edit: one picture, then the instruction.
    Edit,
    /// From Qwen-Image-Edit-2509 on: numbered pictures, then the instruction.
    EditPlus,
}

impl Template {
    fn text(self, prompt: &str, pictures: usize) -> Result<String> {
        let wrong = |what: &str| {
            Err(Error::invalid_input(format!(
                "{pictures} pictures for an edit; the model takes {what}"
            ))
            .with("field", "images"))
        };
        let pictures: String = match self {
            Template::Edit if pictures != 1 => return wrong("exactly one"),
            Template::EditPlus if pictures == 0 => return wrong("at least one"),
            Template::Edit => PICTURE.to_owned(),
            Template::EditPlus => {
                (1..=pictures).map(|number| format!("Picture {number}: {PICTURE}")).collect()
            }
        };
        Ok(format!("{PREFIX}{pictures}{prompt}{SUFFIX}"))
    }
}

/// The tokens of one edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromptTokens {
    /// Every token, also those in front that are dropped behind the encoder.
    pub(crate) ids: Vec<u32>,
    /// Where the vectors of each picture go.
    pub(crate) pictures: Vec<Range<usize>>,
    /// How many hidden states in front are dropped.
    pub(crate) dropped: usize,
}

/// A tokenizer that knows the chat.
pub(crate) struct PromptEncoder {
    tokenizer: Tokenizer,
    /// The special tokens, which a prompt must not contain.
    special: BTreeMap<u32, String>,
    image_pad: u32,
    dropped: usize,
}

impl PromptEncoder {
    /// Out of a model folder: from a `tokenizer.json`, or from the files that came before it.
    pub(crate) fn read(dir: &ModelDir) -> Result<Self> {
        for folder in FOLDERS {
            let file = format!("{folder}/tokenizer.json");
            if dir.has(&file) {
                let read = Self::from_json(dir.text(&file)?.as_bytes());
                return read.map_err(|error| error.with("file", dir.origin(&file)));
            }
        }
        for folder in FOLDERS.into_iter().rev() {
            if bpe::FILES.iter().all(|file| dir.has(&format!("{folder}/{file}"))) {
                let read = qwen::read(dir, folder)?;
                let file = dir.origin(&format!("{folder}/{}", bpe::FILES[0]));
                return Self::new(read).map_err(|error| error.with("file", file));
            }
        }
        let [newer, older] = FOLDERS;
        let files = bpe::FILES.join("` and `");
        Err(Error::new(
            ErrorKind::ModelNotFound,
            format!("the folder has no `{newer}/tokenizer.json`, and no `{files}` in `{older}`"),
        ))
    }

    /// From the content of a `tokenizer.json`. The caller adds the file to errors.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self> {
        let unreadable =
            |message: String| Error::model_invalid(format!("cannot read the tokenizer: {message}"));
        bpe::check_json(bytes)?;
        let tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|e| unreadable(e.to_string()).caused_by(e))?;
        Self::new(tokenizer)
    }

    fn new(mut tokenizer: Tokenizer) -> Result<Self> {
        // Prompts are never cut or filled up: they are encoded one by one.
        tokenizer.with_padding(None);
        let _ = tokenizer.with_truncation(None);
        let special: BTreeMap<u32, String> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        let id =
            |name: &str| special.iter().find(|(_, content)| *content == name).map(|(id, _)| *id);
        if let Some(missing) = NEEDED.iter().find(|name| id(name).is_none()) {
            return Err(Error::model_invalid(format!(
                "the tokenizer has no special token `{missing}`"
            )));
        }
        let image_pad = id(IMAGE_PAD).unwrap_or_default();
        let mut encoder = Self { tokenizer, special, image_pad, dropped: 0 };
        encoder.dropped = encoder.prefix_length()?;
        Ok(encoder)
    }

    /// The tokens of `prompt` about pictures of so many vectors each. `field` is what the caller
    /// knows the prompt as.
    pub(crate) fn encode(
        &self,
        template: Template,
        (field, prompt): (&'static str, &str),
        vectors: &[usize],
    ) -> Result<PromptTokens> {
        self.check(prompt).map_err(|error| error.with("field", field))?;
        let text = template.text(prompt, vectors.len())?;
        let mut ids = Vec::new();
        let mut pictures = Vec::with_capacity(vectors.len());
        let mut open = vectors.iter();
        for id in self.ids(&text)? {
            if id != self.image_pad {
                ids.push(id);
                continue;
            }
            let Some(vectors) = open.next() else { return Err(misplaced()) };
            let start = ids.len();
            ids.resize(start + vectors, id);
            pictures.push(start..ids.len());
        }
        if open.next().is_some() {
            return Err(misplaced());
        }
        Ok(PromptTokens { ids, pictures, dropped: self.dropped })
    }

    /// The tokens of a whole chat, as the reference's tokenizer makes them.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenize(text, true)
    }

    fn tokenize(&self, text: &str, with_fixed_ends: bool) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, with_fixed_ends)
            .map_err(|e| Error::model_invalid(format!("the tokenizer fails: {e}")).caused_by(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Fails if the tokenizer finds special tokens in `prompt`: they would end the user's turn, or
    /// stand for pictures that are not there.
    fn check(&self, prompt: &str) -> Result<()> {
        let Some(token) = self.tokenize(prompt, false)?.iter().find_map(|id| self.special.get(id))
        else {
            return Ok(());
        };
        Err(Error::invalid_input(format!("the text contains the special token `{token}`")))
    }

    /// How many tokens are in front of the user's turn, whatever follows.
    fn prefix_length(&self) -> Result<usize> {
        let prefix = self.ids(PREFIX)?;
        for template in [Template::Edit, Template::EditPlus] {
            if !self.ids(&template.text("", 1)?)?.starts_with(&prefix) {
                return Err(Error::model_invalid(
                    "the tokenizer joins the model's fixed text with what follows it",
                ));
            }
        }
        check_published(self.image_pad, prefix.len())?;
        Ok(prefix.len())
    }
}

/// Fails if the vocabulary is the published one but cuts the fixed text into other tokens: what the
/// encoder sees would not be what the models were trained with.
pub(super) fn check_published(image_pad: u32, length: usize) -> Result<()> {
    if image_pad != PUBLISHED.0 || length == PUBLISHED.1 {
        return Ok(());
    }
    Err(Error::model_invalid(format!(
        "the tokenizer makes {length} tokens of the model's fixed text, which are {}",
        PUBLISHED.1
    )))
}

fn misplaced() -> Error {
    Error::model_invalid("the tokenizer makes no single token of a picture's placeholder")
}
