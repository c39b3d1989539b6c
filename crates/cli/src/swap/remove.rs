//! Removing what was made.

use std::path::Path;
use std::process::ExitCode;

use napa_sys::host::{Root, Swap, SwapKind};
use napa_sys::swap::{self, SwapFile, UnusedZram, Zswap};

use super::{RemoveArgs, need_root, to_error, whole};
use crate::error::Error;
use crate::figures;
use crate::output;

/// Removes one area or all; the first that cannot be removed ends it.
pub fn remove(arguments: &RemoveArgs) -> Result<ExitCode, Error> {
    need_root("remove")?;
    let root = &Root::system();
    let ours = swap::ours(root).map_err(to_error)?;
    let named = arguments.file.as_deref().map(whole);
    let is_chosen = |path: &Path| named.as_deref().is_none_or(|named| named == path);
    let (chosen, kept): (Vec<_>, Vec<_>) =
        ours.into_iter().partition(|area| is_chosen(Path::new(&area.path)));
    let unused = UnusedZram::find(root).into_iter().filter(|zram| is_chosen(&zram.path));
    let mut text = String::new();
    for zram in unused {
        zram.remove(root).map_err(to_error)?;
        text.push_str(&format!("{} is removed; it was not in use\n", zram.path.display()));
    }
    for area in &chosen {
        let held = swap::remove(root, area).map_err(to_error)?;
        text.push_str(&format!("{} is removed; {} came back from it\n", area.path, figures::size(held)));
    }
    if text.is_empty() {
        text = match &arguments.file {
            Some(file) => remove_unused(root, file)?,
            None => "there is no swap that napa made\n".to_owned(),
        };
    }
    put_back(root, &kept)?;
    output::print(text.as_bytes())
}

/// zswap is what it was before once no file is left in front of which it could stand.
fn put_back(root: &Root, kept: &[Swap]) -> Result<(), Error> {
    match Zswap::find(root) {
        Some(zswap) if kept.iter().all(|area| area.kind != SwapKind::File) => {
            zswap.put_back().map_err(to_error)
        }
        _ => Ok(()),
    }
}

fn remove_unused(root: &Root, file: &Path) -> Result<String, Error> {
    let shown = whole(file);
    if Swap::read(root).iter().any(|area| Path::new(&area.path) == shown) {
        let shown = shown.display();
        return Err(Error::bad_input(format!("napa did not make {shown}: sudo swapoff {shown}")));
    }
    SwapFile::remove_unused(file).map_err(to_error)?;
    Ok(format!("{} is removed; it was not in use\n", file.display()))
}
