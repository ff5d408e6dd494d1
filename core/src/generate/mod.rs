//! Pictures out of prompts.

pub(crate) mod prompt;
