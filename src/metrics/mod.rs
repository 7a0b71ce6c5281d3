//! What is counted and timed about connections, and how it is written down. Pure: one
//! [`CoreMetrics`] belongs to one core, which needs no lock to write into it; the control thread
//! swaps it for a fresh one, adds the cores up, and renders the sum with the functions here.

mod core_metrics;
mod counter;
mod dump;
mod exposition;
mod interval_log;
mod stage;
mod table;
mod totals;

pub(crate) use core_metrics::CoreMetrics;
pub(crate) use counter::Counter;
pub(crate) use dump::Dump;
pub(crate) use exposition::{CONTENT_TYPE, Exposition, page};
pub(crate) use interval_log::write_interval_log;
pub(crate) use stage::Stage;
pub(crate) use table::write_table;
pub(crate) use totals::Totals;
