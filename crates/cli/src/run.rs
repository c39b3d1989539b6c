//! `napa run`: words and a file become a configuration, and that a VM.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use napa_api::config::{
    BalloonConfig, CgroupConfig, ConsoleConfig, DiskConfig, NetConfig, OnReboot, PmemConfig, ShareConfig,
    VsockConfig,
};
use napa_api::{Exit, VmConfig, control};
use napa_units::Bytes;
use napa_vmm::RunError;

use crate::error::Error;
use crate::exit_file::ExitFile;

/// The largest file that is read as a configuration, in bytes: a thousand times one with every key.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The flags of a VM. A flag that is not given leaves what the file says, or the default.
#[derive(Args, Debug, Default)]
pub struct RunArgs {
    /// Take the VM from a TOML file first; flags override it, --disk, --net and --pmem add to it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the VM: letters, digits, '.', '_', '-'. A named VM listens for 'napa stop NAME' and the like
    #[arg(long)]
    pub name: Option<String>,
    /// Guest memory: a number and one of K, M, G, T [default: 128M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Memory that 'napa plug VM SIZE' can give the guest while it runs, in blocks of 2M or more [default: none]
    #[arg(long, value_name = "SIZE")]
    pub hotplug_memory: Option<Bytes>,
    /// Back guest memory with transparent huge pages where the kernel can [default: on]
    #[arg(long, value_name = "SWITCH", num_args = 0..=1, default_missing_value = "on")]
    pub huge_pages: Option<Switch>,
    /// Control group (version 2) to make and run in, alone: auto for napa/NAME, or a path below the hierarchy's root
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<CgroupConfig>,
    /// Memory that is not taken from the VM while others have some to give (memory.low); needs --cgroup
    #[arg(long, value_name = "SIZE")]
    pub memory_low: Option<Bytes>,
    /// The most that the VM may have in swap (memory.swap.max); needs --cgroup
    #[arg(long, value_name = "SIZE")]
    pub swap_max: Option<Bytes>,
    /// How far equal pages may be merged: zero, vm, domain=NAME or off [default: vm, once 'napa share' asks for it]
    #[arg(long, value_name = "EXTENT")]
    pub share: Option<ShareConfig>,
    /// Number of vCPUs, 1 to 64 [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub cpus: Option<u32>,
    /// Kernel: an ELF image with a PVH note (vmlinux) or a bzImage [default: the embedded guest]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line [default with --kernel: console=ttyS0, and root=/dev/vda rw if there is a disk]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Disk: path=FILE[,readonly][,format=raw][,cache=none|writeback][,queues=N][,serial=TEXT]; repeatable
    #[arg(long = "disk", value_name = "KEY=VALUE,...")]
    pub disks: Vec<DiskConfig>,
    /// Read-only image in the guest's memory, shared with all VMs that have it: path=FILE; repeatable
    #[arg(long = "pmem", value_name = "KEY=VALUE,...")]
    pub pmems: Vec<PmemConfig>,
    /// Network card: tap=NAME[,mac=ADDRESS][,queues=N][,mtu=BYTES]; repeatable
    #[arg(long = "net", value_name = "KEY=VALUE,...")]
    pub nets: Vec<NetConfig>,
    /// Socket to the host: cid=N,path=SOCKET
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub vsock: Option<VsockConfig>,
    /// Entropy device: on or off [default: on]
    #[arg(long, value_name = "SWITCH", num_args = 0..=1, default_missing_value = "on", hide_possible_values = true)]
    pub rng: Option<Switch>,
    /// Memory balloon: on, no-reporting (the guest does not tell what it frees) or off [default: on]
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "on")]
    pub balloon: Option<BalloonConfig>,
    /// Where the consoles go: stdio, off, file=FILE or socket=SOCKET [default: stdio]
    #[arg(long, value_name = "WHERE")]
    pub console: Option<ConsoleConfig>,
    /// File to which what the guest writes on its consoles is added as well, until it has 4M [default: none]
    #[arg(long, value_name = "FILE")]
    pub console_log: Option<PathBuf>,
    /// What a guest's reset does: restart or exit [default: restart]
    #[arg(long, value_name = "WHAT")]
    pub on_reboot: Option<OnReboot>,
    /// How long an orderly stop may take before it becomes a hard stop [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    /// Control socket to listen on [default with --name: NAME.sock in the runtime folder]
    #[arg(long, value_name = "SOCKET")]
    pub api_socket: Option<PathBuf>,
    /// Write how the VM ended to this file, as JSON: the exit code and the reason
    #[arg(long, value_name = "FILE")]
    pub exit_file: Option<PathBuf>,
    /// Give up all rights that the VM's process does not need; off only to debug napa itself [default: on]
    #[arg(long, value_name = "SWITCH", num_args = 0..=1, default_missing_value = "on")]
    pub sandbox: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is there, or happens.
    On,
    /// It is not, or does not.
    Off,
}

