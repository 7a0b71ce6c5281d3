pub mod outcome;
pub mod protocol;
pub mod route;
pub mod sniff;
pub mod sync;
