//! How much of a route's traffic one of its backends gets. This belongs to the route and not to the
//! backend: the same backend may have a large weight in one route and be a backup in another.

use std::fmt;
use std::num::NonZeroU32;

use crate::quantity::whole_number;

/// Greatest weight. HAProxy has the same bound, so its configurations can be carried over.
pub(super) const WEIGHT_MAX: u16 = 256;

/// A backend's share of a route, as the options of its member set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Share {
    /// 1 to [`WEIGHT_MAX`]. A backend of weight 2 gets twice what one of weight 1 gets.
    pub(crate) weight: u16,
    /// The backend is used only while no other is up.
    pub(crate) backup: bool,
    /// The route gives the backend no further connection while the process has this many to it;
    /// `None`: no bound.
    pub(crate) connections_max: Option<NonZeroU32>,
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
    pub(super) fn parse_weight(value: &str) -> Option<u16> {
        let weight = u16::try_from(whole_number::<u32>(value)?).ok()?;
        (1..=WEIGHT_MAX).contains(&weight).then_some(weight)
    }

    pub(super) fn parse_max(value: &str) -> Option<NonZeroU32> {
        NonZeroU32::new(whole_number(value)?)
    }
}

/// Each option with a blank before it, so that it can follow an address.
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
