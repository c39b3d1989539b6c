//! `napa host`, and the verbs for the VMs of a host.

mod console;
mod create;
mod list;
mod place;
mod show;
mod verbs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use napa_host::daemon;
use napa_host::server::TlsPaths;
use napa_policy::Kind;
use napa_units::Bytes;

use crate::error::Error;

pub use console::{ConsoleArgs, console};
pub use create::{CreateArgs, create};
pub use list::{ListArgs, list};
pub use place::{HostArgs, client_for, detail_if_there};
pub use show::inspect_resting;
pub use verbs::{LogsArgs, RemoveArgs, VmArgs, kill, logs, pause, remove, resume, start, stop};

/// The flags of the daemon.
#[derive(Args)]
pub struct DaemonArgs {
    /// Folder for its state [default: /var/lib/napa for root, napa in the user's state folder otherwise]
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// Socket to listen on [default: napa/host.sock in the runtime folder]
    #[arg(long, value_name = "SOCKET")]
    pub socket: Option<PathBuf>,
    /// Group whose members may speak to it as well, by its name or number
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Address and port to listen on for those with a certificate
    #[arg(long, value_name = "ADDRESS", requires_all = ["tls_cert", "tls_key", "tls_client_ca"])]
    pub listen: Option<SocketAddr>,
    /// Its certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub tls_cert: Option<PathBuf>,
    /// The key of its certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub tls_key: Option<PathBuf>,
    /// The authority that signs the certificates of those who may speak to it, in PEM
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub tls_client_ca: Option<PathBuf>,
    /// RAM that VMs may hold together [default: all that the host does not keep for itself]
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Bytes>,
    /// RAM that the host keeps for itself [default: 256M and a 32nd of its RAM]
    #[arg(long, value_name = "SIZE")]
    pub reserve: Option<Bytes>,
    /// Who decides about memory: napa, static, ksm, mom, proxmox or swap [default: napa]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<Kind>,
}

/// Runs the daemon until it is asked to end.
pub fn host(arguments: &DaemonArgs) -> Result<ExitCode, Error> {
    let settings = settings(arguments)?;
    daemon::run(settings).map_err(|error| match error.is_bad_input() {
        true => Error::bad_input(error),
        false => Error::failure(error),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: &DaemonArgs) -> Result<daemon::Settings, Error> {
    let own = |name: &str| std::env::var_os(name);
    let is_root = rustix::process::geteuid().is_root();
    let state = arguments.state.clone().or_else(|| {
        napa_api::host::state_folder(is_root, own("XDG_STATE_HOME").as_deref(), own("HOME").as_deref())
    });
    let state = state.ok_or_else(|| {
        Error::bad_input("there is no folder for the state: name one with --state, or set XDG_STATE_HOME")
    })?;
    // VMs are told where their sockets are, and the daemon may be started in any folder.
    let state = std::path::absolute(&state)
        .map_err(|error| Error::bad_input(format!("--state {}: {error}", state.display())))?;
    let paths = (&arguments.tls_cert, &arguments.tls_key, &arguments.tls_client_ca);
    let listen = match (arguments.listen, paths) {
        (Some(address), (Some(certificate), Some(key), Some(client_authority))) => {
            let (certificate, key) = (certificate.clone(), key.clone());
            Some((address, TlsPaths { certificate, key, client_authority: client_authority.clone() }))
        }
        _ => None,
    };
    let memory = napa_host::tick::Settings { budget: arguments.budget, reserve: arguments.reserve };
    Ok(daemon::Settings {
        state,
        socket: arguments.socket.clone().unwrap_or_else(place::default_socket),
        group: arguments.group.clone(),
        listen,
        memory,
        policy: arguments.policy.unwrap_or_default(),
        program: PathBuf::from(crate::guests::SELF),
    })
}
