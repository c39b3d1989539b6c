//! What can be known about this host.
