//! A kernel version, as features depend on it.

use std::fmt;

/// A kernel release, as far as features depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    pub major: u32,
    pub minor: u32,
}

impl KernelVersion {
    pub const fn new(major: u32, minor: u32) -> KernelVersion {
        KernelVersion { major, minor }
    }

    /// The first two numbers of a release as uname prints it (`6.1.0-18-amd64`) or of a version as
    /// an operator writes it (`5.8`); `None` when there are no two numbers.
    pub fn parse(text: &str) -> Option<KernelVersion> {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit());
            part[..digits.unwrap_or(part.len())].parse::<u32>().ok()
        });
        Some(KernelVersion {
            major: numbers.next()??,
            minor: numbers.next()??,
        })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_as_far_as_features_need() {
        assert_eq!(
            KernelVersion::parse("6.18.44-fc-v669"),
            Some(KernelVersion::new(6, 18))
        );
        assert_eq!(
            KernelVersion::parse("5.10-rc1"),
            Some(KernelVersion::new(5, 10))
        );
        assert_eq!(KernelVersion::parse("5.8"), Some(KernelVersion::new(5, 8)));
        for wrong in ["", "5", "five.eight", "5.", ".8"] {
            assert_eq!(KernelVersion::parse(wrong), None, "{wrong:?}");
        }
        assert!(KernelVersion::new(5, 19) < KernelVersion::new(6, 1));
    }
}
