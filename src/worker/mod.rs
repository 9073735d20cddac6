//! The worker side: the zygote that forks workers, the runtime that takes tasks off a lane, and
//! what a handler or a worker program sees of a task.

pub(crate) mod crash;
pub(crate) mod lane;
pub(crate) mod link;
pub(crate) mod pool;
pub(crate) mod program;
pub(crate) mod results;
pub(crate) mod task;
pub(crate) mod watcher;
pub(crate) mod zygote;

pub use program::{Assigned, Worker};
pub use task::{Failure, Handler, Task, TaskResult};
