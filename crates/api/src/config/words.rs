//! Splitting `key=value,key` into its items.

use std::fmt::Write;

/// Why the words of a flag are not a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// No such key.
    #[error("unknown key '{key}'{hint}; the keys are {}", keys.join(", "))]
    UnknownKey {
        /// What was written.
        key: String,
        /// The nearest thing that would have been right, as the end of a sentence; may be empty.
        hint: String,
        /// All keys there are.
        keys: &'static [&'static str],
    },
    /// Nothing stands before, after or between commas.
    #[error("a key is missing beside a comma: remove the comma, or write ',,' for a comma inside a value")]
    Empty,
    /// The same key appears again.
    #[error("'{0}' is given twice: keep one of them")]
    Repeated(&'static str),
    /// A key that must be there is not.
    #[error("'{key}' is missing: add '{key}=...' with {allowed}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What its value looks like.
        allowed: &'static str,
    },
    /// A key was written without a value.
    #[error("'{key}' has no value: write '{key}=...' with {allowed}")]
    NoValue {
        /// The key.
        key: &'static str,
        /// What its value looks like.
        allowed: &'static str,
    },
    /// A key has a value that it does not take.
    #[error("'{key}={value}' is not possible: {key} takes {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value that was written.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// One `key` or `key=value`; the key is one of those the flag knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub key: &'static str,
    pub value: Option<String>,
}

impl Word {
    /// The value; `allowed` describes it to people.
    pub fn value(self, allowed: &'static str) -> Result<String, WordError> {
        match self.value {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(WordError::NoValue { key: self.key, allowed }),
        }
    }

    /// The value as `parse` understands it.
    pub fn value_as<T>(
        self,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, WordError> {
        let key = self.key;
        let value = self.value(allowed)?;
        parse(&value).ok_or(WordError::Value { key, value, allowed })
    }

    /// A key that is a switch: alone it means on.
    pub fn switch(self) -> Result<bool, WordError> {
        match self.value {
            None => Ok(true),
            Some(_) => self.value_as("on or off", parse_switch),
        }
    }
}

/// `on` or `off`.
fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// A decimal number of digits alone, within `range`.
pub(super) fn parse_number<T: std::str::FromStr + PartialOrd>(
    text: &str,
    range: std::ops::RangeInclusive<T>,
) -> Option<T> {
    let digits_alone = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits_alone && range.contains(number))
}

/// Splits `text` at its single commas, looks every key up in `keys`, and refuses a key that comes twice.
/// The first of `keys` is the one that a lone value most likely was meant for.
pub(super) fn split(text: &str, keys: &'static [&'static str]) -> Result<Vec<Word>, WordError> {
    let mut words: Vec<Word> = Vec::new();
    if text.is_empty() {
        return Ok(words);
    }
    for item in items(text) {
        let word = word(&item, keys)?;
        if words.iter().any(|other| other.key == word.key) {
            return Err(WordError::Repeated(word.key));
        }
        words.push(word);
    }
    Ok(words)
}

/// The items between single commas, with double commas made single.
fn items(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let separator = character == ',' && characters.next_if_eq(&',').is_none();
        match items.last_mut() {
            Some(item) if !separator => item.push(character),
            _ => items.push(String::new()),
        }
    }
    items
}

fn word(item: &str, keys: &'static [&'static str]) -> Result<Word, WordError> {
    let (key, value) = match item.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (item, None),
    };
    if item.is_empty() {
        return Err(WordError::Empty);
    }
    match keys.iter().find(|known| **known == key) {
        Some(known) => Ok(Word { key: known, value: value.map(str::to_owned) }),
        None => {
            let hint = hint(key, value, keys);
            Err(WordError::UnknownKey { key: key.to_owned(), hint, keys })
        }
    }
}

/// `; did you mean …?`, or nothing.
fn hint(key: &str, value: Option<&str>, keys: &'static [&'static str]) -> String {
    match (nearest(key, keys), value, keys.first()) {
        (Some(near), _, _) => format!(", did you mean '{near}'?"),
        (None, None, Some(first)) => format!(", did you mean '{first}={key}'?"),
        _ => String::new(),
    }
}

/// The candidate that looks most like `word`, if one does.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // Farther away, a suggestion confuses more than it helps.
    let within_reach = |edits: usize| edits <= 1.max(word.len() / 3);
    candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), *candidate))
        .filter(|(edits, _)| within_reach(*edits))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Writes `key=value` items so that [`split`] reads them back.
#[derive(Default)]
pub(super) struct Writer {
    text: String,
}

impl Writer {
    /// Adds `key=value`.
    pub fn value(&mut self, key: &str, value: impl std::fmt::Display) {
        let value = value.to_string().replace(',', ",,");
        self.item(format_args!("{key}={value}"));
    }

    /// Adds `key` alone.
    pub fn key(&mut self, key: &str) {
        self.item(format_args!("{key}"));
    }

    fn item(&mut self, item: std::fmt::Arguments<'_>) {
        let comma = if self.text.is_empty() { "" } else { "," };
        write!(self.text, "{comma}{item}").expect("writing to a String cannot fail");
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[&str] = &["path", "readonly", "queues"];

    #[test]
    fn a_double_comma_is_a_comma_of_the_value() {
        let words = split("path=a,,b,,,readonly", KEYS).unwrap();
        assert_eq!(words[0], Word { key: "path", value: Some("a,b,".into()) });
        assert_eq!(words[1], Word { key: "readonly", value: None });
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        assert_eq!(split("path=a=b", KEYS).unwrap()[0].value.as_deref(), Some("a=b"));
    }

    #[test]
    fn an_error_names_the_key_and_the_nearest_one_that_exists() {
        for (text, expected) in [
            ("pth=x", "unknown key 'pth', did you mean 'path'?; the keys are path, readonly, queues"),
            (
                "disk.img",
                "unknown key 'disk.img', did you mean 'path=disk.img'?; the keys are path, readonly, queues",
            ),
            ("zzz=1", "unknown key 'zzz'; the keys are path, readonly, queues"),
            ("path=a,path=b", "'path' is given twice: keep one of them"),
            (
                "path=a,",
                "a key is missing beside a comma: remove the comma, or write ',,' for a comma inside a value",
            ),
        ] {
            assert_eq!(split(text, KEYS).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(parse_number("64", 1..=64u16), Some(64));
        for wrong in ["", "+1", "-1", "0", "65", "1 ", "0x1", "1.0", "99999999999"] {
            assert_eq!(parse_number(wrong, 1..=64u16), None, "{wrong:?}");
        }
    }
}
