//! Finds the Debian mirror this machine already uses.
//!
//! The lab fetches packages of a suite that the machine itself may not have in its sources, so it needs
//! the addresses and the key, not the suites. Both formats of apt's sources are read, and third-party
//! archives that live in the same folder are told apart from Debian's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::unavailable::Unavailable;

/// Names a mirror by hand: `NAPA_DEBIAN_MIRROR=http://mirror.example/debian`.
pub const MIRROR_VARIABLE: &str = "NAPA_DEBIAN_MIRROR";

const DEBIAN_KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

const DEBIAN_SUITES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "rc-buggy",
];

/// Where Debian's packages come from, and whose signature they must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Base address of the main archive, without a trailing slash.
    pub archive: String,
    /// Base address of the security archive, if the machine uses one.
    pub security: Option<String>,
    /// Keyring that must have signed the indexes; `None` leaves it to apt's trusted keys.
    pub keyring: Option<PathBuf>,
}

/// One entry of apt's sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Mirror {
    /// The mirror of this machine's own apt sources, or the one named in [`MIRROR_VARIABLE`].
    ///
    /// # Errors
    /// No source under `/etc/apt` is Debian's, or a file there cannot be read.
    pub fn of_this_machine() -> Result<Mirror> {
        let keyring = DEBIAN_KEYRINGS.iter().map(PathBuf::from).find(|path| path.exists());
        if let Ok(archive) = std::env::var(MIRROR_VARIABLE) {
            let archive = archive.trim_end_matches('/').to_owned();
            return Ok(Mirror { archive, security: None, keyring });
        }
        let sources = machine_sources(Path::new("/etc/apt"))?;
        let mut mirror = choose(&sources).ok_or_else(|| {
            Unavailable::Mirror(format!(
                "none of this machine's apt sources is Debian's: \
                 set {MIRROR_VARIABLE} to the address of a Debian mirror"
            ))
        })?;
        mirror.archive = plain_address(&mirror.archive)?;
        mirror.security = mirror.security.map(|address| plain_address(&address)).transpose()?;
        mirror.keyring = mirror.keyring.or(keyring);
        Ok(mirror)
    }
}

fn machine_sources(folder: &Path) -> Result<Vec<Source>> {
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_one_line,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        sources.extend(parse(&text));
    }
    Ok(sources)
}

/// `deb [option=value …] address suite component …`
fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    if let Some(bracket) = rest.strip_prefix('[') {
        let (options, after) = bracket.split_once(']')?;
        signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// Paragraphs of `Field: value` lines; a line that starts with white space continues the field before it.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut paragraph: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(deb822_source(&paragraph));
            paragraph.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = paragraph.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            paragraph.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn deb822_source(paragraph: &[(String, String)]) -> Option<Source> {
    let field =
        |name: &str| paragraph.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let is_binary = words("types").iter().any(|kind| kind == "deb");
    let is_enabled =
        !matches!(field("enabled").map(str::to_ascii_lowercase).as_deref(), Some("no" | "false" | "0"));
    (is_binary && is_enabled).then(|| Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
    })
}

fn choose(sources: &[Source]) -> Option<Mirror> {
    let debian: Vec<&Source> = sources.iter().filter(|source| is_debian(source)).collect();
    let (archive, source) = best(&debian, "debian", |suite| !is_security(suite))?;
    let security = best(&debian, "debian-security", is_security).map(|(address, _)| address);
    Some(Mirror { archive, security, keyring: keyring_file(source) })
}

/// The address that looks most like Debian's own layout among the sources with a fitting suite.
fn best<'a>(
    sources: &[&'a Source],
    folder: &str,
    suite_fits: impl Fn(&str) -> bool,
) -> Option<(String, &'a Source)> {
    let mut candidates = Vec::new();
    for source in sources.iter().filter(|source| source.suites.iter().any(|suite| suite_fits(suite))) {
        for uri in source.uris.iter().filter(|uri| !uri.starts_with("cdrom:")) {
            candidates.push((uri.trim_end_matches('/'), *source));
        }
    }
    let score = |address: &str, source: &Source| {
        let path = address.split_once("://").map_or(address, |(_, rest)| rest);
        let (host, path) = path.split_once('/').unwrap_or((path, ""));
        [source.signed_by.is_some(), path == folder, path.ends_with(folder), host.contains("debian")]
            .map(u32::from)
            .iter()
            .sum::<u32>()
    };
    // Of equals the first in apt's own order wins.
    let (address, source) =
        candidates.into_iter().rev().max_by_key(|(address, source)| score(address, source))?;
    Some((address.to_owned(), source))
}

