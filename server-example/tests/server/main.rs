//! The server in process: every endpoint, with fast models and with the library's own.

mod common;
mod edits;
mod http;
mod jobs;
mod tagger;
