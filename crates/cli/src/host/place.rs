//! Which daemon a verb speaks to.

use std::path::PathBuf;

use clap::Args;
use napa_api::config::check_name;
use napa_api::host::{Problem, ProblemKind, VmDetail, host_socket};
use napa_host::client::{Client, ClientError};

use crate::client::runtime_dir;
use crate::error::Error;

/// Which daemon.
#[derive(Args)]
pub struct HostArgs {
    /// Socket of 'napa host' [default: napa/host.sock in the runtime folder]
    #[arg(long, value_name = "SOCKET")]
    pub socket: Option<PathBuf>,
}

/// Where the daemon listens, unless somebody says otherwise.
pub fn default_socket() -> PathBuf {
    host_socket(runtime_dir().as_deref())
}

/// The daemon that these words mean.
pub fn client_for(arguments: &HostArgs) -> Client {
    Client::new(&arguments.socket.clone().unwrap_or_else(default_socket))
}

/// The path of a VM's resource.
///
/// # Errors
/// The word is no VM's name.
pub fn vm_path(name: &str, verb: &str) -> Result<String, Error> {
    check_name(name).map_err(|_| Error::bad_input(format!("'{name}' is not a VM's name")))?;
    Ok(format!("/v1/vms/{name}{verb}"))
}

/// All about a VM of the host. `None`: no daemon runs, or it has no such VM.
///
/// # Errors
/// The daemon does not answer as it should.
pub fn detail_if_there(client: &Client, name: &str) -> Result<Option<VmDetail>, Error> {
    match client.get(&vm_path(name, "")?) {
        Ok(detail) => Ok(Some(detail)),
        Err(ClientError::Absent(_) | ClientError::Denied(_)) => Ok(None),
        Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::UnknownVm => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Absent(_) | ClientError::Denied(_) => Self::bad_input(error),
            ClientError::Refused(problem) if is_bad_input(problem) => Self::bad_input(error),
            ClientError::Refused(_) | ClientError::Broken { .. } => Self::failure(error),
        }
    }
}

fn is_bad_input(problem: &Problem) -> bool {
    matches!(
        problem.kind,
        ProblemKind::BadRequest
            | ProblemKind::BadConfig
            | ProblemKind::UnknownVm
            | ProblemKind::NameInUse
            | ProblemKind::WrongState
            | ProblemKind::NotEnoughMemory
    )
}
