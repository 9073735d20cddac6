//! The worker side: the zygote that forks workers, the runtime that takes tasks off a lane, and
//! what a handler, a worker program or a zygote program sees of it.

pub(crate) mod crash;
pub(crate) mod foreign;
pub(crate) mod handover;
pub(crate) mod keeper;
pub(crate) mod lane;
pub(crate) mod link;
pub(crate) mod pool;
pub(crate) mod program;
pub(crate) mod results;
pub(crate) mod task;
pub(crate) mod watcher;
pub(crate) mod zygote;

pub use foreign::{SpawnRequest, Zygote};
pub use program::{Assigned, Worker};
pub use task::{Failure, Handler, Task, TaskResult};
