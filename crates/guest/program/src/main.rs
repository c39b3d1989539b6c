//! napa's embedded guest: a program that boots by PVH, does the work its command line names, and ends the machine.
//!
//! Some hosts emulate ring 0 and run ring 3 on the processor. So the Rust code runs in ring 3, identity mapped, with
//! interrupts off; what only ring 0 can do is a few short services in assembly (`services.rs`). Interrupts are taken
//! while a processor halts and nowhere else: they count, and the code that sleeps looks at the counts.
//!
//! ```text
//! boot.s ─ guest_main ─ start info, page tables, clock, processors ─ workloads, one after the other ─ exit code
//! ```

#![no_std]
#![no_main]

mod apic;
mod arena;
mod background;
mod clock;
mod console;
mod crew;
mod failure;
mod interrupts;
mod io_apic;
mod lock;
mod machine;
mod paging;
mod pci;
mod physical;
mod port;
mod power;
mod processor;
mod report;
mod runtime;
mod seed;
mod serial;
mod services;
mod smp;
mod stop;
mod timer;
mod virtio;
mod workloads;

/// Where boot.s enters Rust, on the boot processor in ring 3. `start_info` is the address that the loader gave.
#[allow(unsafe_code, reason = "boot.s names this function")]
#[unsafe(no_mangle)]
extern "C" fn guest_main(start_info: u64) -> ! {
    processor::prepare_boot_task();
    serial::start();
    print_line!("apa guest");
    interrupts::start();
    let code = match machine::Machine::start(start_info) {
        Ok((machine, memory)) => workloads::run_all(&machine, memory),
        Err(failure) => failure.report(),
    };
    power::exit(code)
}
