//! Showing what there is.

use std::process::ExitCode;

use napa_sys::host::{Root, Swap, SwapKind, zswap_enabled};
use napa_sys::swap::{self, UnusedZram};
use napa_units::Bytes;
use serde::Serialize;

use crate::command::JsonArgs;
use crate::error::Error;
use crate::figures;
use crate::output::{self, Table};

/// Everything the host swaps to.
#[derive(Debug, Serialize)]
struct Listing {
    areas: Vec<Area>,
    /// What napa made in memory and nobody swaps to any more.
    unused: Vec<Unused>,
    /// `None`: the kernel has none.
    zswap: Option<bool>,
}

/// One area.
#[derive(Debug, Serialize)]
struct Area {
    path: String,
    kind: &'static str,
    size: Bytes,
    used: Bytes,
    priority: i32,
    /// Whether napa made it. `None`: this user may not look.
    napa: Option<bool>,
}

/// One device that is not an area any more.
#[derive(Debug, Serialize)]
struct Unused {
    path: String,
    size: Bytes,
}

/// Shows all areas.
pub fn list(arguments: &JsonArgs) -> Result<ExitCode, Error> {
    let root = &Root::system();
    let ours = swap::ours(root).ok();
    let areas = Swap::read(root).into_iter().map(|area| Area {
        napa: ours.as_ref().map(|ours| ours.iter().any(|own| own.path == area.path)),
        kind: kind(area.kind),
        size: area.size,
        used: area.used,
        priority: area.priority,
        path: area.path,
    });
    let unused = UnusedZram::find(root)
        .into_iter()
        .map(|zram| Unused { path: zram.path.display().to_string(), size: zram.size });
    let listing = Listing { areas: areas.collect(), unused: unused.collect(), zswap: zswap_enabled(root) };
    if arguments.json {
        return output::print_json(&listing);
    }
    output::print(describe(&listing).as_bytes())
}

const fn kind(kind: SwapKind) -> &'static str {
    match kind {
        SwapKind::File => "file",
        SwapKind::Partition => "partition",
        SwapKind::Zram => "zram",
    }
}

fn describe(listing: &Listing) -> String {
    let mut table = Table::new();
    for area in &listing.areas {
        let owner = match area.napa {
            Some(true) => "napa's",
            Some(false) => "not napa's",
            None => "perhaps napa's: look as root",
        };
        let size = format!("{} of {} used", figures::size(area.used), figures::size(area.size));
        table.row([&area.path, area.kind, &size, &format!("priority {}", area.priority), owner]);
    }
    let areas = match listing.areas.is_empty() {
        true => "the host has no swap: sudo napa swap create --size 8G\n".to_owned(),
        false => table.finish(),
    };
    let unused: String = listing
        .unused
        .iter()
        .map(|zram| {
            let (path, size) = (&zram.path, figures::size(zram.size));
            format!("{path} of {size} is switched off: sudo napa swap remove --file {path}\n")
        })
        .collect();
    let zswap = match listing.zswap {
        Some(true) => "zswap is on\n",
        Some(false) => "zswap is off\n",
        None => "",
    };
    format!("{areas}{unused}{zswap}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_shown_with_their_owners() {
        let area = |path: &str, napa| Area {
            path: path.into(),
            kind: "file",
            size: Bytes::gib(8),
            used: Bytes::mib(96),
            priority: 10,
            napa,
        };
        let unused = vec![Unused { path: "/dev/zram0".into(), size: Bytes::mib(8) }];
        let areas = vec![area("/a", Some(true)), area("/b", None)];
        let listing = Listing { areas, unused, zswap: Some(true) };
        let expected = "\
/a  file  96 MiB of 8.0 GiB used  priority 10  napa's
/b  file  96 MiB of 8.0 GiB used  priority 10  perhaps napa's: look as root
/dev/zram0 of 8,192 KiB is switched off: sudo napa swap remove --file /dev/zram0
zswap is on
";
        assert_eq!(describe(&listing), expected);
        let none = Listing { areas: vec![], unused: vec![], zswap: None };
        assert!(describe(&none).contains("sudo napa swap create"));
    }
}
