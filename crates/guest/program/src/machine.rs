//! The machine as the workloads see it, and the steps that bring it up.

use crate::arena::Memory;
use crate::failure::{CODE_BAD_INPUT, Failure};
use crate::physical::{FirmwareMemory, copy_text, image_end};
use crate::processor::BootOnly;
use crate::smp::Team;
use crate::{apic, clock, io_apic, paging, print_line, stop};
use core::cell::OnceCell;
use guest_logic::acpi::{self, Platform};
use guest_logic::command_line::{self, Arguments};
use guest_logic::memory_map::{FreeMemory, Range};
use guest_logic::start_info;

/// A machine that runs.
pub struct Machine {
    /// What ACPI says.
    pub platform: Platform,
    /// The processors.
    pub team: Team,
    /// What the command line says.
    pub arguments: Arguments<'static>,
}

impl Machine {
    /// Brings everything up that every workload needs, and says so with a `READY` line. Gives the memory too.
    pub fn start(start_info: u64) -> Result<(Self, &'static Memory), Failure> {
        static MEMORY: BootOnly<OnceCell<Memory>> = BootOnly::new(OnceCell::new());
        paging::start();
        let info = start_info::parse(&FirmwareMemory, start_info).map_err(|error| {
            Failure::new(CODE_BAD_INPUT, format_args!("start information at {start_info:#x}: {error:?}"))
        })?;
        let arguments = read_arguments(info.command_line)?;
        let platform = acpi::read(&FirmwareMemory, info.rsdp);
        let mut free = FreeMemory::above(image_end(), &info.ram);
        for range in info.ram.iter().filter(|range| range.end > paging::BOOT_MAPPED_END) {
            paging::map_ram(*range, &mut free)?;
        }
        io_apic::silence_old_controllers();
        apic::start(arguments.x2apic, platform.processors.iter().copied().max().unwrap_or(0));
        let clock_name = clock::start();
        stop::start(platform.pm1_control_port);
        io_apic::route_stop_request(&platform, apic::id());
        let team = Team::start(&platform.processors, &mut free)?;
        let ram: u64 = info.ram.iter().map(Range::bytes).sum();
        if let Some(word) = arguments.unknown {
            print_line!("NOTE unknown=\"{word}\"");
        }
        let (cpus, workload) = (team.size(), arguments.workload_text);
        print_line!("READY cpus={cpus} memory={ram} clock={clock_name} workload={workload}");
        let memory = MEMORY.get().get_or_init(|| Memory::new(free, ram));
        Ok((Self { platform, team, arguments }, memory))
    }
}

fn read_arguments(address: u64) -> Result<Arguments<'static>, Failure> {
    let line = if address == 0 { Ok("") } else { copy_text(address) };
    let line = line.map_err(|error| Failure::new(CODE_BAD_INPUT, format_args!("command line: {error}")))?;
    command_line::parse(line).map_err(|error| Failure::new(CODE_BAD_INPUT, format_args!("{error}")))
}
