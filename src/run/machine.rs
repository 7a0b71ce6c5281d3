//! What the process asks of the machine before it binds a port.

use std::error::Error;

use crate::config::{Config, Machine};
use crate::preflight;
use crate::ring::{self, Features};
use crate::sys::{Congestion, Resource, raise_limit};
use crate::worker::{LOCKED_MEMORY_PER_CORE_BYTES, StartError};

/// What this machine allows, for the validation of the configuration.
pub(crate) fn allowed() -> Machine {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    Machine {
        allowed_cores: cores.into_iter().map(|core| core.id).collect(),
    }
}

/// What the process has got.
pub(super) struct Obtained {
    /// The limit of open files, raised as far as allowed.
    pub open_files: u64,
    /// Congestion control without pacing, where the system's default paces.
    pub unpaced: Option<Congestion>,
    /// What the kernel's io_uring can do.
    pub features: Features,
}

impl Obtained {
    /// Raises the limits of the process and tries out what it needs.
    ///
    /// # Errors
    /// The first that cannot be had, with cause and remedy.
    pub(super) fn from_machine(config: &Config) -> Result<Obtained, Box<dyn Error>> {
        let open_files = raise_limit(Resource::OpenFiles, 0)?;
        preflight::try_descriptors(config, open_files)?;
        preflight::try_threads(config)?;
        let unpaced = preflight::congestion(&config.backend_congestion)?;
        let wanted = LOCKED_MEMORY_PER_CORE_BYTES * config.cores.len() as u64;
        let lockable = raise_limit(Resource::LockedMemory, wanted)?;
        if lockable < LOCKED_MEMORY_PER_CORE_BYTES {
            return Err(StartError::LockedMemory { lockable }.into());
        }
        let features = ring::probe(config.kernel_mask)?;
        Ok(Obtained {
            open_files,
            unpaced,
            features,
        })
    }
}
