//! Texts that are longer than a line.

/// Breaks a text between words into lines of at most `width` characters; all but the first begin with `indent` blanks.
/// A word that is longer than a line is left as it is.
pub fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut is_empty = true;
    for word in text.split(' ') {
        let longer = line.chars().count() + word.chars().count() + usize::from(!is_empty);
        if longer > width && !is_empty {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        for (text, width, indent, expected) in [
            ("", 5, 2, &[""][..]),
            ("one two", 7, 2, &["one two"]),
            ("one two", 6, 2, &["one", "  two"]),
            ("  12 s  host one two", 14, 4, &["  12 s  host", "    one two"]),
            ("extraordinary one", 5, 1, &["extraordinary", " one"]),
            ("a b c", 0, 0, &["a", "b", "c"]),
        ] {
            assert_eq!(wrap(text, width, indent), expected);
        }
    }
}
