//! Pages of `error-page`.

use super::*;

#[test]
fn pages_are_read_in_the_first_stage() {
    let page = file("<p>away</p>");
    let option = format!("502={}", name(&page));
    let config = checked(&[&MINIMAL[..], &["--error-page", &option]].concat(), &[]);
    assert_eq!(config.http.pages, [(502, (*b"<p>away</p>").into())]);
    let huge = file(&"x".repeat(256 * 1024 + 1));
    for (wrong, expected) in [
        ("502", "has no equals sign"),
        ("200=/x", "never answers \"200\" by itself"),
        (&format!("{option}.missing"), "cannot be read: No such file"),
        (&format!("502={}", name(&huge)), "cannot be read: "),
    ] {
        let got = mistakes(&[&MINIMAL[..], &["--error-page", wrong]].concat(), &[]);
        assert!(
            got.starts_with("--error-page: ") && got.contains(expected),
            "{got}"
        );
    }
}
