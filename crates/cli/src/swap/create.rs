//! Making swap.

use std::path::Path;
use std::process::ExitCode;

use napa_sys::host::{Memory, Root, has_zram};
use napa_sys::swap::{SwapFile, Zram, Zswap};
use napa_units::{Bytes, PAGE_SIZE};

use super::{Compressed, CreateArgs, FILE, need_root, to_error};
use crate::error::Error;
use crate::output;

/// What will be made, once the words make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    /// `None`: no file.
    file: Option<Bytes>,
    front: Front,
}

/// What stands in front of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Zram(Bytes),
    Zswap,
    Off,
}

/// Makes all of it, or nothing.
pub fn create(arguments: &CreateArgs) -> Result<ExitCode, Error> {
    need_root("create")?;
    let root = &Root::system();
    let zswap = Zswap::find(root);
    let memory = Memory::read(root).map_or(Bytes(0), |memory| memory.total);
    let order = order(arguments, zswap.is_some(), memory)?;
    let path = arguments.file.as_deref().unwrap_or(Path::new(FILE));
    // Each part goes away again if a later one fails.
    let zram = match order.front {
        Front::Zram(size) => Some(Zram::make(root, size).map_err(to_error)?),
        Front::Zswap | Front::Off => None,
    };
    if let Some(size) = order.file {
        let mut file = SwapFile::make(path, size).map_err(to_error)?;
        file.switch_on().map_err(to_error)?;
        if let (Front::Zswap, Some(zswap)) = (order.front, &zswap) {
            zswap.switch_on().map_err(to_error)?;
        }
        file.keep();
    }
    if let Some(zram) = zram {
        zram.keep();
    }
    output::print(describe(order, path).as_bytes())
}

fn order(arguments: &CreateArgs, has_zswap: bool, memory: Bytes) -> Result<Order, Error> {
    let file = (arguments.size > Bytes(0)).then_some(arguments.size);
    if file.is_none() {
        return memory_alone(arguments);
    }
    // Half of the memory: what is compressed in it has to be somewhere.
    let half = Bytes(memory.0 / 2 / PAGE_SIZE * PAGE_SIZE);
    let size = || arguments.zram_size.unwrap_or(arguments.size.min(half));
    let front = match arguments.compressed {
        Some(Compressed::Off) => Front::Off,
        Some(Compressed::Zram) => Front::Zram(size()),
        Some(Compressed::Zswap) if has_zswap => Front::Zswap,
        Some(Compressed::Zswap) => {
            return Err(Error::bad_input(
                "--compressed zswap: the kernel has none: use --compressed zram or off",
            ));
        }
        None if arguments.zram_size.is_some() => Front::Zram(size()),
        None if has_zswap => Front::Zswap,
        None if has_zram(&Root::system()) => Front::Zram(size()),
        None => Front::Off,
    };
    match (front, arguments.zram_size) {
        (Front::Zswap | Front::Off, Some(_)) => {
            Err(Error::bad_input("--zram-size is of no use without --compressed zram: leave one of them out"))
        }
        _ => Ok(Order { file, front }),
    }
}

/// Without a file there has to be zram, of a size that somebody chose.
fn memory_alone(arguments: &CreateArgs) -> Result<Order, Error> {
    let wrong = |why: &str| Err(Error::bad_input(format!("--size 0 makes no swap file: {why}")));
    match (arguments.compressed, arguments.zram_size, &arguments.file) {
        (_, _, Some(_)) => wrong("give it a size, such as 8G, or leave --file out"),
        (None | Some(Compressed::Zram), Some(size), None) => {
            Ok(Order { file: None, front: Front::Zram(size) })
        }
        _ => wrong("give it a size, such as 8G, or choose compressed memory alone with --zram-size"),
    }
}

fn describe(order: Order, path: &Path) -> String {
    let front = match order.front {
        Front::Zram(size) => format!("{size} of zram"),
        Front::Zswap => "zswap".into(),
        Front::Off => "nothing".into(),
    };
    match order.file {
        Some(size) => format!("the host swaps to {}, {size}, with {front} in front of it\n", path.display()),
        None => format!("the host swaps to {front}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{OtherVerb, Verb, parse};
    use crate::swap::SwapVerb;

    fn ordered(words: &str, has_zswap: bool) -> Result<Order, Error> {
        let words = ["napa", "swap", "create"].into_iter().chain(words.split(' '));
        match parse(words.map(Into::into))? {
            Verb::Other(OtherVerb::Swap { verb: SwapVerb::Create(arguments) }) => {
                order(&arguments, has_zswap, Bytes::gib(2))
            }
            _ => panic!("swap create was asked for"),
        }
    }

    #[test]
    fn words_become_an_order() {
        let gib = Some(Bytes::gib(1));
        for (words, expected) in [
            ("--size 1G", Order { file: gib, front: Front::Zswap }),
            ("--size 1G --compressed off", Order { file: gib, front: Front::Off }),
            ("--size 1G --compressed zram", Order { file: gib, front: Front::Zram(Bytes::gib(1)) }),
            (
                "--size 8G --compressed zram",
                Order { file: Some(Bytes::gib(8)), front: Front::Zram(Bytes::gib(1)) },
            ),
            ("--size 1G --zram-size 3G", Order { file: gib, front: Front::Zram(Bytes::gib(3)) }),
            ("--size 0 --zram-size 512M", Order { file: None, front: Front::Zram(Bytes::mib(512)) }),
        ] {
            assert_eq!(ordered(words, true).unwrap(), expected, "{words}");
        }
    }

    #[test]
    fn words_that_contradict_are_refused_with_a_mend() {
        for (words, has_zswap, text) in [
            ("--size 0", true, "such as 8G"),
            ("--size 0 --file a --zram-size 1G", true, "leave --file out"),
            ("--size 0 --compressed zswap", true, "--zram-size"),
            ("--size 1G --compressed zswap", false, "use --compressed zram or off"),
            ("--size 1G --compressed off --zram-size 1G", true, "leave one of them out"),
            ("--size 1.5G", true, "is not a size"),
            ("--size 1G --compressed lz4", true, "write one of zram, zswap, off"),
        ] {
            let error = ordered(words, has_zswap).unwrap_err().to_string();
            assert!(error.contains(text), "{words}: {error}");
        }
    }
}
