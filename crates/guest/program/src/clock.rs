//! Monotonic time: the KVM clock where the host offers it, else the time stamp counter.
//!
//! Every processor reads its own clock page and remembers its last reading, so a step back is seen and counted.

#![allow(unsafe_code, reason = "shares the clock pages with the host")]

use crate::services::{cpuid, write_msr};
use crate::{port, processor};
use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use guest_logic::acpi::PROCESSORS_MAX;
use guest_logic::cpu_time::Scale;

const HYPERVISOR_LEAF: u32 = 0x4000_0000;
const HYPERVISOR_FEATURES: u32 = 0x4000_0001;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
const HYPERVISOR_PRESENT: u32 = 1 << 31;
const FEATURE_CLOCKSOURCE2: u32 = 1 << 3;
const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
const TSC_FREQUENCY_LEAF: u32 = 0x15;

/// `pvclock_vcpu_time_info` (Linux, Documentation/virt/kvm/x86/msr.rst): the host writes, this processor reads. It is
/// 32 bytes and must not cross a page.
#[repr(C, align(32))]
struct ClockPage {
    version: AtomicU32,
    padding: AtomicU32,
    tsc_timestamp: AtomicU64,
    system_time: AtomicU64,
    multiplier: AtomicU32,
    shift: AtomicU8,
    flags: AtomicU8,
    reserved: [AtomicU8; 2],
}

/// What one processor knows about time.
#[repr(C, align(64))]
struct Local {
    page: ClockPage,
    last_ns: AtomicU64,
    steps_back: AtomicU64,
}

static LOCAL: [Local; PROCESSORS_MAX] = [const {
    Local {
        page: ClockPage {
            version: AtomicU32::new(0),
            padding: AtomicU32::new(0),
            tsc_timestamp: AtomicU64::new(0),
            system_time: AtomicU64::new(0),
            multiplier: AtomicU32::new(0),
            shift: AtomicU8::new(0),
            flags: AtomicU8::new(0),
            reserved: [const { AtomicU8::new(0) }; 2],
        },
        last_ns: AtomicU64::new(0),
        steps_back: AtomicU64::new(0),
    }
}; PROCESSORS_MAX];

static SOURCE: AtomicU8 = AtomicU8::new(SOURCE_TSC);
const SOURCE_TSC: u8 = 0;
const SOURCE_KVM: u8 = 1;
static TSC_KHZ: AtomicU32 = AtomicU32::new(0);
static TSC_BASE: AtomicU64 = AtomicU64::new(0);

/// Chooses the clock, on the boot processor. Gives its name.
pub fn start() -> &'static str {
    let hypervisor = cpuid(1, 0).ecx & HYPERVISOR_PRESENT != 0;
    let leaf = if hypervisor { cpuid(HYPERVISOR_LEAF, 0) } else { Default::default() };
    // "KVMKVMKVM\0\0\0"; the highest leaf may read 0 and then means the features leaf.
    let kvm = (leaf.ebx, leaf.ecx, leaf.edx) == (0x4b4d_564b, 0x564b_4d56, 0x4d);
    if kvm && cpuid(HYPERVISOR_FEATURES, 0).eax & FEATURE_CLOCKSOURCE2 != 0 {
        SOURCE.store(SOURCE_KVM, Ordering::Relaxed);
        start_processor();
        return "kvmclock";
    }
    TSC_BASE.store(ticks(), Ordering::Relaxed);
    let (khz, name) = tsc_khz(if hypervisor { leaf.eax } else { 0 });
    TSC_KHZ.store(khz, Ordering::Relaxed);
    name
}

/// Tells the host where this processor's clock page lies.
pub fn start_processor() {
    if SOURCE.load(Ordering::Relaxed) == SOURCE_KVM {
        let page = &LOCAL[processor::index()].page;
        write_msr(MSR_KVM_SYSTEM_TIME_NEW, &raw const *page as u64 | 1);
    }
}

