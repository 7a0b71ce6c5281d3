//! The program `pointsman`. All of it is in the library; see [`pointsman::main`].

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A connection allocates its task and little else; this allocator is fast for that and gives
/// memory back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    pointsman::main()
}
