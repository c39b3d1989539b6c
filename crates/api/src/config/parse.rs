//! Configuration as words of a command line: `FromStr` reads a flag's value, `Display` writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::check::{MTU_MIN, QUEUES_MAX, VSOCK_CID_MAX, VSOCK_CID_MIN};
use super::words::{Word, WordError, Writer, parse_number, split};
use super::{
    BalloonConfig, CacheMode, ConsoleConfig, DiskConfig, DiskFormat, NetConfig, OnReboot, PmemConfig,
    VsockConfig,
};

const A_FILE: &str = "the name of a file";
const A_SOCKET: &str = "the path of a Unix socket";
const A_TAP: &str = "the name of a tap device";
const A_MAC: &str = "six pairs of hexadecimal digits, such as 02:00:5e:10:00:01";
const A_QUEUE_COUNT: &str = "a whole number from 1 to 64";
const AN_MTU: &str = "a whole number from 68 to 65535";
const A_CID: &str = "a whole number from 3 to 4294967294";
const A_SERIAL: &str = "1 to 20 printable ASCII characters";

impl FromStr for DiskConfig {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let (mut path, mut disk) = (None, Self::raw(PathBuf::new()));
        for word in split(text, &["path", "readonly", "format", "cache", "queues", "serial"])? {
            match word.key {
                "path" => path = Some(PathBuf::from(word.value(A_FILE)?)),
                "readonly" => disk.readonly = word.switch()?,
                "format" => disk.format = word.value_as("raw", DiskFormat::parse)?,
                "cache" => disk.cache = word.value_as("none or writeback", CacheMode::parse)?,
                "queues" => disk.queues = Some(queues(word)?),
                "serial" => disk.serial = Some(word.value(A_SERIAL)?),
                _ => unreachable!("split knows only the keys above"),
            }
        }
        disk.path = path.ok_or(WordError::Missing { key: "path", allowed: A_FILE })?;
        Ok(disk)
    }
}

impl DiskConfig {
    /// A writable raw image without the page cache.
    pub fn raw(path: PathBuf) -> Self {
        Self {
            path,
            readonly: false,
            format: DiskFormat::Raw,
            cache: CacheMode::None,
            queues: None,
            serial: None,
        }
    }
}

impl fmt::Display for DiskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Writer::default();
        words.value("path", self.path.display());
        if self.readonly {
            words.key("readonly");
        }
        words.value("format", self.format.name());
        words.value("cache", self.cache.name());
        if let Some(queues) = self.queues {
            words.value("queues", queues);
        }
        if let Some(serial) = &self.serial {
            words.value("serial", serial);
        }
        f.write_str(&words.finish())
    }
}

impl DiskFormat {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        (text == Self::Raw.name()).then_some(Self::Raw)
    }
}

impl CacheMode {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Writeback => "writeback",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Writeback].into_iter().find(|mode| mode.name() == text)
    }
}

impl FromStr for NetConfig {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let (mut tap, mut mac, mut queue_pairs, mut mtu) = (None, None, None, None);
        for word in split(text, &["tap", "mac", "queues", "mtu"])? {
            match word.key {
                "tap" => tap = Some(word.value(A_TAP)?),
                "mac" => mac = Some(word.value_as(A_MAC, |text| text.parse().ok())?),
                "queues" => queue_pairs = Some(queues(word)?),
                "mtu" => mtu = Some(word.value_as(AN_MTU, |text| parse_number(text, MTU_MIN..=u16::MAX))?),
                _ => unreachable!("split knows only the keys above"),
            }
        }
        let tap = tap.ok_or(WordError::Missing { key: "tap", allowed: A_TAP })?;
        Ok(Self { tap, mac, queues: queue_pairs, mtu })
    }
}

impl fmt::Display for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Writer::default();
        words.value("tap", &self.tap);
        if let Some(mac) = self.mac {
            words.value("mac", mac);
        }
        if let Some(queues) = self.queues {
            words.value("queues", queues);
        }
        if let Some(mtu) = self.mtu {
            words.value("mtu", mtu);
        }
        f.write_str(&words.finish())
    }
}

impl FromStr for PmemConfig {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let mut path = None;
        for word in split(text, &["path"])? {
            path = Some(PathBuf::from(word.value(A_FILE)?));
        }
        Ok(Self { path: path.ok_or(WordError::Missing { key: "path", allowed: A_FILE })? })
    }
}

impl fmt::Display for PmemConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Writer::default();
        words.value("path", self.path.display());
        f.write_str(&words.finish())
    }
}

impl FromStr for VsockConfig {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let (mut cid, mut path) = (None, None);
        for word in split(text, &["cid", "path"])? {
            match word.key {
                "cid" => {
                    let range = VSOCK_CID_MIN..=VSOCK_CID_MAX;
                    cid = Some(word.value_as(A_CID, |text| parse_number(text, range))?);
                }
                "path" => path = Some(PathBuf::from(word.value(A_SOCKET)?)),
                _ => unreachable!("split knows only the keys above"),
            }
        }
        let cid = cid.ok_or(WordError::Missing { key: "cid", allowed: A_CID })?;
        let path = path.ok_or(WordError::Missing { key: "path", allowed: A_SOCKET })?;
        Ok(Self { cid, path })
    }
}

impl fmt::Display for VsockConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Writer::default();
        words.value("cid", self.cid);
        words.value("path", self.path.display());
        f.write_str(&words.finish())
    }
}

impl FromStr for ConsoleConfig {
    type Err = ConsoleError;

