//! Fuzz entries for what operators write: members, and the options of a host.

use super::host_options::{HostOptions, as_option, validate_entry};
use super::member::Member;

/// Asserts that a member that is understood is printed so that it is understood again.
#[doc(hidden)]
pub fn fuzz_member(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let member = match Member::parse(text) {
        Ok(member) => member,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let printed = member.to_string();
    let again = Member::parse(&printed);
    assert_eq!(
        again.as_ref(),
        Ok(&member),
        "{text:?} printed as {printed:?}"
    );
    assert!(member.is_same_backend(&member));
    validate_entry(text).expect("a member is an entry");
}

/// Asserts that the options of a hash, one in a line, are printed so that they are understood again. An
/// option that is not understood changes nothing.
#[doc(hidden)]
pub fn fuzz_host_options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut options = HostOptions::default();
    for line in text.lines() {
        let mut with = options.clone();
        match with.set(line) {
            Ok(()) => options = with,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let mut again = HostOptions::default();
    for entry in options.entries() {
        validate_entry(&entry).expect("it was understood");
        let option = as_option(&entry).expect("it has its mark");
        again.set(option).expect("it was understood");
    }
    assert_eq!(again, options, "{text:?}");
    assert_eq!(again.validate(), options.validate());
}
