//! A shared-memory task engine: a host submits small byte-string tasks, crash-isolated worker
//! processes run them on thread pools, the host polls the results.
//!
//! ```
//! use miniflow::{Class, Engine};
//!
//! let engine = Engine::builder()
//!     .handler(|task| {
//!         let reply: Vec<u8> = task.payload().iter().rev().copied().collect();
//!         Ok(task.reply(&reply)?)
//!     })
//!     .workers(Class::CpuBound, 2)
//!     .start()?;
//! for word in ["one", "two", "three"] {
//!     engine.submit(word.as_bytes())?;
//! }
//! let mut words: Vec<String> = engine.completions().map(|c| c.text()).collect();
//! words.sort();
//! assert_eq!(words, ["eerht", "eno", "owt"]);
//! # Ok::<(), miniflow::Error>(())
//! ```
//!
//! Messages go to the [`log`] facade, some of them while the engine's lock is held: a logger must not
//! call the engine.
//!
//! The rest of this documentation: [`Engine`] and its [`Builder`] for hosts, [`worker`] for what a
//! handler and a worker program see, [`monitor`] for watching a named engine from outside, [`Error`]
//! for what can go wrong. The C interface is described
//! in `include/miniflow.h`, the design in `docs/design.md`.

#[cfg(not(target_os = "linux"))]
compile_error!("miniflow rests on memfd seals, futexes and pidfds: Linux only");

#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod engine;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod ffi;
#[cfg(not(loom))]
mod placement;
#[cfg(not(loom))]
mod sandbox;
#[cfg(not(loom))]
pub mod status;
#[cfg(not(loom))]
mod task;

#[cfg(not(loom))]
pub mod monitor;
#[cfg_attr(
    loom,
    allow(dead_code, unused_imports, reason = "models use the protocols only")
)]
mod shm;
#[cfg_attr(
    loom,
    allow(dead_code, unused_imports, reason = "models use the protocols only")
)]
mod sys;
#[cfg(not(loom))]
pub mod worker;

/// Killing workers between any two stores of the lane protocol: for tests only.
#[cfg(all(feature = "kill-points", not(loom)))]
#[doc(hidden)]
pub mod kill_points {
    pub use crate::sys::kill_point::{
        NAMES, Report, arm, arm_stages, arm_watcher, disarm, here, prepare, report,
    };
}

#[cfg(not(loom))]
pub use crate::{
    config::{Builder, Policy},
    engine::{
        Completions, Engine,
        completion::{Completion, Reader},
        loan::Loan,
        policy::{Candidate, Custom, DispatchPolicy},
        scaling::{
            Proposal, Scaling, ScalingPolicy, Snapshot,
            log::{Action, Decision},
        },
        stats::{Stats, WorkerRow, WorkerState},
    },
    error::{Error, Full, Result},
    placement::{Affinity, HugePages, IoPriority, Scheduler},
    sandbox::Sandbox,
    task::{Class, Label, Outcome, Submission, SubmitOptions, TaskId, TaskState},
};

/// What the fuzz targets call.
#[cfg(all(fuzzing, not(loom)))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::engine::hostile::hostile_lane;
}

/// The examples of the README and of the documents are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/placement.md")]
#[doc = include_str!("../docs/sandbox.md")]
#[doc = include_str!("../docs/scaling.md")]
#[doc = include_str!("../docs/status.md")]
struct Readme;
