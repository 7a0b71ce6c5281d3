//! How text is laid out, for a terminal and in Markdown.

/// What fits beside other windows, and in a mail.
const WIDTH: usize = 100;
/// As wide as the pages written by hand.
const MARKDOWN_WIDTH: usize = 110;
/// The column of what is said, behind its title.
const INDENT: usize = 17;

/// One part of an explanation: a title, and beside it a text in lines that fit.
pub(super) fn part(title: &str, text: &str) -> String {
    let title = format!("  {title:<width$}", width = INDENT - 2);
    lines(&title, &" ".repeat(INDENT), text, WIDTH)
}

/// A paragraph of Markdown in lines that fit, the first behind `begin`, such as a list's dash.
pub(super) fn paragraph(begin: &str, text: &str) -> String {
    lines(begin, &" ".repeat(begin.len()), text, MARKDOWN_WIDTH)
}

/// Text in lines of at most `width`.
fn lines(begin: &str, indent: &str, text: &str, width: usize) -> String {
    let mut out = begin.to_owned();
    let mut column = begin.len();
    for (index, word) in words(text).enumerate() {
        if index > 0 && column + 1 + word.len() > width {
            out.push('\n');
            out.push_str(indent);
            column = indent.len();
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

/// What stands between blanks. Code between backquotes is one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.split(move |character| {
        is_code ^= character == '`';
        character == ' ' && !is_code
    })
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
        let code = paragraph("- ", &format!("{} `a b c d e f g h i j`", "x".repeat(100)));
        assert_eq!(code.lines().nth(1), Some("  `a b c d e f g h i j`"));
    }
}
