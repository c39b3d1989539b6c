//! `console-echo`: sends back what the virtio console receives, until a stop is requested.

use super::Ending;
use crate::arena::Arena;
use crate::failure::Failure;
use crate::pci::Function;
use crate::virtio::console::{BUFFER, Console};
use crate::{print_line, stop};

pub fn run(arena: &Arena, functions: &[Function]) -> Result<Ending, Failure> {
    let mut console = Console::open(functions, arena)?;
    let mut text = [0; BUFFER];
    let mut echoed = 0;
    while !stop::announced() {
        match console.read(&mut text) {
            0 => console.sleep(),
            bytes => {
                console.write(&text[..bytes], stop::announced);
                echoed += bytes;
            }
        }
    }
    print_line!("REPORT workload=console-echo part=total bytes={echoed}");
    Ok(Ending::Stopped)
}
