//! How text is laid out for a terminal.

/// What fits beside other windows, and in a mail.
const WIDTH: usize = 100;
/// The column of what is said, behind its title.
const INDENT: usize = 17;

/// One part of an explanation: a title, and beside it a text in lines that fit.
pub(super) fn part(title: &str, text: &str) -> String {
    let mut out = format!("  {title:<width$}", width = INDENT - 2);
    let mut column = INDENT;
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 && column + 1 + word.len() > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
    out
}

/// Names in lines that fit.
pub(super) fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    part("", &names.join(" ")).replace(&" ".repeat(INDENT), "  ")
}

/// The sentence with a capital letter and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_lose_no_word() {
        let words = "nine letters and more of them ".repeat(20);
        let text = part("title", words.trim());
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.split_whitespace().skip(1).eq(words.split_whitespace()));
        assert_eq!(sentence("a b"), "A b.");
    }
}