    fn from_str(text: &str) -> Result<Self, ConsoleError> {
        let path = |path: &str| PathBuf::from(path);
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "off" => Ok(Self::Off),
            Some(("file", file)) if !file.is_empty() => Ok(Self::File(path(file))),
            Some(("socket", socket)) if !socket.is_empty() => Ok(Self::Socket(path(socket))),
            _ => Err(ConsoleError(text.to_owned())),
        }
    }
}

/// Why a text does not say where the consoles go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a console: write stdio, off, file=FILE or socket=SOCKET")]
pub struct ConsoleError(String);

impl fmt::Display for ConsoleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::File(path) => write!(f, "file={}", path.display()),
            Self::Socket(path) => write!(f, "socket={}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

impl OnReboot {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Exit => "exit",
        }
    }
}

impl FromStr for OnReboot {
    type Err = OnRebootError;

    fn from_str(text: &str) -> Result<Self, OnRebootError> {
        [Self::Restart, Self::Exit]
            .into_iter()
            .find(|choice| choice.name() == text)
            .ok_or_else(|| OnRebootError(text.to_owned()))
    }
}

/// Why a text does not say what a guest's reset does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a choice: write restart or exit")]
pub struct OnRebootError(String);

impl BalloonConfig {
    const ALL: [Self; 3] = [Self::On, Self::NoReporting, Self::Off];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::NoReporting => "no-reporting",
            Self::Off => "off",
        }
    }
}

impl FromStr for BalloonConfig {
    type Err = BalloonConfigError;

    fn from_str(text: &str) -> Result<Self, BalloonConfigError> {
        let choice = Self::ALL.into_iter().find(|choice| choice.name() == text);
        choice.ok_or_else(|| BalloonConfigError(text.to_owned()))
    }
}

/// Why a text does not say whether there is a balloon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a choice: write on, no-reporting or off")]
pub struct BalloonConfigError(String);

fn queues(word: Word) -> Result<u16, WordError> {
    word.value_as(A_QUEUE_COUNT, |text| parse_number(text, 1..=QUEUES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: FromStr<Err: fmt::Display> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().err().map(|error| error.to_string()).unwrap_or_else(|| format!("{text} was taken"))
    }

    #[test]
    fn a_disk_is_read_with_all_its_keys() {
        let disk: DiskConfig =
            "path=a,,b.img,readonly,format=raw,cache=writeback,queues=4,serial=root".parse().unwrap();
        let expected = DiskConfig {
            path: "a,b.img".into(),
            readonly: true,
            format: DiskFormat::Raw,
            cache: CacheMode::Writeback,
            queues: Some(4),
            serial: Some("root".into()),
        };
        assert_eq!(disk, expected);
        assert_eq!("path=x,readonly=off".parse(), Ok(DiskConfig::raw("x".into())));
    }

    #[test]
    fn a_network_card_and_a_vsock_are_read_with_all_their_keys() {
        let net: NetConfig = "tap=tap0,mac=02:00:00:00:00:01,queues=2,mtu=9000".parse().unwrap();
        let mac = Some(crate::config::MacAddress([2, 0, 0, 0, 0, 1]));
        assert_eq!(net, NetConfig { tap: "tap0".into(), mac, queues: Some(2), mtu: Some(9000) });
        let vsock: VsockConfig = "path=/run/v.sock,cid=3".parse().unwrap();
        assert_eq!(vsock, VsockConfig { cid: 3, path: "/run/v.sock".into() });
    }

    #[test]
    fn an_error_names_the_key_the_value_and_what_is_allowed() {
        for (found, expected) in [
            (error::<DiskConfig>(""), "'path' is missing: add 'path=...' with the name of a file"),
            (error::<DiskConfig>("path="), "'path' has no value: write 'path=...' with the name of a file"),
            (
                error::<DiskConfig>("path=a,queues=0"),
                "'queues=0' is not possible: queues takes a whole number from 1 to 64",
            ),
            (
                error::<DiskConfig>("path=a,cache=writethrough"),
                "'cache=writethrough' is not possible: cache takes none or writeback",
            ),
            (
                error::<DiskConfig>("path=a,readonly=yes"),
                "'readonly=yes' is not possible: readonly takes on or off",
            ),
            (error::<DiskConfig>("path=a,format=qcow2"), "'format=qcow2' is not possible: format takes raw"),
            (
                error::<NetConfig>("mac=1"),
                "'mac=1' is not possible: mac takes six pairs of hexadecimal digits, such as 02:00:5e:10:00:01",
            ),
            (
                error::<NetConfig>("tap=t,mtu=67"),
                "'mtu=67' is not possible: mtu takes a whole number from 68 to 65535",
            ),
            (error::<NetConfig>("tap"), "'tap' has no value: write 'tap=...' with the name of a tap device"),
            (
                error::<VsockConfig>("path=v"),
                "'cid' is missing: add 'cid=...' with a whole number from 3 to 4294967294",
            ),
            (
                error::<VsockConfig>("path=v,cid=2"),
                "'cid=2' is not possible: cid takes a whole number from 3 to 4294967294",
            ),
            (
                error::<ConsoleConfig>("tty"),
                "'tty' is not a console: write stdio, off, file=FILE or socket=SOCKET",
            ),
            (error::<BalloonConfig>("none"), "'none' is not a choice: write on, no-reporting or off"),
            (
                error::<PmemConfig>("root.img"),
                "unknown key 'root.img', did you mean 'path=root.img'?; the keys are path",
            ),
            (error::<PmemConfig>(""), "'path' is missing: add 'path=...' with the name of a file"),
            (error::<OnReboot>("halt"), "'halt' is not a choice: write restart or exit"),
        ] {
            assert_eq!(found, expected);
        }
    }
}
