//! The same machine in the words of each VMM.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use napa_units::Bytes;

use super::figure::Subject;
use super::qemu::Qemu;
use crate::guests::SELF;

/// QEMU's smallest firmware. Where ring 0 is emulated, the usual one takes seconds.
const QBOOT: &str = "qboot.rom";

/// A machine for one embedded guest: one vCPU, a serial port, and what is named here.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Guest memory.
    pub memory: Bytes,
    /// The guest's command line.
    pub cmdline: &'a str,
    /// A virtio disk without the host's page cache.
    pub disk: Option<Disk<'a>>,
    /// A virtio network card on this tap.
    pub tap: Option<&'a str>,
    /// Where the VMM listens for commands.
    pub control: Option<&'a Path>,
}

impl<'a> Machine<'a> {
    /// A machine without disk, network card and control socket.
    pub const fn plain(memory: Bytes, cmdline: &'a str) -> Self {
        Self { memory, cmdline, disk: None, tap: None, control: None }
    }
}

/// A disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk<'a> {
    /// The file or device.
    pub path: &'a Path,
    /// Nobody may write to it.
    pub readonly: bool,
}

/// Who is measured.
pub struct Vmms {
    /// The embedded guest as a file: the same for all.
    pub kernel: PathBuf,
    /// The peer, unless napa is measured alone.
    pub qemu: Option<Qemu>,
}

impl Vmms {
    /// napa, and QEMU's small machine if there is a QEMU.
    pub fn pair(&self) -> Vec<Subject> {
        [Subject::Napa].into_iter().chain(self.qemu.as_ref().map(|_| Subject::QemuMicrovm)).collect()
    }

    /// The command that runs `machine`; `None` for one that is not there.
    pub fn command(&self, subject: Subject, machine: Machine<'_>) -> Option<Command> {
        match subject {
            Subject::Napa => Some(self.napa(machine)),
            Subject::QemuMicrovm => self.qemu(&["microvm,pcie=on", "-bios", QBOOT], machine),
            Subject::QemuQ35 => self.qemu(&["q35"], machine),
            Subject::Host => None,
        }
    }

    fn napa(&self, machine: Machine<'_>) -> Command {
        let mut command = Command::new(SELF);
        command.arg0("napa").args(["run", "--console", "stdio", "--rng", "on", "--kernel"]).arg(&self.kernel);
        command.args(["--memory", &machine.memory.to_string(), "--cmdline", machine.cmdline]);
        if let Some(disk) = machine.disk {
            let tail = if disk.readonly { ",cache=none,readonly" } else { ",cache=none" };
            command.arg("--disk").arg(join("path=", disk.path.as_os_str(), tail));
        }
        if let Some(tap) = machine.tap {
            command.args(["--net", &format!("tap={tap}")]);
        }
        if let Some(control) = machine.control {
            command.arg("--api-socket").arg(control);
        }
        command
    }

