//! How the descriptors of the process are shared out between connections and pipes.

/// Kept back for Redis, DNS, the admin endpoint, the snapshot and active health checks. A health check
/// without a descriptor finds nothing out.
const RESERVED: usize = 64;
/// Kept back for each core: its rings, its wake-ups and its listeners.
const RESERVED_PER_CORE: usize = 16;
/// Pipes get at most one free descriptor in so many. A bulk stream without a pipe is copied; a
/// connection without a descriptor is refused.
const PIPES_SHARE: usize = 4;
/// Both ends of a pipe.
const PER_PIPE: usize = 2;

/// The shares. Descriptors that are open now, and those that are kept back, are in neither.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DescriptorShares {
    /// Descriptors for clients, backends and idle connections.
    pub connections: usize,
    pub pipes_per_core: usize,
}

impl DescriptorShares {
    /// `open_files` is the limit of the process.
    pub(super) fn of(open_files: u64, cores: usize, pipes_per_core_max: usize) -> DescriptorShares {
        let open_now = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let taken = open_now + cores * RESERVED_PER_CORE + RESERVED;
        DescriptorShares::of_free(open_files.saturating_sub(taken), cores, pipes_per_core_max)
    }

    fn of_free(free: usize, cores: usize, pipes_per_core_max: usize) -> DescriptorShares {
        let pipes_per_core = (free / PIPES_SHARE / PER_PIPE / cores).min(pipes_per_core_max);
        DescriptorShares {
            connections: free - pipes_per_core * cores * PER_PIPE,
            pipes_per_core,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_get_a_quarter_at_most() {
        for (free, cores, pipes_max, connections, pipes_per_core) in [
            (100_000, 2, 256, 98_976, 256),
            (1_000, 2, 256, 752, 62),
            (1_000, 2, 0, 1_000, 0),
            (0, 2, 256, 0, 0),
        ] {
            let shares = DescriptorShares::of_free(free, cores, pipes_max);
            assert_eq!(
                shares,
                DescriptorShares {
                    connections,
                    pipes_per_core
                }
            );
        }
    }
}
