//! `cargo xtask documents`: links in the documents lead somewhere, and no file names one person's folders.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Folders that exist on one machine only. Assembled here so that this file does not name them itself.
const PRIVATE_FOLDERS: [[&str; 2]; 2] = [["/home", "/"], ["/work", "/"]];

/// Checks all files that git knows.
pub fn check() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let files = tracked(root)?;
    let known: HashSet<PathBuf> =
        files.iter().flat_map(|file| file.ancestors().map(Path::to_owned)).collect();
    let mut faults = Vec::new();
    let mut links = 0;
    for file in &files {
        // A file that is not text holds neither links nor words.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        faults.extend(
            private_folders(&text).map(|(line, folder)| format!("{}:{line}: names {folder}", file.display())),
        );
        if file.extension().is_some_and(|extension| extension == "md") {
            let targets = links_of(&text);
            links += targets.len();
            let broken = targets.into_iter().filter(|(_, target)| !leads_somewhere(file, target, &known));
            faults.extend(
                broken.map(|(line, target)| format!("{}:{line}: no such file: {target}", file.display())),
            );
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} files, {links} links between them", files.len());
    Ok(())
}

/// The files that git knows or would take, relative to the root.
fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let files = names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()));
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

/// The lines that name a folder of one machine and one below it, from 1.
fn private_folders(text: &str) -> impl Iterator<Item = (usize, String)> {
    let names = |line: &str, folder: &str| {
        line.match_indices(folder).any(|(at, _)| {
            // `x/work/` is a folder below another one.
            let before = line[..at].chars().next_back();
            let below = line[at + folder.len()..].starts_with(char::is_alphanumeric);
            below && before.is_none_or(|before| !before.is_alphanumeric() && !"._-/}".contains(before))
        })
    };
    text.lines().enumerate().filter_map(move |(index, line)| {
        let folder = PRIVATE_FOLDERS.iter().map(|parts| parts.concat()).find(|folder| names(line, folder))?;
        Some((index + 1, folder))
    })
}

/// The targets of links with the lines they are on, from 1; those into the world are left out, and so is code.
fn links_of(text: &str) -> Vec<(usize, String)> {
    let mut in_code = false;
    let mut links = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let targets =
                line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
            let local = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
            links.extend(local.map(|target| (index + 1, target.to_owned())));
        }
    }
    links
}

/// Whether a link from `file` leads to a file or folder of the repository, or to a place in itself.
fn leads_somewhere(file: &Path, target: &str, known: &HashSet<PathBuf>) -> bool {
    let path = target.split('#').next().unwrap_or_default();
    let folder = file.parent().unwrap_or(Path::new(""));
    path.is_empty() || plain(&folder.join(path)).is_some_and(|path| known.contains(&path))
}

/// The path without `.` and `..`; `None` if it leaves the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir if plain.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "see [a](docs/a.md) and [b](../b.md#part)\n```\n[no](no.md)\n```\n[w](https://example.org) [c](#here)\n";
        let expected = [(1, "docs/a.md".into()), (1, "../b.md#part".into()), (5, "#here".into())];
        assert_eq!(links_of(text), expected);
    }

    #[test]
    fn a_link_must_lead_to_a_file_of_the_repository() {
        let known: HashSet<PathBuf> = ["docs", "docs/a.md", "README.md"].map(PathBuf::from).into();
        for (target, expected) in [
            ("a.md", true),
            ("./a.md#part", true),
            ("../README.md", true),
            ("#here", true),
            ("../docs/", true),
            ("b.md", false),
            ("../../README.md", false),
            ("/README.md", false),
        ] {
            assert_eq!(leads_somewhere(Path::new("docs/a.md"), target, &known), expected, "{target}");
        }
    }

    #[test]
    fn a_folder_of_one_machine_is_found() {
        let folder = ["/ho", "me/"].concat();
        let text = format!("fine\nin {folder}someone\nx{folder}y\n$(pwd){folder}y\n{folder}.cache\n");
        assert_eq!(private_folders(&text).map(|(line, _)| line).collect::<Vec<_>>(), [2, 4]);
    }
}
