//! One option after the other, from the command line, the environment and the file.

use super::*;
use crate::config::options::options;

#[test]
fn every_option_is_read_from_all_three_places() {
    // Each of the list's own examples, so that they all are true. Only unwrap takes two of them, and a
    // page has to be there.
    let page = concat!("502=", env!("CARGO_MANIFEST_DIR"), "/LICENSE");
    let values: Vec<(&str, &str)> = options()
        .filter(|spec| !["config", "listen", "to"].contains(&spec.name))
        .map(|spec| match spec.name {
            "error-page" => (spec.name, page),
            "cores" => (spec.name, "0"),
            name => (name, spec.example),
        })
        .collect();
    let named: Vec<&str> = values.iter().map(|(name, _)| *name).collect();

    let flags: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let from_flags = format!("{:?}", checked(&flags, &[]));

    let names: Vec<String> = named
        .iter()
        .map(|name| option(name).unwrap().environment_name())
        .collect();
    let environment: Vec<(&str, &str)> = names
        .iter()
        .zip(values.clone())
        .map(|(name, (_, value))| (name.as_str(), value))
        .collect();
    assert_eq!(format!("{:?}", checked(&[], &environment)), from_flags);

    let text: String = values
        .iter()
        .map(|(name, value)| format!("{name} = {value:?}\n"))
        .collect();
    let file = file(&text);
    let from_file = format!("{:?}", checked(&["--config", name(&file)], &[]));
    assert_eq!(from_file, from_flags);

    // Each value differs from the default, so an option that the check forgets shows here.
    for (name, value) in values {
        let fewer: Vec<&str> = flags
            .iter()
            .copied()
            .filter(|flag| *flag != format!("--{name}={value}"))
            .collect();
        let without = typed(&fewer, &[]).unwrap().validate(&machine());
        let without = without.map(|config| format!("{config:?}"));
        assert_ne!(without.as_ref(), Ok(&from_flags), "{name} is not read");
    }
}
