//! The compiled half of the Node package.
//!
//! This crate converts and calls; what models do is decided in the core. The other half, in `lib/`, has
//! the names, signatures and texts that people see. Nothing here throws for a failure of the core: it
//! comes back as a `Failure`, of which `lib/errors.ts` makes an error.
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
// The macro `napi` exports only what is `pub`.
#![allow(unreachable_pub)]
// In tests it exports nothing.
#![cfg_attr(test, allow(dead_code))]

mod edit;
mod errors;
mod folder;
mod generate;
mod image;
mod image_in;
mod lane;
mod models;
mod options;
mod origin;
mod outputs;
mod prompter;
mod running;
mod tagger;
mod tags;
mod values;
