//! Messages of a host's daemon: HTTP and JSON on a Unix socket.
//!
//! The daemon, the verbs that talk to it and its live views share these types. With the feature `schema` each says what
//! it looks like as JSON, which the daemon serves as an OpenAPI document. Nothing here opens a socket.

mod order;
mod place;
mod problem;
mod report;
mod vm;

pub use order::{BalloonOrder, ReclaimOrder, StopOrder};
pub use place::{HOST_SOCKET_FILE, host_socket, state_folder};
pub use problem::{PROBLEM_CONTENT_TYPE, Problem, ProblemKind};
pub use report::{
    Cooperation, Decided, Direction, Guarantees, HostFigures, HostReport, Level, SwapFigures, VmMemoryRow,
};
pub use vm::{
    CreateVm, Event, RestartPolicy, SHARES_DEFAULT, SHARES_MAX, Time, VmDetail, VmExit, VmList, VmState,
    VmSummary,
};
