//! The balloon as a driver sees it.

mod asking;
mod hostile;
mod pages;
mod rig;
