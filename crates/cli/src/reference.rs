//! `napa completions` and `napa man`, from the parser's own definition.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::command::{CompletionsArgs, ManArgs, definition};
use crate::error::Error;
use crate::output;

/// Writes the completions of a shell to standard output.
pub fn completions(arguments: &CompletionsArgs) -> Result<ExitCode, Error> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "napa", &mut text);
    output::print(&text)
}

/// Writes the page of napa itself to standard output, or one page per verb to a folder.
pub fn man(arguments: &ManArgs) -> Result<ExitCode, Error> {
    let Some(folder) = &arguments.output else {
        return output::print(&render(definition()).map_err(cannot_render)?);
    };
    let cannot_write =
        |error| Error::bad_input(format!("--output {}: cannot write the pages: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(cannot_write)?;
    for (name, page) in pages().map_err(cannot_render)? {
        write_page(folder, &name, &page).map_err(cannot_write)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cannot_render(error: io::Error) -> Error {
    Error::failure(format!("cannot render the man page: {error}"))
}

fn write_page(folder: &Path, name: &str, page: &[u8]) -> io::Result<()> {
    std::fs::write(folder.join(format!("{name}.1")), page)
}

/// Every page with its name: `napa`, `napa-run`, and so on.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut napa = definition();
    // Fills in the full names and the usage of the verbs.
    napa.build();
    let verbs = napa.get_subcommands().filter(|verb| !verb.is_hide_set()).map(|verb| {
        let name = format!("napa-{}", verb.get_name());
        render(verb.clone()).map(|text| (name, text))
    });
    let mut pages = verbs.collect::<io::Result<Vec<_>>>()?;
    pages.push(("napa".into(), render(definition())?));
    Ok(pages)
}

fn render(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn every_verb_has_a_page_with_its_flags() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let (_, text) = pages.iter().find(|(page, _)| page == name).unwrap();
            String::from_utf8(text.clone()).unwrap()
        };
        assert!(page("napa").contains("napa\\-run"));
        assert!(page("napa-run").contains("\\-\\-memory"));
        assert_eq!(pages.len(), definition().get_subcommands().count() + 1);
    }

    #[test]
    fn the_user_guide_names_every_flag_of_run_and_every_verb() {
        let guide = include_str!("../../../docs/user-guide.md");
        let napa = definition();
        let run = napa.find_subcommand("run").unwrap();
        for flag in run.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| *flag != "help") {
            assert!(guide.contains(&format!("| `--{flag}")), "--{flag}");
        }
        for verb in napa.get_subcommands() {
            let name = verb.get_name();
            assert!(
                guide.contains(&format!("`{name}`")) || guide.contains(&format!("napa {name}")),
                "{name}"
            );
        }
    }

    #[test]
    fn every_exit_code_is_in_the_help_and_in_the_readme() {
        use napa_api::Exit;
        let readme = include_str!("../../../README.md");
        let napa = definition();
        let help = napa.find_subcommand("run").unwrap().get_after_help().unwrap().to_string();
        for exit in
            [Exit::PowerOff, Exit::Reboot, Exit::Panic, Exit::TripleFault, Exit::HardStop, Exit::Stuck]
        {
            let code = exit.code();
            assert!(help.contains(&format!("\n  {code:<6} ")), "{code}");
            assert!(readme.contains(&format!("\n| {code} | ")), "{code}");
        }
    }
}
