//! From texts to the numbers that text encoders read: byte-pair tokenizers, one file for each family of
//! models. What a model puts around a text is not here.

pub(crate) mod bpe;
pub(crate) mod clip;
pub(crate) mod qwen;
