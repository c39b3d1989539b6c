//! Random configurations for property tests.

use std::path::PathBuf;

use napa_units::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{
    BalloonConfig, CacheMode, CgroupConfig, ConsoleConfig, DiskConfig, DiskFormat, MacAddress, NetConfig,
    OnReboot, PmemConfig, ShareConfig, VmConfig, VsockConfig,
};

/// Any configuration whose words have the right shape; whether they contradict each other is another matter.
pub fn config() -> impl Strategy<Value = VmConfig> {
    let boot = (option::of(path()), option::of(path()), option::of("[ -~]{0,40}"));
    let shape = (option::of("[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}"), 0..=1_u64 << 46, any::<u32>(), any::<bool>());
    let pmem = path().prop_map(|path| PmemConfig { path });
    let pmems = vec(pmem, 0..3);
    let devices = (
        vec(disk(), 0..3),
        vec(net(), 0..3),
        option::of(vsock()),
        any::<bool>(),
        console(),
        balloon(),
        pmems,
    );
    let control = (any::<bool>(), any::<u32>(), option::of(path()), any::<bool>(), option::of(path()));
    let group = (option::of(cgroup()), option::of(size()), option::of(size()), option::of(size()));
    let share = option::of(share());
    (shape, boot, devices, control, group, share).prop_map(|(shape, boot, devices, control, group, share)| {
        VmConfig {
            name: shape.0,
            memory: Bytes(shape.1),
            cpus: shape.2,
            huge_pages: shape.3,
            share,
            kernel: boot.0,
            initrd: boot.1,
            cmdline: boot.2,
            disks: devices.0,
            nets: devices.1,
            vsock: devices.2,
            rng: devices.3,
            console: devices.4,
            balloon: devices.5,
            pmems: devices.6,
            on_reboot: if control.0 { OnReboot::Restart } else { OnReboot::Exit },
            stop_timeout_s: control.1,
            api_socket: control.2,
            sandbox: control.3,
            console_log: control.4,
            cgroup: group.0,
            memory_low: group.1,
            swap_max: group.2,
            hotplug_memory: group.3,
        }
    })
}

/// Any disk.
pub fn disk() -> impl Strategy<Value = DiskConfig> {
    let cache = prop_oneof![Just(CacheMode::None), Just(CacheMode::Writeback)];
    (path(), any::<bool>(), cache, option::of(1..=64_u16), option::of("[ -~]{1,20}")).prop_map(
        |(path, readonly, cache, queues, serial)| DiskConfig {
            path,
            readonly,
            format: DiskFormat::Raw,
            cache,
            queues,
            serial,
        },
    )
}

/// Any network card.
pub fn net() -> impl Strategy<Value = NetConfig> {
    let mac = any::<[u8; 6]>().prop_map(MacAddress);
    ("[a-z][a-z0-9.,-]{0,14}", option::of(mac), option::of(1..=64_u16), option::of(68..=u16::MAX))
        .prop_map(|(tap, mac, queues, mtu)| NetConfig { tap, mac, queues, mtu })
}

/// Any vsock device.
pub fn vsock() -> impl Strategy<Value = VsockConfig> {
    (3..u32::MAX, path()).prop_map(|(cid, path)| VsockConfig { cid, path })
}

fn balloon() -> impl Strategy<Value = BalloonConfig> {
    prop_oneof![Just(BalloonConfig::On), Just(BalloonConfig::NoReporting), Just(BalloonConfig::Off)]
}

fn cgroup() -> impl Strategy<Value = CgroupConfig> {
    prop_oneof![
        Just(CgroupConfig::Auto),
        "[a-z]{1,3}(/[a-z.,= -]{1,4}x){0,2}".prop_map(|path| CgroupConfig::Path(path.into())),
    ]
}

fn size() -> impl Strategy<Value = Bytes> {
    (0..=1_u64 << 46).prop_map(Bytes)
}

/// Any extent of sharing.
pub fn share() -> impl Strategy<Value = ShareConfig> {
    prop_oneof![
        Just(ShareConfig::Zero),
        Just(ShareConfig::Vm),
        Just(ShareConfig::Off),
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}".prop_map(ShareConfig::Domain),
    ]
}

fn console() -> impl Strategy<Value = ConsoleConfig> {
    prop_oneof![
        Just(ConsoleConfig::Stdio),
        Just(ConsoleConfig::Off),
        path().prop_map(ConsoleConfig::File),
        path().prop_map(ConsoleConfig::Socket),
    ]
}

/// Paths with everything in them that could upset a parser.
fn path() -> impl Strategy<Value = PathBuf> {
    prop_oneof!["[a-z/.]{1,20}", "[ -~]{1,20}", ",{1,4}", r"\PC{1,8}"].prop_map(PathBuf::from)
}
