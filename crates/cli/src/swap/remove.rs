//! Removing what was made.

use std::path::Path;
use std::process::ExitCode;

use napa_sys::host::{Root, Swap};
use napa_sys::swap::{self, SwapFile, Zswap};

use super::{RemoveArgs, need_root, to_error, whole};
use crate::error::Error;
use crate::figures;
use crate::output;

/// Removes one area or all; the first that cannot be removed ends it.
pub fn remove(arguments: &RemoveArgs) -> Result<ExitCode, Error> {
    need_root("remove")?;
    let root = &Root::system();
    let ours = swap::ours(root).map_err(to_error)?;
    let (chosen, kept) = match &arguments.file {
        Some(file) => {
            let file = whole(file);
            ours.into_iter().partition(|area| Path::new(&area.path) == file)
        }
        None => (ours, Vec::new()),
    };
    match (&arguments.file, chosen.is_empty()) {
        (Some(file), true) => return remove_unused(root, file),
        (None, true) => {
            put_back(root, &kept)?;
            return output::print(b"there is no swap that napa made\n");
        }
        (_, false) => {}
    }
    let mut text = String::new();
    for area in &chosen {
        let held = swap::remove(root, area).map_err(to_error)?;
        text.push_str(&format!("{} is removed; {} came back from it\n", area.path, figures::size(held)));
    }
    put_back(root, &kept)?;
    output::print(text.as_bytes())
}

/// zswap is what it was before once no file is left in front of which it could stand.
fn put_back(root: &Root, kept: &[Swap]) -> Result<(), Error> {
    match Zswap::find(root) {
        Some(zswap) if kept.is_empty() => zswap.put_back().map_err(to_error),
        _ => Ok(()),
    }
}

fn remove_unused(root: &Root, file: &Path) -> Result<ExitCode, Error> {
    let shown = whole(file);
    if Swap::read(root).iter().any(|area| Path::new(&area.path) == shown) {
        let shown = shown.display();
        return Err(Error::bad_input(format!("napa did not make {shown}: sudo swapoff {shown}")));
    }
    SwapFile::remove_unused(file).map_err(to_error)?;
    output::print(format!("{} is removed; it was not in use\n", file.display()).as_bytes())
}