    /// QEMU without what nobody asked for, its disk served by a thread of its own through io_uring.
    fn qemu(&self, kind: &[&str], machine: Machine<'_>) -> Option<Command> {
        let mut command = self.qemu.as_ref()?.command();
        let memory_mib = (machine.memory.0 >> 20).to_string();
        command.args(["-accel", "kvm", "-cpu", "host,-arch-capabilities", "-smp", "1", "-M"]).args(kind);
        command.args(["-m", &memory_mib, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-serial", "stdio", "-kernel"]).arg(&self.kernel);
        command.args([
            "-append",
            machine.cmdline,
            "-device",
            "virtio-rng-pci,disable-legacy=on",
            "-device",
            "virtio-serial-pci,disable-legacy=on",
            "-device",
            "virtio-balloon-pci,disable-legacy=on,free-page-reporting=on",
        ]);
        command.args(["-chardev", "null,id=console", "-device", "virtconsole,chardev=console"]);
        if let Some(disk) = machine.disk {
            let readonly = if disk.readonly { "on" } else { "off" };
            let tail = format!(",format=raw,if=none,id=disk,cache=none,aio=io_uring,readonly={readonly}");
            command.args(["-object", "iothread,id=io", "-drive"]).arg(join(
                "file=",
                disk.path.as_os_str(),
                &tail,
            ));
            command.args(["-device", "virtio-blk-pci,disable-legacy=on,drive=disk,iothread=io"]);
        }
        if let Some(control) = machine.control {
            command.arg("-qmp").arg(join("unix:", control.as_os_str(), ",server=on,wait=off"));
        }
        if let Some(tap) = machine.tap {
            command.args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no")]);
            command.args(["-device", "virtio-net-pci,disable-legacy=on,netdev=net,romfile="]);
        }
        Some(command)
    }
}

/// A list of words as both VMMs read it: a comma in a path is written twice.
fn join(head: &str, path: &OsStr, tail: &str) -> OsString {
    let mut words = OsString::from(head);
    let mut pieces = path.as_bytes().split(|&byte| byte == b',').map(OsStr::from_bytes);
    words.push(pieces.next().unwrap_or_default());
    for piece in pieces {
        words.push(",,");
        words.push(piece);
    }
    words.push(tail);
    words
}

/// What a subject is called.
pub const fn name(subject: Subject) -> &'static str {
    match subject {
        Subject::Napa => "napa",
        Subject::QemuMicrovm => "QEMU microvm",
        Subject::QemuQ35 => "QEMU q35",
        Subject::Host => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> String {
        command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn machine() -> Machine<'static> {
        let disk = Some(Disk { path: Path::new("d.raw"), readonly: false });
        Machine { memory: Bytes::mib(128), cmdline: "workload=idle", disk, tap: Some("tap0"), control: None }
    }

    #[test]
    fn napa_and_qemu_get_the_same_devices() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        std::fs::write(&program, "").unwrap();
        let vmms = Vmms { kernel: "guest.elf".into(), qemu: Some(Qemu::find(Some(&program)).unwrap()) };
        assert_eq!(
            words(&vmms.command(Subject::Napa, machine()).unwrap()),
            "run --console stdio --rng on --kernel guest.elf --memory 128M --cmdline workload=idle \
             --disk path=d.raw,cache=none --net tap=tap0"
        );
        let qemu = words(&vmms.command(Subject::QemuMicrovm, machine()).unwrap());
        for part in [
            "-m 128 ",
            "file=d.raw,",
            "aio=io_uring",
            "iothread=io",
            "ifname=tap0",
            "virtconsole",
            "virtio-rng",
        ] {
            assert!(qemu.contains(part), "{part}: {qemu}");
        }
        assert_eq!(vmms.pair(), [Subject::Napa, Subject::QemuMicrovm]);
        assert!(vmms.command(Subject::Host, machine()).is_none());
    }

    #[test]
    fn a_disk_that_is_only_read_is_given_so() {
        let vmms = Vmms { kernel: "guest.elf".into(), qemu: None };
        let disk = Some(Disk { path: Path::new("/dev/vdb"), readonly: true });
        let command = vmms.command(Subject::Napa, Machine { disk, ..machine() }).unwrap();
        assert!(words(&command).contains("path=/dev/vdb,cache=none,readonly"));
    }

    #[test]
    fn a_comma_in_a_path_is_written_twice() {
        assert_eq!(join("path=", OsStr::new("a,b,.raw"), ",x"), "path=a,,b,,.raw,x");
        assert_eq!(join("path=", OsStr::new("a"), ""), "path=a");
    }

    #[test]
    fn napa_can_be_alone() {
        let vmms = Vmms { kernel: "guest.elf".into(), qemu: None };
        assert_eq!(vmms.pair(), [Subject::Napa]);
        assert!(vmms.command(Subject::QemuQ35, machine()).is_none());
        let bare = Machine { disk: None, tap: None, ..machine() };
        assert!(!words(&vmms.command(Subject::Napa, bare).unwrap()).contains("tap"));
    }
}
