//! The `napa` binary: words in, one of the verbs done, an exit code out.
//!
//! `command` is the one definition of the command line: the parser, the completions and the man pages come
//! from it. Each verb is a module; a verb that can fail returns an [`Error`](error::Error), which is printed
//! here as one line.

// Texts of flags are help for people first: brackets in them mean "may be left out", not links.
#![allow(rustdoc::broken_intra_doc_links)]

mod balloon;
mod bench;
mod client;
mod command;
mod demo;
mod doctor;
mod error;
mod exit_file;
mod explain;
mod features;
mod figures;
mod following;
mod guest_image;
mod guests;
mod host;
mod inspect;
mod output;
mod plug;
mod reclaim;
mod reference;
mod run;
mod share;
mod simulate;
mod swap;
mod top;

use std::process::ExitCode;

use command::{OtherVerb, StartVerb, Verb};

fn main() -> ExitCode {
    let done = command::parse(std::env::args_os()).and_then(perform);
    done.unwrap_or_else(|error| error.report())
}

fn perform(verb: Verb) -> Result<ExitCode, error::Error> {
    match verb {
        Verb::Start(StartVerb::Run(arguments)) => run::run(*arguments),
        Verb::Other(verb) => perform_other(verb),
    }
}

fn perform_other(verb: OtherVerb) -> Result<ExitCode, error::Error> {
    match verb {
        OtherVerb::Host(arguments) => host::host(&arguments),
        OtherVerb::Create(arguments) => host::create(*arguments),
        OtherVerb::Start(arguments) => host::start(&arguments),
        OtherVerb::Rm(arguments) => host::remove(&arguments),
        OtherVerb::Ls(arguments) => host::list(&arguments),
        OtherVerb::Console(arguments) => host::console(&arguments),
        OtherVerb::Logs(arguments) => host::logs(&arguments),
        OtherVerb::Demo(arguments) => demo::demo(&arguments),
        OtherVerb::Bench(arguments) => bench::bench(&arguments),
        OtherVerb::Top(arguments) => top::top(&arguments),
        OtherVerb::Features(arguments) => features::features(&arguments),
        OtherVerb::Doctor(arguments) => doctor::doctor(&arguments),
        OtherVerb::Status(arguments) => client::status(&arguments),
        OtherVerb::Inspect(arguments) => inspect::inspect(&arguments),
        OtherVerb::Explain(arguments) => explain::explain(&arguments),
        OtherVerb::Pause(target) => client::pause(&target),
        OtherVerb::Resume(target) => client::resume(&target),
        OtherVerb::Stop(arguments) => client::stop(&arguments),
        OtherVerb::Kill(target) => client::kill(&target),
        OtherVerb::Balloon(arguments) => balloon::balloon(&arguments),
        OtherVerb::Plug(arguments) => plug::plug(&arguments),
        OtherVerb::Reclaim(arguments) => reclaim::reclaim(&arguments),
        OtherVerb::Share(arguments) => share::share(&arguments),
        OtherVerb::Swap { verb } => swap::swap(&verb),
        OtherVerb::Simulate(arguments) => simulate::simulate(&arguments),
        OtherVerb::GuestImage(arguments) => guest_image::write(&arguments),
        OtherVerb::Completions(arguments) => reference::completions(&arguments),
        OtherVerb::Man(arguments) => reference::man(&arguments),
    }
}
