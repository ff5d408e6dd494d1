//! The server, in process and as a program: every endpoint, with fast models and with the library's own.

mod common;
mod connections;
mod edits;
mod faults;
mod generate;
mod generate_demo;
mod generate_files;
mod http;
mod jobs;
mod parameters;
mod process;
mod tagger;
