//! Builds the guest program: a package of its own, with its own lock file, target folder and compiler flags.
//!
//! The flags of the surrounding build (configuration files, RUSTFLAGS, a build target, wrappers for coverage or lints)
//! are meant for the host's binaries and would break a program that has no operating system. So everything that
//! steers a compiler is taken out of the environment and set anew.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Present wherever the host's toolchain is: the guest needs no other.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAM: &str = "napa-guest";
/// Low and fixed addresses: ring 3 cannot use the upper half, and nothing relocates the image.
const FLAGS: [&str; 2] = ["-Crelocation-model=static", "-Ctarget-cpu=x86-64"];
/// What the program is made of, beside its folders of sources.
const FILES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "build.rs", "link.ld"];
const FOLDERS: [&str; 2] = ["src", "logic"];

fn main() {
    let program = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("program");
    let target_folder = PathBuf::from(variable("OUT_DIR")).join("program");
    println!("cargo:rerun-if-changed=build.rs");
    for input in FILES.iter().chain(&FOLDERS) {
        println!("cargo:rerun-if-changed={}", program.join(input).display());
    }
    let image = build(&program, &target_folder);
    println!("cargo:rustc-env=NAPA_GUEST_IMAGE={}", image.display());
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}

/// Builds the ELF and gives its path.
fn build(program: &Path, target_folder: &Path) -> PathBuf {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--release", "--locked", "--quiet", "--bin", PROGRAM, "--target", TARGET])
        .arg("--manifest-path")
        .arg(program.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_folder)
        .current_dir(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| steers_a_compiler(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    // It takes precedence over every configuration file, and its separator is the unit separator of ASCII.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status =
        cargo.status().unwrap_or_else(|error| panic!("cannot start cargo for the guest program: {error}"));
    assert!(status.success(), "the guest program does not build: see the messages of the compiler above");
    target_folder.join(TARGET).join("release").join(PROGRAM)
}

/// Whether the variable `name` belongs to the build around this one.
fn steers_a_compiler(name: &str) -> bool {
    const EXACT: [&str; 7] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "MAKEFLAGS",
        "OUT_DIR",
    ];
    const PREFIXES: [&str; 9] = [
        "CARGO_ENCODED_",
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_UNSTABLE_",
    ];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
