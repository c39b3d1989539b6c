//! Configuration as words of a command line.
