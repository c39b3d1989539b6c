//! The VM's own control group, if it was given one.

use std::path::PathBuf;

use napa_api::VmConfig;
use napa_api::config::CgroupConfig;
use napa_sys::cgroup::{Group, MemoryRules};
use napa_sys::host::Root;

use crate::error::RunError;

/// Moves this process into the group that `config` names; dropping it moves it back.
pub fn enter(config: &VmConfig) -> Result<Option<Group>, RunError> {
    let Some(cgroup) = &config.cgroup else { return Ok(None) };
    let path = match cgroup {
        CgroupConfig::Path(path) => path.clone(),
        CgroupConfig::Auto => automatic(config.name.as_deref()),
    };
    let rules = MemoryRules { low: config.memory_low, swap_max: config.swap_max };
    let group = Group::enter(&Root::system(), &path, rules);
    group.map(Some).map_err(|error| RunError::BadInput(format!("--cgroup {}: {error}", path.display())))
}

/// Below a group of napa's, by the VM's name; a VM without one is told apart by its process.
fn automatic(name: Option<&str>) -> PathBuf {
    let folder = PathBuf::from("napa");
    match name {
        Some(name) => folder.join(name),
        None => folder.join(format!("vm-{}", std::process::id())),
    }
}
