//! The server, in process and as a program: every endpoint, with fast models and with the library's own.

mod common;
mod connections;
mod edits;
mod faults;
mod http;
mod jobs;
mod process;
mod tagger;