fn is_debian(source: &Source) -> bool {
    let suite_is_known = source.suites.iter().any(|suite| DEBIAN_SUITES.contains(&base_suite(suite)));
    let has_main = source.components.iter().any(|component| component == "main");
    // Other vendors use Debian's suite names too, but never its key.
    let key_fits = match &source.signed_by {
        Some(key) => key.contains("debian-archive") || key.contains("BEGIN PGP"),
        None => true,
    };
    suite_is_known && has_main && key_fits
}

fn base_suite(suite: &str) -> &str {
    suite.split(['-', '/']).next().unwrap_or(suite)
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

fn keyring_file(source: &Source) -> Option<PathBuf> {
    source.signed_by.as_deref().filter(|key| key.starts_with('/')).map(PathBuf::from)
}

/// Follows `mirror+file:LIST`, which cloud images use, to the first address in that list.
fn plain_address(address: &str) -> Result<String> {
    let Some(list) = address.strip_prefix("mirror+file:") else {
        return Ok(address.to_owned());
    };
    let list = Path::new(list.trim_start_matches("//"));
    let text =
        fs::read_to_string(list).with_context(|| format!("read the mirror list {}", list.display()))?;
    let first = text.split_whitespace().find(|word| word.contains("://"));
    let first = first.with_context(|| format!("no address in the mirror list {}", list.display()))?;
    Ok(first.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
# A snapshot\n\
Types: deb deb-src\n\
URIs: http://mirror.example/debian/\n\
Suites: bookworm\n bookworm-updates\n\
Components: main\n\
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\
\n\
Types: deb\n\
URIs: http://mirror.example/debian-security\n\
Suites: bookworm-security\n\
Components: main\n\
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

    fn check(sources: &[Source], archive: Option<&str>, security: Option<&str>) {
        let mirror = choose(sources);
        assert_eq!(mirror.as_ref().map(|mirror| mirror.archive.as_str()), archive);
        assert_eq!(mirror.and_then(|mirror| mirror.security).as_deref(), security);
    }

    #[test]
    fn both_formats_name_the_same_mirror() {
        let archive = Some("http://mirror.example/debian");
        let security = Some("http://mirror.example/debian-security");
        check(&parse_deb822(DEB822), archive, security);
        let one_line = "deb http://mirror.example/debian bookworm main contrib # the archive\n\
             deb-src http://other.example/debian bookworm main\n\
             deb\t[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://mirror.example/debian-security/ bookworm-security main\n";
        check(&parse_one_line(one_line), archive, security);
    }

    #[test]
    fn archives_of_other_vendors_are_passed_over() {
        let foreign = "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://pkgs.vendor.example/debian bookworm main\n\
             deb https://apt.tool.example stable main\n\
             deb https://download.other.example/linux/debian bookworm stable\n\
             deb cdrom:[Debian]/ bookworm main\n";
        let mut sources = parse_one_line(foreign);
        sources.extend(parse_deb822(DEB822));
        check(&sources, Some("http://mirror.example/debian"), Some("http://mirror.example/debian-security"));
        check(&parse_one_line(foreign)[..1], None, None);
    }

    #[test]
    fn a_disabled_source_is_no_source() {
        let disabled = DEB822.replace("Types: deb\n", "Enabled: no\nTypes: deb\n");
        check(&parse_deb822(&disabled), Some("http://mirror.example/debian"), None);
    }

    #[test]
    fn a_machine_without_debian_sources_has_no_mirror() {
        check(&parse_one_line("# nothing\n\ndebug\ndeb\ndeb [unclosed http://x trixie main"), None, None);
    }

    #[test]
    fn the_key_of_the_archive_is_kept() {
        let mirror = choose(&parse_deb822(DEB822)).unwrap();
        assert_eq!(mirror.keyring, Some(PathBuf::from("/usr/share/keyrings/debian-archive-keyring.gpg")));
    }
}
