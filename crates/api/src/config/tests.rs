//! Configurations as wholes: what is refused, and that words and files lose nothing.

use proptest::prelude::*;

use super::strategies;
use super::{ConfigError, ConsoleConfig, VmConfig};

fn check(change: impl FnOnce(&mut VmConfig), expected: &str) {
    let mut config = VmConfig::default();
    change(&mut config);
    let found = config.check().map_err(|error| error.to_string()).err().unwrap_or_default();
    if expected.is_empty() {
        assert_eq!(found, "");
    } else {
        assert!(found.contains(expected), "expected '{expected}', found '{found}'");
    }
}

fn disks(texts: &[&str], expected: &str) {
    check(|config| config.disks = texts.iter().map(|text| text.parse().unwrap()).collect(), expected);
}

fn nets(texts: &[&str], expected: &str) {
    check(|config| config.nets = texts.iter().map(|text| text.parse().unwrap()).collect(), expected);
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

#[test]
fn the_default_is_a_machine() {
    check(|_| (), "");
}

#[test]
fn a_name_is_short_and_plain() {
    for name in ["a", "0", "web-1.example_x", &text(64)] {
        check(|config| config.name = Some(name.into()), "");
    }
    for name in ["", "-a", ".a", "a/b", "a b", "ä", "a\n", &text(65)] {
        check(|config| config.name = Some(name.into()), "cannot be a VM's name");
    }
}

#[test]
fn a_trust_domain_has_a_name_like_a_vms() {
    let domain = |name: &str| {
        let share = Some(super::ShareConfig::Domain(name.into()));
        move |config: &mut VmConfig| config.share = share
    };
    check(domain("web-1"), "");
    for name in ["", "a b", "-a", &text(65)] {
        check(domain(name), "cannot be a trust domain's name");
    }
}

#[test]
fn processors_and_memory_are_within_bounds() {
    check(|config| config.cpus = 64, "");
    check(|config| config.cpus = 0, "--cpus 0 is out of range: a VM has 1 to 64 vCPUs");
    check(|config| config.cpus = 65, "--cpus 65 is out of range");
    let memory = |text: &'static str| move |config: &mut VmConfig| config.memory = text.parse().unwrap();
    check(memory("4K"), "");
    check(memory("64T"), "");
    check(memory("0"), "--memory 0 leaves the guest nothing to run in");
    check(memory("4097"), "--memory 4097 is not a whole number of 4 KiB pages: the next one is 8K");
    check(memory("65T"), "--memory 65T is more than a guest can address: at most 64T");
    check(|config| config.stop_timeout_s = 86_401, "--stop-timeout 86401 is too long");
}

#[test]
fn what_boots_belongs_together() {
    check(|config| config.initrd = Some("i".into()), "--initrd needs --kernel");
    check(|config| config.kernel = Some("".into()), "--kernel has an empty path");
    check(|config| config.cmdline = Some(text(2047)), "");
    check(|config| config.cmdline = Some(text(2048)), "--cmdline has 2048 bytes");
    check(|config| config.cmdline = Some("a\nb".into()), "--cmdline holds the control character '\\n'");
}

#[test]
fn a_writer_has_its_image_alone() {
    disks(&["path=a,readonly", "path=a,readonly", "path=b"], "");
    disks(&["path=a", "path=a"], "--disk path=a is there twice");
    disks(&["path=a", "path=./a,readonly"], "--disk path=./a is there twice");
    disks(&["path=/x/a", "path=/x/./a"], "is there twice");
    disks(&["path=a,serial=root disk 1"], "");
    disks(&["path=a,serial=123456789012345678901"], "cannot be a serial number");
    disks(&["path=a,serial=ä"], "cannot be a serial number");
}

#[test]
fn an_image_in_memory_has_no_writer() {
    let words = |disk: &str, pmem: &str, expected: &str| {
        check(
            |config| {
                config.disks = vec![disk.parse().unwrap()];
                config.pmems = vec![pmem.parse().unwrap(); 2];
            },
            expected,
        );
    };
    words("path=a", "path=b", "");
    words("path=a,readonly", "path=a", "");
    words("path=./a", "path=a", "--pmem path=a is also a --disk, which would write to it");
}

#[test]
fn each_network_card_has_a_tap_and_an_address_of_its_own() {
    nets(&["tap=a", "tap=b"], "");
    nets(&["tap=a", "tap=a"], "--net tap=a is there twice");
    nets(&["tap=a,mac=02:00:00:00:00:01", "tap=b,mac=02:00:00:00:00:01"], "belongs to two network cards");
    nets(
        &["tap=a,mac=01:00:00:00:00:01"],
        "is a multicast address: use a unicast address, such as 02:00:00:00:00:01",
    );
    nets(&["tap=a,mac=00:00:00:00:00:00"], "is no address at all");
    for tap in ["a b", "a/b", "tap%d", "..", "sixteen-letters-"] {
        nets(&[&format!("tap={tap}")], "cannot be an interface");
    }
}

#[test]
fn an_explicit_address_may_not_be_a_derived_one() {
    let derived = VmConfig { nets: vec!["tap=a".parse().unwrap()], ..VmConfig::default() }.mac_of(0).unwrap();
    nets(&["tap=a", &format!("tap=b,mac={derived}")], "belongs to two network cards");
}

#[test]
fn what_only_a_file_can_say_is_checked_too() {
    for (toml, expected) in [
        ("[[disk]]\npath = ''", "--disk path has an empty path"),
        ("[[disk]]\npath = 'a'\nqueues = 0", "--disk queues=0 is out of range"),
        ("[[disk]]\npath = 'a'\nserial = ''", "cannot be a serial number"),
        ("[[net]]\ntap = 'a'\nqueues = 65", "--net queues=65 is out of range"),
        ("[[net]]\ntap = 'a'\nmtu = 10", "--net mtu=10 is out of range"),
        ("[[pmem]]\npath = ''", "--pmem path has an empty path"),
        ("vsock = { cid = 2, path = 'v' }", "--vsock cid=2 is reserved"),
        ("vsock = { cid = 4294967295, path = 'v' }", "is reserved"),
        ("vsock = { cid = 3, path = '' }", "--vsock path has an empty path"),
        ("console = { file = '' }", "--console file has an empty path"),
    ] {
        let config = VmConfig::from_toml(toml).unwrap();
        check(|default| *default = config, expected);
    }
}

#[test]
fn socket_paths_fit_and_differ() {
    check(|config| config.api_socket = Some(text(107).into()), "");
    check(|config| config.api_socket = Some(text(108).into()), "--api-socket has 108 bytes");
    let long = text(97);
    check(
        |config| config.vsock = Some(format!("cid=3,path={long}").parse().unwrap()),
        "--vsock path has 97 bytes, and a Unix socket's path at most 96",
    );
    check(
        |config| {
            config.console = ConsoleConfig::Socket("s".into());
            config.api_socket = Some("./s".into());
        },
        "--console socket and --api-socket have the same path s",
    );
}

#[test]
fn an_error_is_one_line() {
    let error = ConfigError::Name("a\nb".into()).to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
}

proptest! {
    #[test]
    fn a_file_loses_nothing(config in strategies::config()) {
        let text = config.to_toml().unwrap();
        prop_assert_eq!(VmConfig::from_toml(&text), Ok(config), "{}", text);
    }

    #[test]
    fn flags_lose_nothing(config in strategies::config()) {
        for disk in &config.disks {
            prop_assert_eq!(disk.to_string().parse(), Ok(disk.clone()));
        }
        for net in &config.nets {
            prop_assert_eq!(net.to_string().parse(), Ok(net.clone()));
        }
        for pmem in &config.pmems {
            prop_assert_eq!(pmem.to_string().parse(), Ok(pmem.clone()));
        }
        if let Some(vsock) = &config.vsock {
            prop_assert_eq!(vsock.to_string().parse(), Ok(vsock.clone()));
        }
        prop_assert_eq!(config.console.to_string().parse(), Ok(config.console));
        prop_assert_eq!(config.on_reboot.name().parse(), Ok(config.on_reboot));
        if let Some(share) = &config.share {
            prop_assert_eq!(share.to_string().parse(), Ok(share.clone()));
        }
    }

    #[test]
    fn json_loses_nothing(config in strategies::config()) {
        let text = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(serde_json::from_str::<VmConfig>(&text).unwrap(), config);
    }

    #[test]
    fn any_text_is_taken_or_refused_in_one_line(text in "\\PC{0,60}") {
        let errors = [
            text.parse::<super::DiskConfig>().err().map(|error| error.to_string()),
            text.parse::<super::NetConfig>().err().map(|error| error.to_string()),
            text.parse::<super::PmemConfig>().err().map(|error| error.to_string()),
            text.parse::<super::VsockConfig>().err().map(|error| error.to_string()),
            VmConfig::from_toml(&text).err().map(|error| error.to_string()),
        ];
        for error in errors.into_iter().flatten() {
            prop_assert!(!error.contains('\n'), "{}", error);
        }
    }

    #[test]
    fn checking_never_panics(config in strategies::config()) {
        let _ = config.check();
    }
}
