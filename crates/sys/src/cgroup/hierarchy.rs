//! Where version 2 is mounted, and how far its memory controller reaches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{GroupError, write};
use crate::host::Root;

/// The folders that the hierarchy may be mounted at: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

/// The hierarchy of version 2.
pub struct Hierarchy {
    top: PathBuf,
}

impl Hierarchy {
    /// `None`: the host has none.
    pub fn find(root: &Root) -> Option<Self> {
        let mount = MOUNTS.into_iter().find(|mount| root.exists(&format!("{mount}/cgroup.controllers")))?;
        Some(Self { top: root.path(mount) })
    }

    /// The folder of the root group.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The folder of a group.
    pub fn folder(&self, path: &Path) -> PathBuf {
        self.top.join(path)
    }

    /// The folder of the group that this process is in.
    pub fn home(&self, root: &Root) -> PathBuf {
        let groups = root.text("proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        self.top.join(own)
    }
}

/// Whether a group has the memory controller.
#[derive(Debug)]
pub enum Controller {
    /// It has.
    Enabled,
    /// It has not, for this reason.
    Absent(GroupError),
}

impl Controller {
    /// What is below a group without the controller has none either.
    pub fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Enabled => next(),
            Self::Absent(_) => self,
        }
    }
}

/// Gives the groups directly below `folder` the memory controller.
pub fn enable_memory(folder: &Path) -> Controller {
    let has = |name: &str| {
        let names = fs::read_to_string(folder.join(name)).unwrap_or_default();
        names.split_whitespace().any(|controller| controller == "memory")
    };
    let subtree = folder.join("cgroup.subtree_control");
    if has("cgroup.subtree_control") {
        return Controller::Enabled;
    }
    if !has("cgroup.controllers") {
        return Controller::Absent(GroupError::NoController {
            file: folder.join("cgroup.controllers"),
            mend: "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=memory cgroup_enable=memory",
        });
    }
    match write(&subtree, "+memory") {
        Ok(()) => Controller::Enabled,
        Err(source) => {
            let mend = match source.kind() {
                io::ErrorKind::ResourceBusy => {
                    "it holds processes, so the groups below it can have no memory rules: move them to a group below \
                     it, or run napa as a service with Delegate=yes and DelegateSubgroup=main (systemd 254)"
                        .to_owned()
                }
                _ => format!("echo +memory | sudo tee {}", subtree.display()),
            };
            Controller::Absent(GroupError::Refused { what: "write +memory to", path: subtree, source, mend })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn the_hierarchy_is_found_alone_and_beside_version_1() {
        for mount in MOUNTS {
            let own = ("proc/self/cgroup", "4:memory:/x\n0::/user.slice/a\n");
            let host = Fixture::new(&[(&format!("{mount}/cgroup.controllers"), ""), own]);
            let root = host.root();
            let hierarchy = Hierarchy::find(&root).unwrap();
            assert_eq!(hierarchy.top(), root.path(mount));
            assert_eq!(hierarchy.home(&root), root.path(mount).join("user.slice/a"));
        }
        assert!(Hierarchy::find(&Fixture::new(&[]).root()).is_none());
    }

    fn reason(controller: Controller) -> String {
        match controller {
            Controller::Enabled => panic!("it has the controller"),
            Controller::Absent(error) => error.to_string(),
        }
    }

    #[test]
    fn the_controller_is_passed_on_where_it_is_there() {
        for (controllers, subtree, expected) in [
            ("cpu memory\n", "cpu memory\n", Ok("cpu memory\n")),
            ("cpu memory\n", "", Ok("+memory")),
            ("cpu\n", "", Err("cgroup.controllers does not name the memory controller")),
        ] {
            let host =
                Fixture::new(&[("cgroup.controllers", controllers), ("cgroup.subtree_control", subtree)]);
            let found = enable_memory(&host.root().path(""));
            match expected {
                Ok(text) => {
                    assert!(matches!(found, Controller::Enabled), "{found:?}");
                    let now = fs::read_to_string(host.root().path("cgroup.subtree_control")).unwrap();
                    assert_eq!(now, text);
                }
                Err(text) => {
                    let found = found.and_then(|| Controller::Enabled);
                    assert!(reason(found).contains(text));
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_the_file_and_the_command() {
        let host = Fixture::new(&[("cgroup.controllers", "memory")]);
        let error = reason(enable_memory(&host.root().path("")));
        assert!(error.contains("cannot write +memory to") && error.contains("| sudo tee "), "{error}");
    }
}
