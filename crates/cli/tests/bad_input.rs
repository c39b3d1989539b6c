//! Words and files that cannot be used: one error line, exit code 2, and nothing left behind.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs napa in a folder of its own, on words that may not be used.
fn napa(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_napa"))
        .args(words)
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// One line that names the fault, exit code 2, no output, and the folder as it was.
fn check(words: &[&str], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let before = names(folder.path());
    let output = napa(folder.path(), words);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{words:?}: {error}");
    assert!(error.starts_with("napa: error: ") && error.contains(expected), "{words:?}: {error}");
    assert!(output.stdout.is_empty(), "{words:?}");
    assert_eq!(names(folder.path()), before, "{words:?}");
}

fn prepare(folder: &Path) {
    fs::write(folder.join("text"), "no kernel, no disk, no socket\n").unwrap();
    fs::write(folder.join("truncated"), b"\x7fELF\x02\x01\x01").unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    fs::write(folder.join("disk"), vec![0; 4096]).unwrap();
    fs::write(folder.join("odd"), vec![0; 1000]).unwrap();
    fs::write(folder.join("wrong.toml"), "cpus = 1\nmemroy = '1G'\n").unwrap();
    fs::write(folder.join("two.toml"), "[[disk]]\npath = 'disk'\n").unwrap();
    fs::File::create(folder.join("vast")).unwrap().set_len(12 << 40).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // The folder of control sockets stays; it must be empty.
        .filter(|name| name != "napa" || fs::read_dir(folder.join(name)).unwrap().count() > 0)
        .collect();
    names.sort();
    names
}

#[test]
fn words_that_no_verb_takes_are_refused() {
    check(&[], "no verb is given");
    check(&["rnu"], "did you mean 'run'?");
    check(&["run", "--memroy", "1G"], "did you mean '--memory'?");
    check(&["run", "--memory", "1.5G"], "--memory: '1.5G' is not a size");
    check(&["run", "--memory"], "--memory has no value");
    check(&["run", "extra"], "unknown argument 'extra'");
    check(&["run", "--disk", "pth=x"], "--disk: unknown key 'pth', did you mean 'path'?");
    check(&["run", "--cpus", "1", "--cpus", "2"], "--cpus is given twice");
    check(&["completions", "tcsh"], "'tcsh' is not possible");
    check(&["stop"], "<VM> is missing");
    check(&["run", "--disk", ""], "--disk: 'path' is missing");
    check(&["run", "--memory", ""], "--memory: '' is not a size");
    check(&["run", "--name", ""], "--name");
}

#[test]
fn words_that_contradict_each_other_are_refused() {
    check(&["run", "--cpus", "0"], "--cpus 0 is out of range");
    check(&["run", "--cpus", "65"], "1 to 64 vCPUs");
    check(&["run", "--memory", "0"], "--memory 0");
    check(&["run", "--memory", "4097"], "the next one is 8K");
    check(&["run", "--name", "a/b"], "cannot be a VM's name");
    check(&["run", "--name", "web", "--cpus", "0"], "--cpus 0 is out of range");
    check(&["run", "--initrd", "text"], "--initrd needs --kernel");
    check(&["run", "--disk", "path=disk", "--disk", "path=./disk"], "is there twice");
    check(&["run", "--disk", "path=disk", "--pmem", "path=./disk"], "is also a --disk");
    check(&["run", "--config", "two.toml", "--disk", "path=disk"], "is there twice");
    check(&["run", "--net", "tap=a", "--net", "tap=a"], "is there twice");
    check(&["run", "--net", "tap=a,mac=01:00:00:00:00:00"], "is a multicast address");
    check(&["run", "--vsock", "cid=2,path=v"], "'cid=2' is not possible");
    check(&["run", "--cmdline", "a\nb"], "control character");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    check(&["run", "--config", "absent"], "--config absent: cannot read it");
    check(&["run", "--config", "folder"], "it is a folder");
    check(&["run", "--config", "/dev/zero"], "it has more than 1048576 bytes");
    check(&["run", "--config", ""], "--config has no value");
    check(&["run", "--config", "truncated"], "--config truncated: line 1");
    check(&["run", "--config", "wrong.toml"], "line 2, column 1: unknown field 'memroy'");
    check(&["guest-image", "-o", "folder"], "--output folder: cannot write it");
    check(&["man", "-o", "text"], "--output text: cannot write the pages");
}

#[test]
fn a_vm_that_does_not_run_is_not_found() {
    check(&["status", "web"], "no named VM runs");
    check(&["status", &format!("./{}", "x".repeat(120))], "too long for a socket's path");
    check(&["stop", "./text"], "nobody listens on ./text");
    check(&["kill", "-x"], "unknown argument '-x'");
    check(&["pause", "a b"], "neither a VM's name nor a socket's path");
}

#[test]
fn images_that_cannot_be_used_are_named() {
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: there is no /dev/kvm");
        return;
    }
    for image in ["absent", "folder", "text", "truncated", "empty"] {
        check(&["run", "--kernel", image], image);
    }
    for image in ["absent", "folder", "odd", "empty"] {
        check(&["run", "--disk", &format!("path={image}")], image);
    }
    for (image, words) in [("absent", "does not exist"), ("folder", "is a folder"), ("empty", "is empty")] {
        check(&["run", "--pmem", &format!("path={image}")], &format!("--pmem {image} {words}"));
    }
    check(&["run", "--pmem", "path=vast"], "--pmem vast is too large");
    check(&["run", "--memory", "4K"], "--memory 4K");
    check(&["run", "--memory", "60T"], "is more than this host has");
    check(&["run", "--console", "file=absent/console"], "absent/console");
    check(&["run", "--console", "socket=text"], "text");
    check(&["run", "--api-socket", "absent/socket"], "absent/socket");
    check(&["run", "--api-socket", "text"], "text");
    check(&["run", "--vsock", "cid=3,path=absent/vsock"], "absent/vsock");
}