/// Nanoseconds; since the machine started with the KVM clock, since the guest looked first otherwise.
pub fn now() -> u64 {
    let local = &LOCAL[processor::index()];
    let ns = if SOURCE.load(Ordering::Relaxed) == SOURCE_KVM { local.page.read() } else { tsc_ns() };
    if ns < local.last_ns.load(Ordering::Relaxed) {
        local.steps_back.store(local.steps_back.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    local.last_ns.store(ns, Ordering::Relaxed);
    ns
}

/// How often the clock stepped back, over all processors.
pub fn steps_back() -> u64 {
    LOCAL.iter().map(|local| local.steps_back.load(Ordering::Relaxed)).sum()
}

impl ClockPage {
    fn read(&self) -> u64 {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let base = self.tsc_timestamp.load(Ordering::Relaxed);
            let system_time = self.system_time.load(Ordering::Relaxed);
            let scale = Scale {
                multiplier: self.multiplier.load(Ordering::Relaxed),
                shift: self.shift.load(Ordering::Relaxed).cast_signed(),
            };
            let ticks = ticks();
            fence(Ordering::Acquire);
            // An odd version is being written.
            if version & 1 == 0 && version == self.version.load(Ordering::Relaxed) {
                return system_time.wrapping_add(scale.nanoseconds(ticks.wrapping_sub(base)));
            }
        }
    }
}

fn tsc_ns() -> u64 {
    static SCALE_MULTIPLIER: AtomicU32 = AtomicU32::new(0);
    static SCALE_SHIFT: AtomicU8 = AtomicU8::new(0);
    if SCALE_MULTIPLIER.load(Ordering::Acquire) == 0 {
        let scale = Scale::from_khz(TSC_KHZ.load(Ordering::Relaxed));
        SCALE_SHIFT.store(scale.shift.cast_unsigned(), Ordering::Relaxed);
        SCALE_MULTIPLIER.store(scale.multiplier, Ordering::Release);
    }
    let scale = Scale {
        multiplier: SCALE_MULTIPLIER.load(Ordering::Relaxed),
        shift: SCALE_SHIFT.load(Ordering::Relaxed).cast_signed(),
    };
    scale.nanoseconds(ticks().saturating_sub(TSC_BASE.load(Ordering::Relaxed)))
}

fn ticks() -> u64 {
    // SAFETY: an SSE2 instruction, which every x86-64 has; it keeps the counter from being read early.
    unsafe { _mm_lfence() };
    // SAFETY: reads a counter that ring 3 may read.
    unsafe { _rdtsc() }
}

/// The frequency of the time stamp counter, and where it is known from.
fn tsc_khz(highest_hypervisor_leaf: u32) -> (u32, &'static str) {
    if highest_hypervisor_leaf >= HYPERVISOR_TIMING {
        let khz = cpuid(HYPERVISOR_TIMING, 0).eax;
        if khz != 0 {
            return (khz, "tsc-hypervisor");
        }
    }
    if cpuid(0, 0).eax >= TSC_FREQUENCY_LEAF {
        let leaf = cpuid(TSC_FREQUENCY_LEAF, 0);
        let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax.max(1));
        if leaf.eax != 0 && hz >= 1_000_000 {
            return ((hz / 1000).min(u64::from(u32::MAX)) as u32, "tsc-cpuid");
        }
    }
    (measured_khz(), "tsc-measured")
}

/// Measures the time stamp counter against channel 0 of the interval timer, over at least 10 ms.
fn measured_khz() -> u32 {
    const TIMER_HZ: u64 = 1_193_182;
    const COUNTS_MIN: u16 = 11_932;
    const CHANNEL_0: u16 = 0x40;
    const MODE: u16 = 0x43;
    const MODE_ONE_SHOT: u8 = 0x30;
    /// Where there is no timer nothing counts; the frequency is then a guess.
    const LOOKS_MAX: u32 = 100_000;
    const LOOKS_STUCK: u32 = 100;
    const GUESS_KHZ: u32 = 1_000_000;
    let count = || {
        port::write_u8(MODE, 0);
        u16::from_le_bytes([port::read_u8(CHANNEL_0), port::read_u8(CHANNEL_0)])
    };
    port::write_u8(MODE, MODE_ONE_SHOT);
    port::write_u8(CHANNEL_0, 0xff);
    port::write_u8(CHANNEL_0, 0xff);
    let (first, start) = (count(), ticks());
    for look in 0..LOOKS_MAX {
        let counted = first.wrapping_sub(count());
        if counted >= COUNTS_MIN {
            let khz = (ticks() - start).saturating_mul(TIMER_HZ) / u64::from(counted) / 1000;
            return u32::try_from(khz).unwrap_or(GUESS_KHZ).max(1);
        }
        if counted == 0 && look > LOOKS_STUCK {
            break;
        }
    }
    GUESS_KHZ
}
