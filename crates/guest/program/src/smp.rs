//! The other processors: starting them, and work for all.

#![allow(unsafe_code, reason = "hands stacks, tables and a job to other processors")]

use crate::failure::{CODE_DEVICE, Failure};
use crate::processor::{STACK_BYTES, TSS_BYTES, prepare_task};
use crate::{apic, clock, interrupts, processor};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use guest_logic::acpi::PROCESSORS_MAX;
use guest_logic::memory_map::FreeMemory;
use heapless::Vec;

/// Where the trampoline is copied to: a page below 1 MiB that no loader needs after entry.
const TRAMPOLINE: u64 = 0x8000;
const START_WAIT_NS: u64 = 2_000_000_000;
/// STARTUP is sent again after this time: the first may be lost (Intel SDM volume 3, 9.4.4.1).
const START_AGAIN_NS: u64 = 20_000_000;
const RING0_STACK_BYTES: u64 = 4096;
const TSS_LIMIT: u64 = 8296;
const TSS_AVAILABLE: u64 = 0x89;
const FIRST_TSS_SELECTOR: u64 = 0x40;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static mut gdt_tss_descriptors: [[u64; 2]; PROCESSORS_MAX];
    static processor_ring0_stack: AtomicU64;
    static processor_stack: AtomicU64;
    static processor_tss_selector: AtomicU64;
}

type Job<'a> = &'a (dyn Fn(usize) + Sync);

static ONLINE: AtomicUsize = AtomicUsize::new(1);
static JOB: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static JOB_NUMBER: AtomicU32 = AtomicU32::new(0);
static BUSY: AtomicUsize = AtomicUsize::new(0);
static BOOT_APIC_ID: AtomicU32 = AtomicU32::new(0);

/// All processors that run. The first is the boot processor.
#[derive(Debug)]
pub struct Team {
    apic_ids: Vec<u32, PROCESSORS_MAX>,
}

impl Team {
    /// Starts every processor of `apic_ids` but the one that runs this. Stacks are taken from `free` and stay.
    pub fn start(apic_ids: &[u32], free: &mut FreeMemory) -> Result<Self, Failure> {
        let own = apic::id();
        BOOT_APIC_ID.store(own, Ordering::Relaxed);
        let mut team = Self { apic_ids: Vec::new() };
        team.add(own);
        let others = apic_ids.iter().copied().filter(|&id| id != own).take(PROCESSORS_MAX - 1);
        for (index, apic_id) in others.enumerate() {
            if index == 0 {
                copy_trampoline();
            }
            start_one(index + 1, apic_id, free)?;
            team.add(apic_id);
        }
        Ok(team)
    }

    fn add(&mut self, apic_id: u32) {
        self.apic_ids.push(apic_id).expect("no more processors are started than fit");
    }

    /// How many processors there are.
    pub fn size(&self) -> usize {
        self.apic_ids.len()
    }

    /// Runs `job` on every processor with its index, and calls `wait` again and again on this one, the boot processor,
    /// from the end of its own part until the others are done. `wait` should sleep: each end sends an interrupt.
    pub fn run(&self, job: Job, mut wait: impl FnMut()) {
        let others = self.apic_ids.len() - 1;
        BUSY.store(others, Ordering::Relaxed);
        JOB.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        JOB_NUMBER.fetch_add(1, Ordering::Release);
        for &apic_id in &self.apic_ids[1..] {
            apic::send_interrupt(apic_id, interrupts::VECTOR_WAKE);
        }
        job(0);
        // No reference to the job outlives this call: each processor counts down after its last use of it.
        while BUSY.load(Ordering::Acquire) != 0 {
            wait();
        }
    }
}

fn copy_trampoline() {
    let start = &raw const trampoline_start;
    let bytes = (&raw const trampoline_end) as usize - start as usize;
    // SAFETY: the page is RAM below 1 MiB, from which nothing is handed out, and larger than the trampoline.
    unsafe { ptr::copy_nonoverlapping(start, TRAMPOLINE as *mut u8, bytes) };
}

fn start_one(index: usize, apic_id: u32, free: &mut FreeMemory) -> Result<(), Failure> {
    let stack = free.take(STACK_BYTES, STACK_BYTES)?;
    let ring0_stack = free.take(RING0_STACK_BYTES, 4096)?;
    let tss = free.take(TSS_BYTES, 4096)?.start;
    // SAFETY: free memory, taken just now, mapped.
    unsafe { (tss as *mut u8).write_bytes(0, TSS_BYTES as usize) };
    // SAFETY: as above; the lowest word of a stack holds the index (processor.rs).
    unsafe { (stack.start as *mut usize).write(index) };
    prepare_task(tss, ring0_stack.end);
    set_tss_descriptor(index, tss);
    // SAFETY: the three words live for ever; only this function and the processor that starts use them.
    unsafe { &processor_ring0_stack }.store(ring0_stack.end, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { &processor_stack }.store(stack.end - 8, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { &processor_tss_selector }.store(FIRST_TSS_SELECTOR + 16 * index as u64, Ordering::Release);
    apic::send_init(apic_id);
    apic::send_startup(apic_id, (TRAMPOLINE >> 12) as u8);
    wait_online(index, apic_id)
}

fn wait_online(index: usize, apic_id: u32) -> Result<(), Failure> {
    let start = clock::now();
    let mut again = START_AGAIN_NS;
    while ONLINE.load(Ordering::Acquire) == index {
        let elapsed = clock::now().saturating_sub(start);
        if elapsed > START_WAIT_NS {
            return Err(Failure::new(
                CODE_DEVICE,
                format_args!("processor {index} (APIC {apic_id}) does not start"),
            ));
        }
        if elapsed > again {
            apic::send_startup(apic_id, (TRAMPOLINE >> 12) as u8);
            again = START_WAIT_NS;
        }
        core::hint::spin_loop();
    }
    Ok(())
}

fn set_tss_descriptor(index: usize, tss: u64) {
    let low = TSS_LIMIT | (tss & 0xff_ffff) << 16 | TSS_AVAILABLE << 40 | (tss >> 24 & 0xff) << 56;
    let descriptors = (&raw mut gdt_tss_descriptors).cast::<[u64; 2]>();
    // SAFETY: there are 64 descriptors; the processor that will load this one has not started.
    unsafe { descriptors.wrapping_add(index).write_volatile([low, tss >> 32]) };
}

/// Where boot.s enters Rust on every other processor, in ring 3.
#[unsafe(no_mangle)]
extern "C" fn processor_main() -> ! {
    let index = processor::index();
    apic::start_processor();
    clock::start_processor();
    let mut done = JOB_NUMBER.load(Ordering::Relaxed);
    ONLINE.fetch_add(1, Ordering::Release);
    loop {
        interrupts::sleep_until(|| JOB_NUMBER.load(Ordering::Acquire) != done);
        done = done.wrapping_add(1);
        let job = JOB.load(Ordering::Relaxed).cast::<Job>();
        // SAFETY: `Team::run` stored a pointer to its argument, and returns only after this processor counted down.
        let job = unsafe { *job };
        job(index);
        if BUSY.fetch_sub(1, Ordering::Release) == 1 {
            apic::send_interrupt(BOOT_APIC_ID.load(Ordering::Relaxed), interrupts::VECTOR_WAKE);
        }
    }
}
