//! Messages of a VM's control socket: JSON-RPC 2.0, one message a line.
