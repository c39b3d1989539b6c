//! What is written down about the domain that holds a host.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::controls::Settings;

/// Size of the file: one page, which the kernel writes whole or not at all, whoever is killed meanwhile.
const RECORD_BYTES: usize = 4096;
/// The first line.
const VERSION: &str = "napa-ksm 1";
/// The last line.
const END: &str = "end";
/// Members that are named; more of them hold the domain too, but nobody is told of them.
const MEMBERS_MAX: usize = 24;

/// VMs that may find out about each other's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// All that give this name.
    Named(String),
    /// One process alone.
    Process(u32),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "the trust domain '{name}'"),
            Self::Process(_) => f.write_str("a single VM"),
        }
    }
}

/// A VM that belongs to the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its process.
    pub pid: u32,
    /// What it is called; without blanks.
    pub name: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM '{}', process {}", self.name, self.pid)
    }
}

/// The file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub domain: Domain,
    /// Some of those that joined; those that were killed are still there.
    pub members: Vec<Member>,
    /// The settings as they were before the first one joined.
    pub saved: Settings,
}

impl Record {
    /// `None`: nothing is written there.
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; RECORD_BYTES];
        let mut filled = 0;
        while filled < RECORD_BYTES {
            match file.read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(std::str::from_utf8(&bytes[..filled]).ok().and_then(Self::parse))
    }

    pub fn write(&self, file: &File) -> io::Result<()> {
        let mut text = self.to_string().into_bytes();
        assert!(text.len() <= RECORD_BYTES, "names and members are bounded");
        text.resize(RECORD_BYTES, b'\n');
        file.write_all_at(&text, 0)
    }

    pub fn clear(file: &File) -> io::Result<()> {
        file.write_all_at(&[b'\n'; RECORD_BYTES], 0)
    }

    /// Adds a member, as far as there is room.
    pub fn add(&mut self, member: Member) {
        self.members.retain(|other| other.pid != member.pid);
        self.members.truncate(MEMBERS_MAX - 1);
        self.members.push(member);
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, _) = text.split_once(&format!("\n{END}\n"))?;
        let mut lines = head.lines();
        lines.next().filter(|line| *line == VERSION)?;
        let (mut domain, mut members, mut saved) = (None, Vec::new(), Settings::default());
        for line in lines {
            let (word, rest) = line.split_once(' ')?;
            match word {
                "domain" => domain = Some(Domain::Named(rest.to_owned())),
                "process" => domain = Some(Domain::Process(rest.parse().ok()?)),
                "member" => {
                    let (pid, name) = rest.split_once(' ')?;
                    members.push(Member { pid: pid.parse().ok()?, name: name.to_owned() });
                }
                "saved" => {
                    let (setting, value) = rest.split_once(' ')?;
                    saved.put(setting, value)?;
                }
                _ => return None,
            }
        }
        Some(Self { domain: domain?, members, saved })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{VERSION}")?;
        match &self.domain {
            Domain::Named(name) => writeln!(f, "domain {name}")?,
            Domain::Process(pid) => writeln!(f, "process {pid}")?,
        }
        for member in &self.members {
            writeln!(f, "member {} {}", member.pid, member.name)?;
        }
        for (setting, value) in self.saved.iter() {
            writeln!(f, "saved {setting} {value}")?;
        }
        writeln!(f, "{END}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(members: usize) -> Record {
        let mut saved = Settings::default();
        saved.put("run", "0").unwrap();
        saved.put("advisor_mode", "scan-time").unwrap();
        let mut record = Record { domain: Domain::Named("d".repeat(64)), members: vec![], saved };
        for pid in 0..members {
            record.add(Member { pid: u32::MAX - pid as u32, name: "n".repeat(64) });
        }
        record
    }

    #[test]
    fn what_is_written_is_read_back_however_many_have_joined() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Record::read(&file).unwrap(), None);
        for members in [0, 1, 24, 200] {
            let expected = record(members);
            assert_eq!(expected.members.len(), members.min(MEMBERS_MAX));
            expected.write(&file).unwrap();
            assert_eq!(Record::read(&file).unwrap(), Some(expected));
        }
        Record::clear(&file).unwrap();
        assert_eq!(Record::read(&file).unwrap(), None);
    }

    #[test]
    fn half_a_record_is_none() {
        let whole = record(3).to_string();
        assert!(Record::parse(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Record::parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(Record::parse(&whole.replace("saved run 0", "saved nonsense 0")), None);
    }
}