/// Runs a VM until it ends.
pub fn run(arguments: RunArgs) -> Result<ExitCode, Error> {
    // Opened first: the sandbox lets no file be opened later.
    let note = arguments.exit_file.as_deref().map(ExitFile::open).transpose()?;
    let ended = run_noted(arguments);
    if let Some(note) = note {
        note.write(&ended);
    }
    let exit = ended?;
    Ok(ExitCode::from(exit.code()))
}

fn run_noted(arguments: RunArgs) -> Result<Exit, Error> {
    let config = arguments.into_config(read_bounded)?;
    let config = with_control_socket(config)?;
    config.check().map_err(Error::bad_input)?;
    let exit = start(&config)?;
    if exit.code() != 0 {
        crate::output::warn(format_args!("{}: {}", config.name_or_default(), exit.describe()));
    }
    Ok(exit)
}

fn start(config: &VmConfig) -> Result<Exit, Error> {
    napa_vmm::run(config).map_err(|error| match error {
        RunError::BadInput(what) => Error::BadInput(what),
        RunError::Host(what) => Error::Failure(what),
    })
}

impl RunArgs {
    /// The VM `name` of a host; what belongs to one that runs by itself is refused.
    pub fn into_host_config(self, name: &str) -> Result<VmConfig, Error> {
        let own = [
            ("--name", self.name.as_deref().is_some_and(|other| other != name)),
            ("--api-socket", self.api_socket.is_some()),
            ("--exit-file", self.exit_file.is_some()),
        ];
        if let Some((flag, _)) = own.into_iter().find(|(_, is_given)| *is_given) {
            return Err(Error::bad_input(format!("{flag} is the host's to choose: leave it out")));
        }
        let mut config = self.into_config(read_bounded)?;
        config.name = Some(name.to_owned());
        Ok(config)
    }

    /// The file first, then the flags. `read` gives the text of a file.
    fn into_config(self, read: impl FnOnce(&Path) -> io::Result<String>) -> Result<VmConfig, Error> {
        let mut config = match &self.config {
            Some(path) => read_config(path, read)?,
            None => VmConfig::default(),
        };
        replace_optional(&mut config.name, self.name);
        replace(&mut config.memory, self.memory);
        replace_optional(&mut config.hotplug_memory, self.hotplug_memory);
        replace_optional(&mut config.cgroup, self.cgroup);
        replace_optional(&mut config.memory_low, self.memory_low);
        replace_optional(&mut config.swap_max, self.swap_max);
        replace(&mut config.cpus, self.cpus);
        replace_optional(&mut config.kernel, self.kernel);
        replace_optional(&mut config.initrd, self.initrd);
        replace_optional(&mut config.cmdline, self.cmdline);
        replace(&mut config.console, self.console);
        replace_optional(&mut config.console_log, self.console_log);
        replace(&mut config.rng, self.rng.map(|switch| switch == Switch::On));
        replace(&mut config.balloon, self.balloon);
        replace(&mut config.huge_pages, self.huge_pages.map(|switch| switch == Switch::On));
        replace(&mut config.sandbox, self.sandbox.map(|switch| switch == Switch::On));
        replace(&mut config.on_reboot, self.on_reboot);
        replace(&mut config.stop_timeout_s, self.stop_timeout);
        replace_optional(&mut config.api_socket, self.api_socket);
        replace_optional(&mut config.vsock, self.vsock);
        replace_optional(&mut config.share, self.share);
        config.disks.extend(self.disks);
        config.nets.extend(self.nets);
        config.pmems.extend(self.pmems);
        Ok(config)
    }
}

fn read_config(path: &Path, read: impl FnOnce(&Path) -> io::Result<String>) -> Result<VmConfig, Error> {
    let shown = path.display();
    let text = read(path).map_err(|error| {
        Error::bad_input(format!("--config {shown}: cannot read it: {}", explain(&error)))
    })?;
    VmConfig::from_toml(&text).map_err(|error| Error::bad_input(format!("--config {shown}: {error}")))
}

/// Reads a file that may turn out to be a device without an end.
fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 {
        length if length > CONFIG_BYTES_MAX => Err(io::ErrorKind::FileTooLarge.into()),
        _ => Ok(text),
    }
}

/// Says in the user's words what the kernel said in its own.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file: check the path".into(),
        io::ErrorKind::PermissionDenied => {
            "you may not read it: run napa as its owner, or change its mode".into()
        }
        io::ErrorKind::IsADirectory => "it is a folder: name the TOML file in it".into(),
        io::ErrorKind::FileTooLarge => format!("it has more than {CONFIG_BYTES_MAX} bytes: name a TOML file"),
        io::ErrorKind::InvalidData => "it is not text: name a TOML file in UTF-8".into(),
        _ => error.to_string(),
    }
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn replace_optional<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
    }
}

