//! Editing pictures by instruction: what goes into the networks of Qwen-Image-Edit and its
//! successors.

mod prompt;
#[cfg(test)]
mod prompt_tests;
mod vision;
#[cfg(test)]
mod vision_tests;
