//! The disk under the state is full: whoever asks for something new is told, and nothing is lost.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use napa_api::host::VmState;

use crate::daemon::{Daemon, IDLE};
use crate::support::{Host, wait_until};

/// A process in a mount namespace of its own, with a small disk at `folder`.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// `None`, with a word about it: this user cannot mount.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let script =
            "mount -t tmpfs -o size=3m,mode=700 napa-test \"$0\" && touch \"$0/mounted\" && exec sleep 600";
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut disk = Self { holder, folder: folder.to_owned() };
        wait_until("a mount", || {
            disk.inside("mounted").exists() || disk.holder.try_wait().unwrap().is_some()
        });
        if !disk.inside("mounted").exists() {
            println!("skipped: a disk cannot be mounted in a namespace here");
            return None;
        }
        Some(disk)
    }

    /// A file on the disk, as seen from outside.
    fn inside(&self, name: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(folder).join(name)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.inside("filler")).unwrap();
        for size in [65536, 4096, 512, 1] {
            while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.inside("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn within(disk: &SmallDisk, command: &Command) -> Command {
    let mut wrapped = Command::new("nsenter");
    wrapped.args(["--mount", "--target", &disk.holder.id().to_string()]).arg(command.get_program());
    wrapped.args(command.get_args()).stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        wrapped.env(key, value.unwrap());
    }
    wrapped
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let Some(host) = Host::new() else { return };
    let folder = host.path("disk");
    let Some(disk) = SmallDisk::mount(&folder) else { return };
    let state = folder.join("state");
    let command = || within(&disk, &host.command(&["host", "--state", state.to_str().unwrap()]));
    let mut daemon = Daemon::at(&host, state.clone());
    daemon.run(command());
    daemon.create("web", &IDLE);
    daemon.napa(&[&["create", "db"], &IDLE[..]].concat());
    let pid = daemon.vm("web").pid;
    disk.fill();
    // What still fits into the file of the state may succeed; at some point nothing does.
    let mut created = 0;
    let error = loop {
        let (code, _, error) = host.napa(&[&["create", &format!("more{created}")], &IDLE[..]].concat());
        if code != Some(0) {
            break error;
        }
        created += 1;
        assert!(created < 10_000, "the disk does not become full");
    };
    assert!(error.contains("is full: nothing was changed; make room there"), "{error}");
    let (code, _, error) = host.napa(&["start", "db"]);
    assert!(code == Some(1) && error.contains("is full"), "{code:?} {error}");
    assert_eq!((daemon.list().len(), daemon.vm("web").pid), (2 + created, pid));
    daemon.kill();
    daemon.run(command());
    daemon.wait_state("web", VmState::Running);
    assert_eq!(
        (daemon.list().len(), daemon.vm("web").pid),
        (2 + created, pid),
        "the next daemon knows them all"
    );
    assert!(daemon.napa(&["kill", "web"]).starts_with("web is stopped"), "a VM can be stopped all the same");
    disk.clear();
    daemon.napa(&["start", "db"]);
    daemon.napa(&["create", "last", "--memory", "32M"]);
    assert_eq!(daemon.list().len(), 3 + created);
}
