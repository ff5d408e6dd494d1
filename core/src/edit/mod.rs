//! Editing pictures by instruction: what goes into the networks of Qwen-Image-Edit and its
//! successors.

mod vision;
#[cfg(test)]
mod vision_tests;
