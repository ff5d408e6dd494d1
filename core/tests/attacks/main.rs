//! Hostile and broken input through the public interface. Tests carry the row of the threat list
//! they stand for: `i..` for pictures, `w..` for weights and model folders.
//!
//! Not here: `i16` (base64) is the server's; `i19` (one bad picture of many) and the batches of `i20`
//! in depth are in the tagger's own tests; `w10` (LoRA) and `w11` (GGUF) are in the readers' tests;
//! `w08` (shards) and checkpoints of PyTorch (`p..`) too; `w13` (a mapped file that is cut while it
//! loads) is documented as not supported.
#![allow(unreachable_pub)] // Helpers of one test binary: there is no outside.

mod build;
mod config;
mod folder;
mod formats;
mod labels;
mod memory;
mod pictures;
mod rejects;
mod weights;
