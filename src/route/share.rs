//! How much of a route's traffic one of its members gets. Belongs to the route, not to the backend:
//! the same backend may be heavy for one host and a reserve for another.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::backend::Backend;
use super::member_options::OptionError;

/// Heaviest weight; as in HAProxy and nginx configurations that are carried over.
pub(super) const WEIGHT_MAX: u16 = 256;

/// What a member's options say of its part in the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share {
    /// 1 to [`WEIGHT_MAX`]; a member of weight 2 gets twice what one of weight 1 gets.
    pub weight: u16,
    /// Used only while no other member is up.
    pub backup: bool,
    /// The route gives its backend no further connection while the process has this many open to
    /// it; `None`: no bound.
    pub connections_max: Option<NonZeroU32>,
}

impl Default for Share {
    fn default() -> Share {
        Share {
            weight: 1,
            backup: false,
            connections_max: None,
        }
    }
}

impl Share {
    pub(super) fn parse_weight(value: &str) -> Result<u16, OptionError> {
        let weight = whole_number(value).and_then(|weight| u16::try_from(weight).ok());
        weight
            .filter(|weight| (1..=WEIGHT_MAX).contains(weight))
            .ok_or_else(|| OptionError::Weight(value.into()))
    }

    pub(super) fn parse_max(value: &str) -> Result<NonZeroU32, OptionError> {
        whole_number(value)
            .and_then(NonZeroU32::new)
            .ok_or_else(|| OptionError::Max(value.into()))
    }
}

/// Each option with the blank in front of it, so that it can follow an address.
impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weight != 1 {
            write!(out, " weight={}", self.weight)?;
        }
        if self.backup {
            write!(out, " backup")?;
        }
        match self.connections_max {
            Some(max) => write!(out, " max={max}"),
            None => Ok(()),
        }
    }
}

/// Digits only: `parse` alone would take a plus sign.
pub(super) fn whole_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// One member's place in a route.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub backend: Arc<Backend>,
    pub share: Share,
}

impl From<Arc<Backend>> for Seat {
    fn from(backend: Arc<Backend>) -> Seat {
        Seat {
            backend,
            share: Share::default(),
        }
    }
}

/// As an operator writes it.
impl fmt::Display for Seat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.backend.text(), self.share)
    }
}
