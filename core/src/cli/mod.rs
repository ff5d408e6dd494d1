//! The command line tool. It parses, calls the library, and prints; it decides nothing of its own.
//!
//! It is a part of the library so that the packages in other languages ship the same tool, and like
//! them it uses only what the crate's root offers to everybody.

mod doctor;
mod edit;
mod generate;
mod models;
mod outputs;
mod progress;
mod pull;
mod tag;

use std::ffi::OsString;

use crate::Error;
use clap::{CommandFactory, Parser, Subcommand};

/// Everything went well.
const SUCCESS: u8 = 0;
/// Nothing could be done.
const FAILURE: u8 = 1;
/// Some pictures failed, all others were done.
const SOME_FAILED: u8 = 2;
/// Stopped by Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Tags images, edits them by instruction, and generates them.
#[derive(Parser)]
#[command(name = "tagbrush", version, max_term_width = 100, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Tag(Box<tag::TagCommand>),
    Edit(Box<edit::EditCommand>),
    Generate(Box<generate::GenerateCommand>),
    Pull(pull::PullCommand),
    /// List the models that go by a name
    Models,
    /// Say what this build and machine can do
    Doctor,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  tagbrush completions bash > ~/.local/share/bash-completion/completions/tagbrush"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line tool with these arguments, the first of which is the program's name, and
/// gives its exit status. It prints to the process's own outputs and takes over Ctrl-C.
///
/// For packages in other languages that ship the tool; the program `tagbrush` is this function.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and versions are answers too, with status 0. A closed output cannot be told.
            let _ = answer.print();
            return u8::try_from(answer.exit_code()).unwrap_or(FAILURE);
        }
    };
    let code = match cli.command {
        Command::Tag(command) => command.run(),
        Command::Edit(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::Models => models::run(),
        Command::Doctor => doctor::run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tagbrush", &mut std::io::stdout());
            Ok(SUCCESS)
        }
    };
    code.unwrap_or_else(|error| {
        report(&error);
        FAILURE
    })
}

/// Prints an error with its causes.
fn report(error: &Error) {
    eprintln!("error[{}]: {error}", error.code());
    let mut shown = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Messages often end with their cause already.
        if !shown.contains(&text) {
            eprintln!("  caused by: {text}");
        }
        shown = text;
        cause = error.source();
    }
}

/// Cancels `control` at the first Ctrl-C, so that what is written is whole; the second one ends the
/// process at once.
fn cancel_on_interrupt(control: &crate::Control) {
    let control = control.clone();
    // Without a handler Ctrl-C ends the process, which loses nothing either.
    let _ = ctrlc::set_handler(move || {
        if control.is_cancelled() {
            std::process::exit(i32::from(INTERRUPTED));
        }
        control.cancel();
        eprintln!("stopping after this batch or step; press Ctrl-C again to stop at once");
    });
}