/// A named VM listens where the other verbs look for it. The folder is for its user alone.
fn with_control_socket(mut config: VmConfig) -> Result<VmConfig, Error> {
    let (Some(name), None) = (&config.name, &config.api_socket) else { return Ok(config) };
    napa_api::config::check_name(name).map_err(Error::bad_input)?;
    let folder = control::socket_folder(crate::client::runtime_dir().as_deref());
    make_private_folder(&folder).map_err(|error| {
        let folder = folder.display();
        Error::bad_input(format!(
            "--name {name}: cannot make the folder {folder} for its control socket: {error}; name a socket with --api-socket, or set XDG_RUNTIME_DIR"
        ))
    })?;
    config.api_socket = Some(control::socket_path(name, crate::client::runtime_dir().as_deref()));
    Ok(config)
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{StartVerb, Verb, parse};

    fn arguments(words: &[String]) -> Result<RunArgs, Error> {
        let all = ["napa".to_owned(), "run".to_owned()].into_iter().chain(words.iter().cloned());
        match parse(all.map(Into::into))? {
            Verb::Start(StartVerb::Run(arguments)) => Ok(*arguments),
            Verb::Other(_) => panic!("run was asked for"),
        }
    }

    fn config(words: &[String], file: &str) -> Result<VmConfig, Error> {
        arguments(words)?.into_config(|_| Ok(file.to_owned()))
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// The flags that say what `config` says.
    fn flags(config: &VmConfig) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let optional = [
            ("name", config.name.clone()),
            ("hotplug-memory", config.hotplug_memory.as_ref().map(ToString::to_string)),
            ("cgroup", config.cgroup.as_ref().map(ToString::to_string)),
            ("memory-low", config.memory_low.as_ref().map(ToString::to_string)),
            ("swap-max", config.swap_max.as_ref().map(ToString::to_string)),
            ("kernel", config.kernel.as_ref().map(path)),
            ("initrd", config.initrd.as_ref().map(path)),
            ("cmdline", config.cmdline.clone()),
            ("api-socket", config.api_socket.as_ref().map(path)),
            ("console-log", config.console_log.as_ref().map(path)),
            ("vsock", config.vsock.as_ref().map(ToString::to_string)),
            ("share", config.share.as_ref().map(ToString::to_string)),
        ];
        let always = [
            ("memory", config.memory.to_string()),
            ("cpus", config.cpus.to_string()),
            ("console", config.console.to_string()),
            ("rng", if config.rng { "on" } else { "off" }.to_owned()),
            ("balloon", config.balloon.name().to_owned()),
            ("huge-pages", if config.huge_pages { "on" } else { "off" }.to_owned()),
            ("sandbox", if config.sandbox { "on" } else { "off" }.to_owned()),
            ("on-reboot", config.on_reboot.name().to_owned()),
            ("stop-timeout", config.stop_timeout_s.to_string()),
        ];
        let optional = optional.into_iter().filter_map(|(flag, value)| value.map(|value| (flag, value)));
        let disks = config.disks.iter().map(|disk| ("disk", disk.to_string()));
        let nets = config.nets.iter().map(|net| ("net", net.to_string()));
        let pmems = config.pmems.iter().map(|pmem| ("pmem", pmem.to_string()));
        let all = optional.chain(always).chain(disks).chain(nets).chain(pmems);
        all.map(|(flag, value)| format!("--{flag}={value}")).collect()
    }

    #[test]
    fn without_flags_it_is_the_default_machine() {
        assert_eq!(config(&[], "").unwrap(), VmConfig::default());
    }

    #[test]
    fn flags_override_the_file_and_devices_are_added_to_it() {
        let file = "cpus = 2\nmemory = '1G'\n[[disk]]\npath = 'a'\n";
        let config = config(&words("--config f --cpus 4 --disk path=b --rng off"), file).unwrap();
        assert_eq!((config.cpus, config.memory, config.rng), (4, Bytes::gib(1), false));
        assert_eq!(
            config.disks.iter().map(|disk| disk.path.to_str().unwrap()).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }

    #[test]
    fn a_lone_switch_means_on() {
        assert!(config(&words("--config f --rng"), "rng = false").unwrap().rng);
    }

    #[test]
    fn a_wrong_file_is_named_with_line_and_column() {
        let error = config(&words("--config vm.toml"), "cpus = 1\ncups = 2").unwrap_err();
        assert!(
            error.to_string().starts_with("--config vm.toml: line 2, column 1: unknown field 'cups'"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn flags_lose_nothing(expected in napa_api::config::strategies::config()) {
            prop_assert_eq!(config(&flags(&expected), "").unwrap(), expected);
        }

        #[test]
        fn flags_that_repeat_a_file_lose_nothing(expected in napa_api::config::strategies::config()) {
            let devices_in_flags = VmConfig { disks: vec![], nets: vec![], pmems: vec![], ..expected.clone() };
            let mut words = words("--config f");
            words.extend(flags(&devices_in_flags));
            prop_assert_eq!(config(&words, &expected.to_toml().unwrap()).unwrap(), expected);
        }
    }
}
