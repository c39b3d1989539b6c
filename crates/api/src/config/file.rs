//! Configuration as a TOML text.

use super::VmConfig;

/// Why a text is not the configuration of a VM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TomlReadError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there, on one line.
    pub message: String,
}

/// Why a configuration cannot be written as TOML.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the configuration as TOML: {0}")]
pub struct TomlWriteError(#[from] toml::ser::Error);

impl VmConfig {
    /// Reads a TOML text. Keys that are absent keep their defaults; unknown keys are refused.
    ///
    /// # Errors
    /// [`TomlReadError`]: where the text is wrong, and how.
    pub fn from_toml(text: &str) -> Result<Self, TomlReadError> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let (line, column) = position(text, offset);
            TomlReadError { line, column, message: message(error.message()) }
        })
    }

    /// Writes the configuration as a TOML text that [`from_toml`](Self::from_toml) reads back.
    ///
    /// # Errors
    /// [`TomlWriteError`]: a path is not UTF-8, or a size is above 8 EiB; neither passes
    /// [`check`](Self::check) from words.
    pub fn to_toml(&self) -> Result<String, TomlWriteError> {
        Ok(toml::to_string(self)?)
    }
}

/// Line and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The parser's message on one line, in plain quotes, with the nearest key where it lists the known ones.
fn message(message: &str) -> String {
    let flat = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let quoted: Vec<&str> = flat.split('`').skip(1).step_by(2).collect();
    let hint = match quoted.split_first() {
        Some((unknown, known)) if flat.starts_with("unknown field") => super::words::nearest(unknown, known),
        _ => None,
    };
    let hint = hint.map(|near| format!(" (did you mean '{near}'?)")).unwrap_or_default();
    format!("{}{hint}", flat.replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        VmConfig::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_text_is_the_default_configuration() {
        assert_eq!(VmConfig::from_toml(""), Ok(VmConfig::default()));
    }

    #[test]
    fn an_error_says_where_and_suggests_the_nearest_key() {
        for (text, place, hint) in [
            ("cpus = 2\nmemroy = 1\n", "line 2, column 1", "(did you mean 'memory'?)"),
            ("[[disk]]\npath = 'a'\nreadnoly = true\n", "line 3, column 1", "(did you mean 'readonly'?)"),
            ("memory = '1.5G'\n", "line 1, column 10", "'1.5G' is not a size"),
            ("memory = -1\n", "line 1, column 10", "a size cannot be -1"),
            ("cpus = 'two'\n", "line 1, column 8", "invalid type"),
            ("cpus = 1\ncpus = 2\n", "line 2, column 1", "duplicate key"),
            ("[[net]]\ntap = 't'\nmac = '1:2'\n", "line 3, column 7", "is not a MAC address"),
            ("console = 'tty'\n", "line 1, column 11", "unknown variant"),
            ("[[disk]]\nreadonly = true\n", "line 1, column 1", "missing field 'path'"),
            ("cpus = \n", "line 1, column 8", ""),
            ("name = 'ä' x\n", "line 1, column 12", ""),
        ] {
            let found = error(text);
            assert!(found.starts_with(place) && found.contains(hint), "{text:?}: {found}");
            assert!(!found.contains('\n') && !found.contains('`'), "{found}");
        }
    }

    #[test]
    fn a_whole_machine_is_read() {
        let text = "
            name = 'web'
            memory = '1G'
            cpus = 2
            kernel = 'bzImage'
            console = { file = 'web.log' }
            [[disk]]
            path = 'root.img'
            [[disk]]
            path = 'data.img'
            cache = 'writeback'
            [[net]]
            tap = 'tap0'
        ";
        let config = VmConfig::from_toml(text).unwrap();
        assert_eq!(config.memory, napa_units::Bytes::gib(1));
        assert_eq!(config.disks.len(), 2);
        assert_eq!(config.nets[0].tap, "tap0");
        assert_eq!(config.check(), Ok(()));
    }
}
