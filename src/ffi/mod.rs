//! The C interface: `include/miniflow.h` is generated from here.
//!
//! A translation of the Rust interface and nothing else. Every exported function has its body in
//! `error::guard`, so that no panic passes; what C hands in is checked where that is possible
//! (`sized`, `handle`, `slab`) and trusted as its documentation says where it is not. The names
//! are C's.
#![allow(
    non_camel_case_types,
    reason = "these are the names that C programs see"
)]

mod completion;
mod config;
mod error;
mod handle;
mod handler;
mod host;
mod log;
pub mod log_callback;
mod log_queue;
mod per_process;
mod placement;
mod policy;
mod scaling;
mod sized;
mod slab;
mod status;
mod submit;
mod task;
mod types;
mod view;
mod worker;
mod zygote;

pub use completion::*;
pub use config::*;
pub use error::*;
pub use host::*;
pub use log::*;
pub use placement::*;
pub use policy::*;
pub use scaling::*;
pub use status::*;
pub use submit::*;
pub use task::*;
pub use types::*;
pub use view::*;
pub use worker::*;
pub use zygote::*;
