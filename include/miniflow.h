/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#ifndef MINIFLOW_H
#define MINIFLOW_H

/* Generated from src/ffi by `UPDATE_HEADER=1 cargo test --test header`. Do not edit. */

#include <stddef.h>
#include <stdint.h>

/** The version of the library that this header belongs to. */
#define MF_VERSION_MAJOR 0
#define MF_VERSION_MINOR 1
#define MF_VERSION_PATCH 0
#define MF_VERSION_STRING "0.1.0"

/**
 * The version of the binary interface, which is also the number in the library's SONAME. It goes
 * up when a program that was built against an older header would no longer work.
 */
#define MF_ABI_VERSION 0

/** Success. */
#define MF_OK 0

/**
 * An argument is NULL, misaligned, unknown, stale or out of its range; mf_last_error() names it.
 * Also the answer to every use of an engine in a forked child of its process.
 */
#define MF_E_INVALID (-1)

/**
 * A bounded resource is full now, or memory comes to its end. Nothing was accepted: poll completions,
 * or try again later.
 * Also the answer to MF_CANCEL_UNSTARTED if it is too late for that.
 */
#define MF_E_WOULD_BLOCK (-2)

/** The time given for the call has passed. */
#define MF_E_TIMEOUT (-3)

/** A payload or a result is larger than the engine was configured for. */
#define MF_E_TOO_LARGE (-4)

/** No such task, or its completion was handed out already. */
#define MF_E_NOT_FOUND (-5)

/** The engine, or the worker's lane, is stopped. */
#define MF_E_CLOSED (-6)

/** The system has no memory for it. */
#define MF_E_NO_MEMORY (-7)

/** A system call failed; mf_last_error() says which and how. */
#define MF_E_SYSTEM (-8)

/** This kernel, or this version of the library, does not have the feature. */
#define MF_E_UNSUPPORTED (-9)

/**
 * A bug of the library, which any function may answer with, or a worker that broke the protocol.
 * Also the code of a task whose Rust handler panicked.
 */
#define MF_E_INTERNAL (-10)

/** Tasks that keep a processor busy. */
#define MF_CPU_BOUND 0

/** Tasks that mostly wait. */
#define MF_IO_BOUND 1

/** The handler returned 0. */
#define MF_COMPLETED 0

/** The handler returned something else, or failed the task. */
#define MF_FAILED 1

/** The worker died while it ran the task. */
#define MF_CRASHED 2

/** The task ran beyond its deadline. */
#define MF_TIMED_OUT 3

/** The task was cancelled. */
#define MF_CANCELLED 4

/** In mf_completion.flags: the code is the number of the signal that ended the worker. */
#define MF_F_BY_SIGNAL 1

/** In mf_completion.flags: the task died beside others and may not be the one to blame. */
#define MF_F_COLLATERAL 2

/**
 * In mf_completion.flags: the task failed, and the data are the bytes that its handler or program
 * gave to mf_task_end() or mf_task_fail_data(): no text of the library's.
 */
#define MF_F_DATA 4

/**
 * For mf_cancel: if the task is running, its worker is asked to leave, and killed after
 * mf_config.kill_grace_ns.
 */
#define MF_CANCEL_KILL 1

/**
 * For mf_cancel: only if the task was never started and no worker has been given it, so that it
 * will never run.
 */
#define MF_CANCEL_UNSTARTED 2

/** In mf_submit_opts.flags: start a task again that its handler fails, while attempts are left. */
#define MF_RETRY_FAILED 1

/**
 * In mf_submit_opts.flags: start a task again that missed its deadline, while attempts are left.
 */
#define MF_RETRY_TIMEOUT 2

/** In mf_worker_row.state: asked for, not ready. */
#define MF_WORKER_STARTING 1

/** In mf_worker_row.state: takes tasks. */
#define MF_WORKER_READY 2

/** In mf_worker_row.state: finishes what it runs and gets nothing new. */
#define MF_WORKER_DRAINING 3

/** In mf_worker_row.state: told to leave. */
#define MF_WORKER_LEAVING 4

/** In mf_scaling_decision.action: more workers, by the policy. */
#define MF_DECISION_GROW 1

/** In mf_scaling_decision.action: fewer workers, by the policy or for lack of memory. */
#define MF_DECISION_SHRINK 2

/** In mf_scaling_decision.action: another number of workers, by mf_resize(). */
#define MF_DECISION_RESIZE 3

/** In mf_scaling_decision.action: none, because the policy failed. */
#define MF_DECISION_FAILURE 4

/** In mf_scaling_snapshot.memory_state: there is enough. */
#define MF_MEMORY_AMPLE 0

/** In mf_scaling_snapshot.memory_state: nothing grows. */
#define MF_MEMORY_NO_GROWTH 1

/** In mf_scaling_snapshot.memory_state: idle workers leave, too. */
#define MF_MEMORY_SHEDDING 2

/** In mf_scaling_snapshot.memory_state: submits are refused, too. */
#define MF_MEMORY_REFUSING 3

/** In mf_task_info.state: not started. */
#define MF_TASK_QUEUED 0

/** In mf_task_info.state: started by a worker. */
#define MF_TASK_RUNNING 1

/** In mf_task_info.state: ended; its completion waits to be fetched. */
#define MF_TASK_DONE 2

/** For mf_log_level(): no message. */
#define MF_LOG_OFF 0

/** In mf_log_record.level: something is lost, or does not work. */
#define MF_LOG_ERROR 1

/** In mf_log_record.level: something unusual, which was dealt with. */
#define MF_LOG_WARN 2

/** In mf_log_record.level: what goes on. */
#define MF_LOG_INFO 3

/** In mf_log_record.level: for those who look for a fault. */
#define MF_LOG_DEBUG 4

/** In mf_log_record.level: everything. */
#define MF_LOG_TRACE 5

/** The worker number of a task that no worker has, or that none ever had. */
#define MF_NO_WORKER 4294967295

/**
 * In mf_config.flags: worker_argv is a zygote program. It is executed once, loads what workers need
 * and forks them; see mf_zygote_open().
 */
#define MF_ZYGOTE 1

/** In mf_config.dispatch_policy: the worker with the fewest tasks; the default. */
#define MF_DISPATCH_LEAST_LOADED 0

/** In mf_config.dispatch_policy: each worker in turn. */
#define MF_DISPATCH_ROUND_ROBIN 1

/** In mf_config.dispatch_policy: ask mf_config.dispatch. */
#define MF_DISPATCH_CUSTOM 2

/** In mf_config.dispatch_policy: the worker with fewer tasks of two that are chosen at random. */
#define MF_DISPATCH_POWER_OF_TWO 3

/** In mf_config.scaling_policy: the minimum of workers, and mf_resize(); the default. */
#define MF_SCALING_OFF 0

/** In mf_config.scaling_policy: by load and thresholds, counted per thread. */
#define MF_SCALING_DEFAULT 1

/** In mf_config.scaling_policy: ask mf_config.scaling. */
#define MF_SCALING_CUSTOM 2

/** In mf_config.scaling_policy: by queueing delay, arrivals and service times. */
#define MF_SCALING_ADAPTIVE 3

/** In mf_config.scaling_policy: as MF_SCALING_DEFAULT, but counted per worker. */
#define MF_SCALING_COMPATIBLE 4

/** For an mf_scaling_fn to return: it failed. That is logged and kept among the decisions. */
#define MF_SCALING_FAILED (-2)

/**
 * In mf_config.sandbox: workers, and what they execute, gain no privileges from set-user-ID bits
 * or file capabilities.
 */
#define MF_SANDBOX_NO_NEW_PRIVS 1

/**
 * In mf_config.sandbox: workers have the resource limits mf_config.sandbox_memory, sandbox_files,
 * sandbox_cpu_s and sandbox_core.
 */
#define MF_SANDBOX_RLIMITS 2

/**
 * In mf_config.sandbox: workers have a system call filter, and gain no privileges. Tracing, reading
 * and writing other processes, signals to others than itself, and moving the waiters of shared
 * futexes fail with EPERM. MF_E_UNSUPPORTED where the kernel has no such filters.
 */
#define MF_SANDBOX_SECCOMP 4

/**
 * In mf_config.sandbox: other processes of the same user cannot trace this process or open its
 * memory in /proc (those with CAP_SYS_PTRACE can). It holds for the whole process and stays when
 * the engine is stopped: no core files, no debugger, and /proc/self belongs to root.
 */
#define MF_SANDBOX_UNDUMPABLE_HOST 8

/**
 * In mf_config.affinity: workers run where the thread may run that calls mf_engine_start(); the
 * default. In mf_class_affinity.affinity: as mf_config.affinity.
 */
#define MF_AFFINITY_NONE 0

/**
 * In mf_config.affinity: each worker runs on as many processors as it has threads, which have an L3
 * cache in common if one has so many; workers are spread over NUMA nodes, caches and cores.
 */
#define MF_AFFINITY_SPREAD 1

/** In mf_config.affinity: as in mf_config.affinity_cpus. */
#define MF_AFFINITY_LIST 2

/**
 * In mf_config.affinity: workers run on the processors of NUMA node mf_config.affinity_node, whose
 * memory they prefer.
 */
#define MF_AFFINITY_NODE 3

/** In mf_class_config.scheduler: as the thread that calls mf_engine_start(); the default. */
#define MF_SCHEDULER_INHERIT 0

/** In mf_class_config.scheduler: SCHED_OTHER. */
#define MF_SCHEDULER_NORMAL 1

/** In mf_class_config.scheduler: SCHED_BATCH. */
#define MF_SCHEDULER_BATCH 2

/** In mf_class_config.scheduler: SCHED_IDLE. */
#define MF_SCHEDULER_IDLE 3

/** In mf_class_config.io_priority: as the thread that calls mf_engine_start(); the default. */
#define MF_IO_INHERIT 0

/**
 * In mf_class_config.io_priority: plus a level from 0, served first, to 7. This and MF_IO_IDLE are
 * the numbers of ioprio_set(2).
 */
#define MF_IO_BEST_EFFORT 16384

/** In mf_class_config.io_priority: served when nobody else wants anything of the disk. */
#define MF_IO_IDLE 24576

/** In mf_config.huge_pages: as the kernel likes it; the default. */
#define MF_HUGE_PAGES_OFF 0

/**
 * In mf_config.huge_pages: payloads and results in shared memory lie in transparent huge pages, if
 * /sys/kernel/mm/transparent_hugepage/shmem_enabled allows that.
 */
#define MF_HUGE_PAGES_ADVISE 1

/**
 * The host's end of a running engine: from mf_engine_start() to mf_engine_free(). A handle, not
 * an address: it is never dereferenced, and a freed or made-up one is MF_E_INVALID. All threads
 * of the process that started the engine may use it at once; a forked child may not.
 */
typedef struct mf_engine mf_engine;

/**
 * The task in hand, on the worker's side: valid until its handler returns, or until
 * mf_task_finish() or mf_task_end(). A handle, like mf_engine; what mf_task_payload() and
 * mf_task_reply_buf() give lives as long as it. One thread at a time may use it, whichever that is.
 */
typedef struct mf_task mf_task;

/**
 * A worker program's end of its lane: from mf_worker_join() to mf_worker_leave(). A handle, like
 * mf_engine. All threads of the program may use it at once; a forked child may not.
 */
typedef struct mf_worker mf_worker;

/**
 * The code that workers run for each task, in a forked child of the host, on several threads at
 * once if its class has several. Returns 0 for a completed task; anything else is a failed task
 * with that code. It must not throw a C++ exception or longjmp out.
 */
typedef int32_t (*mf_handler)(void *user, struct mf_task *task);

/** The workers of one class. Part of mf_config, frozen: 32 bytes. */
typedef struct mf_class_config {
  /** Workers at the start and at least. */
  uint32_t min_workers;
  /** Workers at most, also by mf_resize(). */
  uint32_t max_workers;
  /** Threads of each worker, or tasks that a worker program may hold at a time. */
  uint32_t threads;
  /**
   * Added to the niceness of the workers, which is that of the thread that calls mf_engine_start():
   * -20 to 19.
   */
  int32_t nice;
  /**
   * Longest run in nanoseconds of tasks of this class that do not say; 0 =
   * mf_config.default_deadline_ns, < 0 = none.
   */
  int64_t deadline_ns;
  /** MF_SCHEDULER_*. */
  int32_t scheduler;
  /** MF_IO_INHERIT, MF_IO_IDLE, or MF_IO_BEST_EFFORT plus a level. */
  int32_t io_priority;
} mf_class_config;

/** Which workers a task is for; each class has its own. An MF_*_BOUND constant. */
typedef int32_t mf_class;

/** One worker process. Rows are an array of a given element size; see mf_worker_stats(). */
typedef struct mf_worker_row {
  /** Set to the element size. */
  uint32_t size;
  /** The worker's number. */
  uint32_t slot;
  /** Its process; 0 while it is being started. */
  uint32_t pid;
  /** MF_CPU_BOUND or MF_IO_BOUND. */
  mf_class task_class;
  /** MF_WORKER_*. */
  int32_t state;
  /** Its threads. */
  uint32_t threads;
  /** Most tasks that it is given in advance at present, running ones included. */
  uint32_t depth;
  /** Tasks on it that are not started. */
  uint32_t queued;
  /** Tasks that it runs. */
  uint32_t running;
  /**
   * Processor time that it used lately, in 1/1000 of one processor. This and rss_bytes are measured
   * once a second at most, and 0 in what mf_dispatch_fn is shown.
   */
  uint32_t cpu_permille;
  /** New for every process in the slot. */
  uint64_t incarnation;
  /** Tasks that it has ended, failed ones included. */
  uint64_t completed;
  /** Tasks that failed on it. */
  uint64_t failed;
  /** Tasks that crashed in this slot, on processes before this one. */
  uint64_t crashed;
  /** Nanoseconds in handlers, over all threads. */
  uint64_t busy_ns;
  /** Average nanoseconds of a task. */
  uint64_t service_ns;
  /** Resident memory in bytes; 0: not measured yet. */
  uint64_t rss_bytes;
} mf_worker_row;

/**
 * Chooses a worker for a task: the index of a row, or < 0 for the engine's own choice. There are at
 * least two rows, one for each worker of the class that has room now; tasks that it has not ended
 * are in `queued` as far as they are more than its threads, else in `running`. Not asked for tasks
 * with a sticky key, nor while another engine's dispatch function uses this engine. An index that there
 * is not counts as a failure, and as < 0.
 *
 * It is called under the engine's lock, on any thread that submits or polls and on one of the
 * engine's own: it must be quick, must not wait for another thread that uses the engine, must not
 * throw a C++ exception or longjmp out, and cannot use the engine itself, whose functions answer
 * MF_E_INTERNAL there. The rows are valid until it returns.
 */
typedef int32_t (*mf_dispatch_fn)(void *user,
                                  mf_class task_class,
                                  const struct mf_worker_row *rows,
                                  size_t row_size,
                                  size_t count);

/** Counters of an engine. The caller sets size, mf_stats() the rest. */
typedef struct mf_engine_stats {
  /** The caller's sizeof(mf_engine_stats). */
  uint32_t size;
  /** 1 if no worker can be started any more, 0 if all is well. */
  uint32_t degraded;
  /** Tasks accepted, since the start. */
  uint64_t submitted;
  /** Tasks that completed. */
  uint64_t completed;
  /** Tasks that failed. */
  uint64_t failed;
  /** Tasks whose worker died. */
  uint64_t crashed;
  /** Tasks that ran beyond their deadline. */
  uint64_t timed_out;
  /** Tasks that were cancelled. */
  uint64_t cancelled;
  /** Submits that were refused because something was full. */
  uint64_t would_block;
  /** Tasks that a worker handed back unstarted because a long one had come up before them. */
  uint64_t recalled;
  /** Tasks that were on a dead worker, not started, and went to another. */
  uint64_t redispatched;
  /** Worker processes started. */
  uint64_t spawned;
  /** Worker processes that died unasked. */
  uint64_t died;
  /** Workers killed because their memory could not be trusted. */
  uint64_t violations;
  /** Tasks that wait in the central queues, now. */
  uint64_t queued;
  /** Tasks on workers, started or not, now. */
  uint64_t on_workers;
  /** Completions that nobody has fetched, now. */
  uint64_t unpolled;
  /** Workers that take tasks, now. */
  uint64_t workers;
  /** Bytes of the payload arena in use, now. */
  uint64_t payload_bytes;
  /** Bytes of the payload arena. */
  uint64_t payload_capacity;
  /** Starts again, of tasks whose worker died or that asked for it. */
  uint64_t retried;
  /**
   * Worker processes that the engine ended: for a task beyond its deadline or cancelled by force,
   * or because they were stopped, hung or broke the protocol.
   */
  uint64_t killed;
  /** Worker processes that were replaced because of their number of tasks or their size. */
  uint64_t recycled;
  /** Times that a dispatch function chose a worker that there is not. */
  uint64_t policy_failures;
} mf_engine_stats;

/** The load of a class of workers at one moment: what an mf_scaling_fn is shown. */
typedef struct mf_scaling_snapshot {
  /** The library's sizeof(mf_scaling_snapshot); a later version may have more at its end. */
  uint32_t size;
  /** MF_CPU_BOUND or MF_IO_BOUND. */
  mf_class task_class;
  /** Nanoseconds since the engine was started. */
  uint64_t now_ns;
  /** mf_class_config.min_workers. */
  uint32_t min_workers;
  /** mf_class_config.max_workers. */
  uint32_t max_workers;
  /** Workers wanted at present. */
  uint32_t target;
  /** Workers that take tasks. */
  uint32_t ready;
  /** Workers that are being started. */
  uint32_t starting;
  /** Threads of each worker. */
  uint32_t threads;
  /** Most tasks on one worker. */
  uint32_t peak;
  /** MF_MEMORY_*. */
  int32_t memory_state;
  /** Tasks that no worker has. */
  uint64_t queued;
  /** Tasks on workers, running or next in line. */
  uint64_t on_workers;
  /** Nanoseconds that the task has waited that has waited longest for a worker. */
  uint64_t oldest_ns;
  /** Average nanoseconds of a task; 0 = not known yet. */
  uint64_t service_ns;
  /** Tasks that workers have ended since the start. */
  uint64_t ended;
  /** The share of the processors in use, in 1/1000; -1 = not known. */
  int32_t cpu_permille;
  /** The share of memory in use, in 1/1000; -1 = not known. */
  int32_t memory_permille;
  /**
   * The share of the last 10 s in which tasks stood still for lack of memory, in 1/1000; -1 = not known.
   */
  int32_t pressure_permille;
  /** 0. */
  uint32_t reserved0;
  /** Counters of the whole engine. */
  const struct mf_engine_stats *stats;
} mf_scaling_snapshot;

/**
 * Chooses how many workers a class should have, given its load; < 0 leaves that as it is, and MF_SCALING_FAILED
 * says besides that it failed. What is beyond the class's limits is brought inside.
 *
 * It is called on a thread of its own, for one class after the other, while tasks are in flight or a
 * class has more workers than its minimum. It may be slow; mf_engine_stop() waits for it, but not
 * longer than a second, so what it uses must outlive it. It must not throw a C++ exception or longjmp
 * out. The snapshot, and what it points to, are valid until it returns.
 */
typedef int32_t (*mf_scaling_fn)(void *user, const struct mf_scaling_snapshot *snapshot);

/** An affinity of one class. Part of mf_config, frozen: 24 bytes. */
typedef struct mf_class_affinity {
  /** MF_AFFINITY_*; 0 = as mf_config.affinity. */
  int32_t affinity;
  /** For MF_AFFINITY_NODE. */
  uint32_t node;
  /**
   * For MF_AFFINITY_LIST, as mf_config.affinity_cpus, but counted from the class's first worker.
   */
  const uint32_t *cpus;
  /** How many cpus there are. */
  size_t count;
} mf_class_affinity;

/**
 * The settings of an engine. Fill it by mf_config_init(), then change what should differ;
 * nothing that it points to is needed after mf_engine_start(), except what `handler_user` means
 * to the handler.
 */
typedef struct mf_config {
  /** The caller's sizeof(mf_config). */
  uint32_t size;
  /** 0 or MF_ZYGOTE. */
  uint32_t flags;
  /**
   * A name by which others of this user on this machine can watch the engine, 1 to 64 of
   * A-Za-z0-9._-. NULL = an automatic one, which mf_engine_name() tells; "" = none.
   */
  const char *name;
  /** The code that workers run, in forked children of this process; NULL with worker_argv. */
  mf_handler handler;
  /** The handler's first argument, as it is in the process at mf_engine_start(). */
  void *handler_user;
  /**
   * A NULL-terminated list of strings: the program that workers execute, found in PATH, and
   * its arguments. It joins by mf_worker_join(). With MF_ZYGOTE in flags it is executed once and
   * forks the workers, see mf_zygote_open(). NULL with handler.
   */
  const char *const *worker_argv;
  /** Descriptors of this process to be left open in the workers, which else have 0 to 2. */
  const int32_t *inherit_fds;
  /** How many inherit_fds there are. */
  size_t inherit_count;
  /** By MF_CPU_BOUND and MF_IO_BOUND. */
  struct mf_class_config classes[2];
  /** Most tasks that are queued, running or not yet fetched, up to 2^20. */
  uint32_t max_tasks;
  /** MF_DISPATCH_*. */
  int32_t dispatch_policy;
  /** Longest payload in bytes that travels in the descriptor, at most 40. */
  uint32_t inline_payload;
  /** Longest result in bytes that travels in the task slot, at most 152. */
  uint32_t inline_result;
  /** Bytes of shared memory for longer payloads, allocated as needed. */
  uint64_t payload_arena;
  /** Bytes of shared memory per worker for longer results, allocated as needed. */
  uint64_t result_arena;
  /** Largest payload in bytes. */
  uint64_t max_payload;
  /** Largest result in bytes. */
  uint64_t max_result;
  /**
   * Results from this many bytes on are read where the worker wrote them, and hold its result
   * memory until they are released; shorter ones are copied.
   */
  uint64_t in_place_from;
  /** Nanoseconds that a waiting thread may spin before it sleeps; 0 never spins. */
  int64_t spin_ns;
  /** Nanoseconds that a worker's reply waits for result memory before it fails. */
  int64_t reply_wait_ns;
  /** Nanoseconds that mf_engine_start() waits for the workers. */
  int64_t start_timeout_ns;
  /**
   * Nanoseconds that running tasks have, after the drain of mf_engine_stop(), before their
   * workers are killed.
   */
  int64_t stop_grace_ns;
  /** For MF_DISPATCH_CUSTOM, else NULL. It and its argument are needed while it is in use. */
  mf_dispatch_fn dispatch;
  /** Its first argument. */
  void *dispatch_user;
  /** For MF_SCALING_CUSTOM, else NULL. */
  mf_scaling_fn scaling;
  /** Its first argument. */
  void *scaling_user;
  /**
   * Nanoseconds between two looks at the load, at least 1000000 and at most a day; 0 = 100 ms. This
   * and the other scaling_* thresholds: 0 = the default, and 0 without a scaling_policy. A policy
   * that does not have a threshold ignores it.
   */
  int64_t scaling_interval_ns;
  /** Grow if a task waits longer than this many nanoseconds; 0 = 100 ms. */
  int64_t scaling_max_wait_ns;
  /** Least nanoseconds between two changes; 0 = 200 ms. */
  int64_t scaling_cooldown_ns;
  /** MF_SCALING_*. */
  int32_t scaling_policy;
  /** Grow if a class has more tasks per thread than this, in 1/1000, on average (0 = 2500) ... */
  uint32_t scaling_load_permille;
  /** ... or any of its workers has more than this (0 = 4000). */
  uint32_t scaling_peak_permille;
  /** Do not grow if the processors are busier than this, in 1/1000; 0 = 900, 1000 = no limit. */
  uint32_t scaling_cpu_permille;
  /**
   * Shrink after so many idle looks in a row, a second apart or scaling_interval_ns if that is
   * longer; 0 = 3.
   */
  uint32_t scaling_idle_looks;
  /**
   * MF_AFFINITY_*. Of this and of nice, scheduler, io_priority and huge_pages, what this machine does
   * not have or this process may not do is left out, and noted in the status.
   */
  int32_t affinity;
  /**
   * For MF_AFFINITY_LIST: worker i runs on processor affinity_cpus[i % affinity_count]. One with
   * several threads has as many in a row, and the next worker goes on there.
   */
  const uint32_t *affinity_cpus;
  /** How many affinity_cpus there are. */
  size_t affinity_count;
  /** Replace a worker after so many tasks, when it has finished them; 0 = never. */
  uint64_t recycle_tasks;
  /**
   * Replace a worker that grows beyond so many bytes of resident memory, when it has finished what
   * it runs; 0 = never.
   */
  uint64_t recycle_rss;
  /** Longest run in nanoseconds of tasks that do not say; <= 0 = none. */
  int64_t default_deadline_ns;
  /** Starts of tasks that do not say, up to 65535; 0 or 1 = at most once. */
  uint32_t default_attempts;
  /** MF_SANDBOX_* bits; 0 = none. */
  uint32_t sandbox;
  /**
   * With MF_SANDBOX_RLIMITS, bytes of address space of each worker: it counts both arenas, a
   * stack per thread, and in handler workers all that this process has mapped at
   * mf_engine_start(); 0 = unlimited. This and the other sandbox_*: without that bit, 0.
   */
  uint64_t sandbox_memory;
  /** Most bytes of a worker's core file; 0 = none is written. */
  uint64_t sandbox_core;
  /** Most descriptors that a worker has open, at least 16; 0 = unlimited. */
  uint32_t sandbox_files;
  /**
   * Seconds of processor time that a worker process has in its whole life before SIGXCPU ends
   * it, and SIGKILL a second later; 0 = unlimited.
   */
  uint32_t sandbox_cpu_s;
  /**
   * Nanoseconds that a worker has to finish what it runs, from the SIGTERM that it gets because
   * of a task beyond its deadline or cancelled by force, to the SIGKILL.
   */
  int64_t kill_grace_ns;
  /**
   * Nanoseconds that a worker with tasks may be stopped (SIGSTOP) before it is killed. One that a
   * debugger has stopped is left alone.
   */
  int64_t stopped_grace_ns;
  /**
   * Nanoseconds that a worker may leave tasks unstarted although it has a free thread, before it
   * is taken for hung and killed. A worker program counts as free if it runs nothing.
   */
  int64_t hang_timeout_ns;
  /** For MF_AFFINITY_NODE, else 0. */
  uint32_t affinity_node;
  /** MF_HUGE_PAGES_*. */
  uint32_t huge_pages;
  /** For classes whose affinity is another, by MF_CPU_BOUND and MF_IO_BOUND. */
  struct mf_class_affinity class_affinity[2];
  /**
   * Do not grow while more memory is in use than this, in 1/1000, of the machine's or of what a control
   * group may have (0 = 900). This and the next two: 0 without a scaling_policy. 1000 = no limit.
   */
  uint32_t memory_grow_permille;
  /**
   * Do not grow either while tasks stand still for lack of memory for more than this share of the time,
   * in 1/1000; 0 = 100.
   */
  uint32_t memory_pressure_permille;
  /**
   * Let idle workers go, one after the other, down to the minimum, while more memory is in use than
   * this; 0 = 950.
   */
  uint32_t memory_shed_permille;
  /**
   * Submits and loans are MF_E_WOULD_BLOCK while more memory is in use than this; 0 = 980. Also without
   * a scaling_policy.
   */
  uint32_t memory_refuse_permille;
} mf_config;

/** The identity of an accepted task: a UUIDv7, big-endian as in RFC 9562. Frozen: 16 bytes. */
typedef struct mf_task_id {
  /** The 16 bytes. */
  uint8_t bytes[16];
} mf_task_id;

/** Where a task is. The caller sets size, mf_task_state() the rest. */
typedef struct mf_task_info {
  /** The caller's sizeof(mf_task_info). */
  uint32_t size;
  /** MF_TASK_*. */
  int32_t state;
  /** The worker that runs it; MF_NO_WORKER unless it is running. */
  uint32_t worker;
  /** 0. */
  uint32_t reserved0;
  /** Nanoseconds since its start; 0 unless it is running. */
  int64_t elapsed_ns;
  /** The handler's last report, mf_task_progress(): how far. */
  uint64_t progress_done;
  /** Of how much; 0 = not known. */
  uint64_t progress_total;
} mf_task_info;

/** What a submitter may say about a task; see mf_submit_opts_init(). */
typedef struct mf_submit_opts {
  /** The caller's sizeof(mf_submit_opts). */
  uint32_t size;
  /** MF_CPU_BOUND or MF_IO_BOUND. */
  mf_class task_class;
  /** Tasks of higher priority leave the central queue first: -3 to 3. */
  int32_t priority;
  /** MF_RETRY_* bits. */
  uint32_t flags;
  /** Comes back with the completion, untouched. */
  uint64_t user_data;
  /** The caller's own id: travels to the worker, to logs and texts of crashes. Zeros = none. */
  uint8_t label[16];
  /**
   * Longest run in nanoseconds, from the start of each attempt; 0 = the default of its class,
   * < 0 = none. A task beyond it is asked to stop, then its worker is killed.
   */
  int64_t deadline_ns;
  /**
   * Tasks of a class with the same key run on the same worker, and wait for it while it has no
   * room; 0 = none. If that worker goes, or one comes that takes the key over, later ones run there.
   */
  uint64_t sticky_key;
  /**
   * Starts that the task allows, 1 = at most once, up to 65535; 0 = the engine's default. Only
   * the death of a worker uses more than one, and what MF_RETRY_* asks for.
   */
  uint32_t max_attempts;
  /** 0. */
  uint32_t reserved0;
} mf_submit_opts;

/** One task of a batch. Clear it (memset, or = {0}) before setting fields. */
typedef struct mf_submission {
  /** 0, or the same as the element size given to mf_submit_batch(). */
  uint32_t size;
  /** 0. */
  uint32_t reserved0;
  /** The payload, copied at submit; may be NULL if len is 0. */
  const void *payload;
  /** Bytes at payload. */
  size_t len;
  /** Options, which many submissions may share; NULL = defaults. */
  const struct mf_submit_opts *opts;
  /** Comes back with the completion, instead of opts->user_data; 0 = the one in opts. */
  uint64_t user_data;
} mf_submission;

/** Payload memory on loan from an engine. The caller sets size, mf_loan() the rest. */
typedef struct mf_loan_buf {
  /** The caller's sizeof(mf_loan_buf). */
  uint32_t size;
  /** 0. */
  uint32_t reserved0;
  /** Where to write the payload. */
  void *ptr;
  /** Bytes at ptr. */
  size_t len;
  /** For mf_submit_loaned() and mf_loan_drop(). */
  uint64_t handle;
} mf_loan_buf;

/** How a task ended: MF_COMPLETED to MF_CANCELLED. */
typedef int32_t mf_outcome;

/** The end of one task. Frozen: 128 bytes. */
typedef struct mf_completion {
  /** The id that submitting returned. */
  struct mf_task_id id;
  /** As given at submit. */
  uint64_t user_data;
  /** How it ended. */
  mf_outcome outcome;
  /** What the handler returned; after a crash the exit code, or the signal with MF_F_BY_SIGNAL. */
  int32_t code;
  /** MF_F_* bits. */
  uint32_t flags;
  /** Slot of the worker that ran it last; MF_NO_WORKER if none did. */
  uint32_t worker;
  /** 1 = ended in its first start, 0 = never started. */
  uint32_t attempt;
  /** 0. */
  uint32_t reserved0;
  /**
   * The result, or UTF-8 text (not NUL-terminated) of what went wrong if it did not complete, or
   * any bytes with MF_F_DATA; NULL if there is none. A long one is read where its worker wrote
   * it: it stays, but may change if that worker misbehaves.
   */
  const void *data;
  /** Bytes at data. */
  size_t len;
  /** Nanoseconds from submit to the last start. */
  int64_t queued_ns;
  /** Nanoseconds from the last start to the end. */
  int64_t run_ns;
  /** For mf_completion_release(); 0 if there is nothing to release. */
  uint64_t handle;
  /** 0. */
  uint64_t reserved[5];
} mf_completion;

/**
 * A decision about the number of workers of a class, and what it was made from. An array of them has a
 * given element size; see mf_scaling_decisions().
 */
typedef struct mf_scaling_decision {
  /** Set to the element size. */
  uint32_t size;
  /** MF_CPU_BOUND or MF_IO_BOUND. */
  mf_class task_class;
  /** Nanoseconds since 1970-01-01 00:00 UTC. */
  uint64_t time_ns;
  /** MF_DECISION_*. */
  int32_t action;
  /** Workers wanted before. */
  uint32_t before;
  /** Workers wanted from then on. */
  uint32_t after;
  /** Workers that took tasks. */
  uint32_t ready;
  /** Workers that were being started. */
  uint32_t starting;
  /** Threads of each worker. */
  uint32_t threads;
  /** Tasks that no worker had. */
  uint64_t queued;
  /** Tasks on workers. */
  uint64_t on_workers;
  /** Nanoseconds that the task had waited that had waited longest for a worker. */
  uint64_t oldest_ns;
  /** Average nanoseconds of a task; 0 = not known. */
  uint64_t service_ns;
  /** The share of the processors in use, in 1/1000; -1 = not known. */
  int32_t cpu_permille;
  /** The share of memory in use, in 1/1000; -1 = not known. */
  int32_t memory_permille;
  /** Why, in UTF-8, NUL-terminated; cut between two characters if it has no room. */
  char reason[176];
} mf_scaling_decision;

/** A task in hand and everything about it. The caller sets size, mf_worker_take() the rest. */
typedef struct mf_work {
  /** The caller's sizeof(mf_work). */
  uint32_t size;
  /** 1 in the first start of the task, 2 in the second, and so on. */
  uint32_t attempt;
  /** The task in hand; NULL with every error. */
  struct mf_task *task;
  /**
   * The payload, read-only, until the task ends (see mf_task_view()); not NULL, also if it is
   * empty.
   */
  const void *payload;
  /** Bytes at payload. */
  size_t len;
  /** mf_submit_opts.user_data. */
  uint64_t user_data;
  /** The id that submitting returned. */
  struct mf_task_id id;
  /** mf_submit_opts.label; zeros if none was given. */
  uint8_t label[16];
} mf_work;

/**
 * A worker that a language runtime's zygote has to fork. The runtime sets size, mf_zygote_recv() the
 * rest.
 */
typedef struct mf_zygote_request {
  /** The caller's sizeof(mf_zygote_request). */
  uint32_t size;
  /** The number of the worker to be forked. */
  uint32_t worker;
  /** The incarnation of that worker. */
  uint64_t incarnation;
} mf_zygote_request;

/**
 * A message of the library's log. The caller sets size, mf_log_read() the rest. The texts are UTF-8
 * without NULs in them, and NUL-terminated; one for which there is too little room is cut between
 * two characters.
 */
typedef struct mf_log_record {
  /** The caller's sizeof(mf_log_record). */
  uint32_t size;
  /** MF_LOG_ERROR to MF_LOG_TRACE. */
  int32_t level;
  /** Nanoseconds since 1970-01-01 00:00 UTC. */
  uint64_t time_ns;
  /**
   * Messages that were dropped between the one before and this one, because 1024 waited already.
   */
  uint64_t dropped;
  /** Bytes that the target has; if that is not less than sizeof(target), it was cut. */
  uint32_t target_len;
  /** Bytes that the message has; if that is not less than sizeof(message), it was cut. */
  uint32_t message_len;
  /** The part of the library that it comes from, such as "miniflow::engine::supervisor". */
  char target[96];
  /** The message; it may have several lines. */
  char message[3584];
} mf_log_record;

/**
 * Told each message of the log, one at a time, on a thread of the library's own that holds none of its
 * locks: it may take its time (messages that come meanwhile wait, see mf_log_read()), may wait for
 * other threads, and may use the library, but for mf_set_log(). It must not throw a C++ exception or
 * longjmp out. The record is valid until it returns.
 */
typedef void (*mf_log_fn)(void *user, const struct mf_log_record *record);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Fills `cfg` with the defaults, which differ with the machine: as many CPU-bound workers as
 * there are processors, one IO-bound worker, no handler.
 *
 * - `cfg`: is written, at most `size` bytes.
 * - `size`: the caller's sizeof(mf_config).
 *
 * Returns MF_OK, or MF_E_INVALID for NULL or a size that no version of mf_config has. Any thread,
 * also in a forked child. Since 0.1.
 *
 * Pointers:
 * `cfg` is NULL or valid for writes of `size` bytes.
 */
int32_t mf_config_init(struct mf_config *cfg, size_t size);

/**
 * The name of an error code, such as "MF_E_TIMEOUT"; "MF_E_UNKNOWN" for any other number. A
 * positive count is not an error: ask only for negative values and 0.
 *
 * Returns a static string. Any thread, also in a forked child. Since 0.1.
 */
const char *mf_error_name(int32_t error);

/**
 * What went wrong in the calling thread's last call that failed, as UTF-8 text; an empty string
 * if none has. Calls that succeed leave it alone.
 *
 * Returns a string that is valid until the same thread's next failing call. Any thread, also in a
 * forked child. Since 0.1.
 */
const char *mf_last_error(void);

/**
 * The version of the binary interface of the library that is loaded; compare it with
 * MF_ABI_VERSION of the header.
 *
 * Any thread, also in a forked child. Since 0.1.
 */
uint32_t mf_abi_version(void);

/**
 * Starts an engine; returns when the minimum of workers is ready.
 *
 * - `cfg`: the settings, with a handler or a worker program.
 * - `engine`: receives the handle, to be freed by mf_engine_free(); NULL with every error.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: NULL, or a bad setting, which mf_last_error() names, or a name in use;
 * - MF_E_UNSUPPORTED: a setting that this version does not have, or a kernel that lacks something;
 * - MF_E_TIMEOUT: the workers are not ready within mf_config.start_timeout_ns;
 * - MF_E_SYSTEM, MF_E_NO_MEMORY: the system refuses, or the program cannot be executed;
 * - MF_E_INTERNAL: a worker ended before it was ready.
 *
 * Forks a process that later forks the workers: they see this process's memory as it is now. If
 * this process has other threads, a handler may use malloc, but no lock that another thread holds
 * now. Start engines early. Any thread; also in a forked child, which cannot use its parent's
 * engines but can have its own. Since 0.1.
 *
 * Pointers:
 * `cfg` is NULL or valid for as many bytes as its size says, and its pointers are what its
 * comments say; `engine` is NULL or valid for a write.
 */
int32_t mf_engine_start(const struct mf_config *cfg, struct mf_engine **engine);

/**
 * Stops an engine: refuses new tasks, lets those that were accepted finish for at most
 * `drain_ns`, then cancels the rest, killing workers that do not listen after
 * mf_config.stop_grace_ns. Each task still has its completion, which can be fetched until
 * mf_engine_free().
 *
 * - `engine`: the engine.
 * - `drain_ns`: nanoseconds; < 0 for as long as it takes, 0 not at all.
 *
 * Returns MF_OK, or
 * - MF_E_CLOSED: it was stopped before, or is being stopped;
 * - MF_E_INVALID: not an engine.
 *
 * Waits. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_engine_stop(struct mf_engine *engine, int64_t drain_ns);

/**
 * Frees an engine; stops it first, without a drain, if that was not done. Completions that were
 * not fetched are lost. Results that were not released, and loans, stay valid until they are.
 *
 * - `engine`: the engine; NULL is allowed and does nothing. It is stale afterwards.
 *
 * Returns MF_OK, or MF_E_INVALID for a handle that is no engine, or was freed already.
 *
 * Calls of other threads on this engine end first, waiting ones with MF_E_CLOSED or what they
 * waited for. Any thread. Forked child: MF_E_INVALID, and the parent's engine goes on. Since 0.1.
 */
int32_t mf_engine_free(struct mf_engine *engine);

/**
 * Asks for a task to be cancelled. A queued task is; a running one is told, mf_task_cancelled(),
 * and with MF_CANCEL_KILL its worker is killed unless the task ends by itself within
 * mf_config.kill_grace_ns. Tasks that run beside it may then end as MF_CRASHED with
 * MF_F_COLLATERAL. What became of the task, its completion says.
 *
 * With MF_CANCEL_UNSTARTED, MF_OK means that the task will never run, and its completion says
 * MF_CANCELLED (which an earlier call may have seen to). Else nothing has changed, and the task is
 * not told either.
 *
 * - `engine`: the engine.
 * - `id`: the task.
 * - `flags`: 0, MF_CANCEL_KILL or MF_CANCEL_UNSTARTED.
 *
 * Returns MF_OK, or
 * - MF_E_WOULD_BLOCK: with MF_CANCEL_UNSTARTED, a worker has been given the task, even if it is not
 *   started yet; or it was started before and waits for its next attempt; or it has ended, and its
 *   completion can be fetched;
 * - MF_E_NOT_FOUND: no such task, or its completion was handed out;
 * - MF_E_INVALID: not an engine, NULL, or unknown flags.
 *
 * Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `id` is NULL or valid for a read.
 */
int32_t mf_cancel(struct mf_engine *engine, const struct mf_task_id *id, uint32_t flags);

/**
 * Where a task is: queued, running (on which worker, since when, how far), or done.
 *
 * - `engine`: the engine.
 * - `id`: the task.
 * - `state`: receives the answer; its `size` is set by the caller.
 *
 * Returns MF_OK, or
 * - MF_E_NOT_FOUND: no such task, or its completion was handed out;
 * - MF_E_INVALID: not an engine, NULL, or a size that no version of mf_task_info has.
 *
 * Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `id` is NULL or valid for a read, `state` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_task_state(struct mf_engine *engine,
                      const struct mf_task_id *id,
                      struct mf_task_info *state);

/**
 * A descriptor for the host's own loop (epoll, poll, select): readable, level-triggered, when
 * completions may be waiting. It belongs to the engine, which closes it in mf_engine_free().
 *
 * Never read it: call mf_poll() with a timeout of 0 until it returns 0. Edge-triggered loops must
 * do so before every wait.
 *
 * - `engine`: the engine.
 *
 * Returns the descriptor, the same every time, or
 * - MF_E_SYSTEM: none can be made;
 * - MF_E_INVALID: not an engine.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_event_fd(struct mf_engine *engine);

/**
 * Sets how many workers a class has. More are started; fewer leave when they have finished what
 * they run, and what waits on them goes to others.
 *
 * - `engine`: the engine.
 * - `task_class`: MF_CPU_BOUND or MF_IO_BOUND.
 * - `workers`: up to mf_class_config.max_workers.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: not an engine, an unknown class, too many, or none while the class has tasks;
 * - MF_E_CLOSED: the engine is stopped.
 *
 * Does not wait for them. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_resize(struct mf_engine *engine, mf_class task_class, uint32_t workers);

/**
 * Changes how workers are chosen, from the next choice on. When it returns, a function that was in
 * use before is not called any more.
 *
 * - `engine`: the engine.
 * - `policy`: MF_DISPATCH_*.
 * - `dispatch`: for MF_DISPATCH_CUSTOM, else NULL; it is needed until it is replaced or the engine is
 *   stopped.
 * - `user`: its first argument.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: not an engine, an unknown policy, or a function that does not fit it;
 * - MF_E_CLOSED: the engine is stopped.
 *
 * Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `dispatch` is NULL or a function that keeps to what mf_dispatch_fn says, with this `user`.
 */
int32_t mf_set_dispatch_policy(struct mf_engine *engine,
                               int32_t policy,
                               mf_dispatch_fn dispatch,
                               void *user);

/**
 * Fills `opts` with the defaults: CPU-bound, priority 0, at most once, nothing else.
 *
 * - `opts`: is written, at most `size` bytes.
 * - `size`: the caller's sizeof(mf_submit_opts).
 *
 * Returns MF_OK, or MF_E_INVALID for NULL or a size that no version of mf_submit_opts has. Any
 * thread, also in a forked child. Since 0.1.
 *
 * Pointers:
 * `opts` is NULL or valid for writes of `size` bytes.
 */
int32_t mf_submit_opts_init(struct mf_submit_opts *opts, size_t size);

/**
 * Submits a task; the payload is copied.
 *
 * - `engine`: the engine.
 * - `payload`, `len`: the payload in bytes; `payload` may be NULL if `len` is 0.
 * - `opts`: options; NULL = defaults.
 * - `id`: receives the task's id; NULL = not wanted.
 *
 * Returns MF_OK, or
 * - MF_E_WOULD_BLOCK: mf_config.max_tasks are in flight or not fetched, or the payload arena is
 *   full;
 * - MF_E_TOO_LARGE: more than mf_config.max_payload;
 * - MF_E_CLOSED: the engine is stopped;
 * - MF_E_INVALID: not an engine, NULL with a length, bad options, or a class without workers;
 * - MF_E_UNSUPPORTED: an option that this version does not have;
 * - MF_E_NO_MEMORY: the system has none.
 *
 * Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `payload` is NULL or valid for reads of `len` bytes, `opts` is NULL or valid for as many bytes
 * as its size says, `id` is NULL or valid for a write.
 */
int32_t mf_submit(struct mf_engine *engine,
                  const void *payload,
                  size_t len,
                  const struct mf_submit_opts *opts,
                  struct mf_task_id *id);

/**
 * mf_submit() with the user data as an argument, so that threads can share one mf_submit_opts.
 *
 * - `user_data`: comes back with the completion, instead of opts->user_data, also if it is 0. The
 *   other arguments are those of mf_submit().
 *
 * Returns MF_OK, or the errors of mf_submit(). Does not wait. Any thread. Forked child:
 * MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * As for mf_submit(); nobody writes the options during this call.
 */
int32_t mf_submit_as(struct mf_engine *engine,
                     const void *payload,
                     size_t len,
                     const struct mf_submit_opts *opts,
                     uint64_t user_data,
                     struct mf_task_id *id);

/**
 * mf_submit() that waits for room.
 *
 * - `timeout_ns`: nanoseconds to wait; < 0 for ever, 0 not at all. The other arguments are those
 *   of mf_submit().
 *
 * Returns MF_OK, or the errors of mf_submit(), and MF_E_TIMEOUT: there was no room in time.
 * MF_E_WOULD_BLOCK comes at once when all room is held by completions that are ready for the
 * caller to fetch, or by payloads on loan: waiting would never end.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * As for mf_submit().
 */
int32_t mf_submit_wait(struct mf_engine *engine,
                       const void *payload,
                       size_t len,
                       const struct mf_submit_opts *opts,
                       struct mf_task_id *id,
                       int64_t timeout_ns);

/**
 * Submits several tasks with one announcement to the workers; the payloads are copied.
 *
 * - `engine`: the engine.
 * - `subs`: the submissions, an array of elements of `sub_size` bytes.
 * - `sub_size`: the caller's sizeof(mf_submission).
 * - `count`: the length of the array.
 * - `ids`: receives the ids of those that were accepted; NULL = not wanted.
 *
 * Returns how many were accepted, which are the first ones. If there are some and not even the
 * first was accepted, its error, as for mf_submit(). MF_E_INVALID also for a `sub_size` that no
 * version of mf_submission has.
 *
 * Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `subs` is NULL or valid for reads of `count * sub_size` bytes, what they point to is as for
 * mf_submit(), `ids` is NULL or valid for writes of `count` elements.
 */
int32_t mf_submit_batch(struct mf_engine *engine,
                        const struct mf_submission *subs,
                        size_t sub_size,
                        size_t count,
                        struct mf_task_id *ids);

/**
 * Room for a payload in shared memory, to be written in place and submitted without a copy. Its
 * bytes are undefined at first. The loan holds room of the payload arena until mf_submit_loaned()
 * or mf_loan_drop(), also beyond mf_engine_free().
 *
 * - `engine`: the engine.
 * - `len`: bytes.
 * - `buf`: receives the loan; its `size` is set by the caller.
 *
 * Returns MF_OK, or
 * - MF_E_WOULD_BLOCK: the payload arena is full;
 * - MF_E_TOO_LARGE: more than mf_config.max_payload;
 * - MF_E_CLOSED: the engine is stopped;
 * - MF_E_INVALID: not an engine, NULL, or a size that no version of mf_loan_buf has;
 * - MF_E_NO_MEMORY: the system has none.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `buf` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_loan(struct mf_engine *engine, size_t len, struct mf_loan_buf *buf);

/**
 * Submits a payload on loan, without a copy. After MF_OK the memory is the task's: neither read
 * nor write it, and do not drop the loan. After an error the loan is as before.
 *
 * - `engine`: the engine that lent it.
 * - `buf`: the loan; it is not changed.
 * - `opts`, `id`: as for mf_submit().
 *
 * Returns MF_OK, or the errors of mf_submit(); MF_E_INVALID also for a loan that was submitted or
 * dropped already, or that another engine gave. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * As for mf_submit() and mf_loan(); nobody writes the payload any more.
 */
int32_t mf_submit_loaned(struct mf_engine *engine,
                         const struct mf_loan_buf *buf,
                         const struct mf_submit_opts *opts,
                         struct mf_task_id *id);

/**
 * Gives a loan back without submitting it.
 *
 * - `engine`: is not looked at, and may be NULL.
 * - `buf`: the loan; it is not changed. A handle of 0 is none: nothing happens.
 *
 * Returns MF_OK, or MF_E_INVALID for NULL or a loan that was submitted or dropped already. Any
 * thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `buf` is NULL or valid for as many bytes as its size says; nobody uses its memory any more.
 */
int32_t mf_loan_drop(struct mf_engine *engine, const struct mf_loan_buf *buf);

/**
 * Fetches completions: up to `max`, in no particular order.
 *
 * - `engine`: the engine; also after mf_engine_stop().
 * - `completions`: receives them.
 * - `max`: how many there is room for; 0 is no error.
 * - `timeout_ns`: nanoseconds to wait for the first one; < 0 for ever, 0 not at all.
 *
 * Returns how many there were; 0 means that none came in time. Each whose `handle` is not 0 holds
 * memory until mf_completion_release(). Errors:
 * - MF_E_INVALID: not an engine, or `completions` is NULL or misaligned;
 * - MF_E_CLOSED: the engine is stopped, every completion was fetched, and `timeout_ns` is < 0.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `completions` is NULL or valid for writes of `max` elements.
 */
int32_t mf_poll(struct mf_engine *engine,
                struct mf_completion *completions,
                size_t max,
                int64_t timeout_ns);

/**
 * Waits for the completion of one task, which then never comes out of mf_poll().
 *
 * - `engine`: the engine.
 * - `id`: the task.
 * - `completion`: receives its completion.
 * - `timeout_ns`: nanoseconds to wait; < 0 for ever, 0 not at all. After a time-out mf_poll() gets
 *   the completion, unless it is waited for again.
 *
 * Returns MF_OK, or
 * - MF_E_TIMEOUT: it did not end in time;
 * - MF_E_NOT_FOUND, at once: no such task, or its completion was handed out;
 * - MF_E_INVALID: not an engine, NULL, or another thread waits for the same task.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `id` is NULL or valid for a read, `completion` is NULL or valid for a write.
 */
int32_t mf_wait(struct mf_engine *engine,
                const struct mf_task_id *id,
                struct mf_completion *completion,
                int64_t timeout_ns);

/**
 * Gives the result of a completion back: its `data` is gone afterwards. Completions with a
 * `handle` of 0 have nothing to give back; releasing them is allowed and does nothing.
 *
 * - `engine`: is not looked at, and may be NULL: results outlive the engine, and may be released
 *   after mf_engine_free().
 * - `completion`: as mf_poll() or mf_wait() filled it, or a copy. It is not changed.
 *
 * Returns MF_OK, or MF_E_INVALID for NULL or a completion that was released already. Any thread.
 * Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `completion` is NULL or valid for a read; nobody reads its `data` any more.
 */
int32_t mf_completion_release(struct mf_engine *engine, const struct mf_completion *completion);

/**
 * mf_completion_release() for an array, at less cost.
 *
 * - `engine`: is not looked at, and may be NULL.
 * - `completions`: the array; it is not changed.
 * - `count`: its length.
 *
 * Returns MF_OK, or MF_E_INVALID if `completions` is NULL while `count` is not 0, or if some of
 * them had been released already; the others are released. Any thread. Forked child:
 * MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `completions` is NULL or valid for reads of `count` elements; nobody reads their `data` any
 * more.
 */
int32_t mf_completion_release_batch(struct mf_engine *engine,
                                    const struct mf_completion *completions,
                                    size_t count);

/**
 * Counters of an engine.
 *
 * - `engine`: the engine; also after mf_engine_stop().
 * - `stats`: receives them; its `size` is set by the caller.
 *
 * Returns MF_OK, or MF_E_INVALID: not an engine, NULL, or a size that no version of
 * mf_engine_stats has. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `stats` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_stats(struct mf_engine *engine, struct mf_engine_stats *stats);

/**
 * One row for each worker process.
 *
 * - `engine`: the engine.
 * - `rows`: receives the rows, an array of elements of `row_size` bytes; may be NULL if `max` is 0.
 * - `row_size`: the caller's sizeof(mf_worker_row).
 * - `max`: the length of the array.
 *
 * Returns how many workers there are: if that is more than `max`, only the first `max` rows were
 * written. Or MF_E_INVALID: not an engine, NULL, or a size that no version of mf_worker_row has.
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `rows` is NULL or valid for writes of `max * row_size` bytes.
 */
int32_t mf_worker_stats(struct mf_engine *engine,
                        struct mf_worker_row *rows,
                        size_t row_size,
                        size_t max);

/**
 * What the engine's parts do, as JSON: an object with the engine's state, counters, classes, workers,
 * histograms, crashes and decisions, which docs/status.md describes.
 *
 * - `engine`: the engine.
 * - `buf`: receives as much of the text as fits, cut at a character, and a NUL; may be NULL if
 *   `cap` is 0.
 * - `cap`: bytes at `buf`.
 *
 * Returns the length of the whole text in bytes without the NUL: it was cut if that is not below
 * `cap`. Or MF_E_INVALID: not an engine, or NULL. Any thread. Forked child: MF_E_INVALID.
 * Since 0.1.
 *
 * Pointers:
 * `buf` is NULL or valid for writes of `cap` bytes.
 */
int32_t mf_status_json(struct mf_engine *engine,
                       char *buf,
                       size_t cap);

/**
 * The name by which others can watch the engine: the one in mf_config, or an automatic one.
 *
 * - `engine`, `buf`, `cap`: as for mf_status_json().
 *
 * Returns the length of the name in bytes without the NUL, at most 64; 0 if it has none. Or
 * MF_E_INVALID: not an engine, or NULL. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `buf` is NULL or valid for writes of `cap` bytes.
 */
int32_t mf_engine_name(struct mf_engine *engine, char *buf, size_t cap);

/**
 * The engine's counters, gauges and histograms in the text format of Prometheus (0.0.4).
 *
 * - `engine`, `buf`, `cap`: as for mf_status_json().
 *
 * Returns the length of the whole text in bytes without the NUL: it was cut if that is not below
 * `cap`, and is of no use then. Leave room beyond that when asking again: every text is of its own
 * moment. Or MF_E_INVALID: not an engine, or NULL. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `buf` is NULL or valid for writes of `cap` bytes.
 */
int32_t mf_metrics_text(struct mf_engine *engine,
                        char *buf,
                        size_t cap);

/**
 * The last decisions about numbers of workers, from the oldest to the newest.
 *
 * - `engine`: the engine; also after mf_engine_stop().
 * - `decisions`: receives them, an array of elements of `decision_size` bytes; may be NULL if `max` is 0.
 * - `decision_size`: the caller's sizeof(mf_scaling_decision).
 * - `max`: the length of the array.
 *
 * Returns how many are kept, at most 1000: if that is more than `max`, only the newest `max` were
 * written. Or MF_E_INVALID: not an engine, NULL, or a size that no version of mf_scaling_decision has.
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `decisions` is NULL or valid for writes of `max * decision_size` bytes.
 */
int32_t mf_scaling_decisions(struct mf_engine *engine,
                             struct mf_scaling_decision *decisions,
                             size_t decision_size,
                             size_t max);

/**
 * The payload of the task in hand, read in place.
 *
 * - `task`: the task in hand.
 * - `len`: receives the payload's bytes.
 *
 * Returns the payload, which is read-only and stays until the task ends; not NULL, also if it is
 * empty. NULL if `task` is not a task in hand or `len` is NULL (MF_E_INVALID for
 * mf_last_error()). One thread at a time for one task. Forked child: NULL. Since 0.1.
 *
 * Pointers:
 * `len` is NULL or valid for a write.
 */
const void *mf_task_payload(const struct mf_task *task, size_t *len);

/**
 * The id of the task in hand, as mf_submit() gave it to the host.
 *
 * - `task`: the task in hand.
 * - `id`: receives it.
 *
 * Returns MF_OK, or MF_E_INVALID for a stale task or NULL. One thread at a time for one task.
 * Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `id` is NULL or valid for a write.
 */
int32_t mf_task_get_id(const struct mf_task *task, struct mf_task_id *id);

/**
 * The submitter's own id for the task in hand, mf_submit_opts.label; zeros if none was given.
 *
 * - `task`: the task in hand.
 * - `label`: receives 16 bytes.
 *
 * Returns MF_OK, or MF_E_INVALID for a stale task or NULL. One thread at a time for one task.
 * Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `label` is NULL or valid for a write of 16 bytes.
 */
int32_t mf_task_get_label(const struct mf_task *task, uint8_t *label);

/**
 * 1 in the first start of the task in hand, 2 in the second, and so on; 0 if it is not a task in
 * hand (MF_E_INVALID for mf_last_error()). One thread at a time for one task. Forked child: 0.
 * Since 0.1.
 */
uint32_t mf_task_attempt(const struct mf_task *task);

/**
 * The number that the submitter gave as mf_submit_opts.user_data; 0 if it is not a task in hand
 * (MF_E_INVALID for mf_last_error()). One thread at a time for one task. Forked child: 0.
 * Since 0.1.
 */
uint64_t mf_task_user_data(const struct mf_task *task);

/**
 * Sets the result of the task in hand, copying it. A second reply replaces the first; a failure
 * replaces them all. After a failure with data there is no reply any more (MF_E_INVALID).
 *
 * - `task`: the task in hand.
 * - `data`, `len`: the result in bytes; `data` may be NULL if `len` is 0.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: a stale task, or NULL with a length;
 * - MF_E_TOO_LARGE: more than mf_config.max_result;
 * - MF_E_NO_MEMORY: the host holds all of this worker's result memory for longer than
 *   mf_config.reply_wait_ns, for which this call waits.
 *
 * One thread at a time for one task. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `data` is NULL or valid for reads of `len` bytes.
 */
int32_t mf_task_reply(struct mf_task *task, const void *data, size_t len);

/**
 * Room for a result of the task in hand, to be written in place: saves the copy of
 * mf_task_reply(). Its bytes are undefined at first.
 *
 * - `task`: the task in hand.
 * - `len`: bytes.
 * - `buf`: receives the address, valid until the task ends or is replied to again.
 *
 * Returns MF_OK, or the errors of mf_task_reply(), with `*buf` NULL. One thread at a time for one
 * task. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `buf` is NULL or valid for a write.
 */
int32_t mf_task_reply_buf(struct mf_task *task, size_t len, void **buf);

/**
 * Makes the task in hand fail when it ends, whatever its handler returns or mf_task_finish() is
 * given.
 *
 * - `task`: the task in hand.
 * - `code`: comes back as mf_completion.code; not 0.
 * - `text`: a string for people, which comes back as mf_completion.data; NULL = none. Bytes that
 *   are not UTF-8 are replaced.
 *
 * Returns MF_OK, or MF_E_INVALID for a stale task or a code of 0. One thread at a time for one
 * task. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `text` is NULL or a NUL-terminated string.
 */
int32_t mf_task_fail(struct mf_task *task, int32_t code, const char *text);

/**
 * mf_task_fail() with data for a program to read instead of a text: any bytes, as many as a result
 * may have, which come back as they are, with MF_F_DATA in mf_completion.flags.
 *
 * - `task`: the task in hand.
 * - `code`: comes back as mf_completion.code; not 0.
 * - `data`, `len`: bytes, which are copied; `data` may be NULL if `len` is 0.
 *
 * The data take the place of the result: an earlier reply is gone, and a later one is
 * MF_E_INVALID. Of several failures the last one counts, with a text or with data.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: a stale task, a code of 0, or NULL with a length;
 * - MF_E_TOO_LARGE, MF_E_NO_MEMORY: as for mf_task_reply(). The task has not failed by this call.
 *
 * Waits as mf_task_reply() does. One thread at a time for one task. Forked child: MF_E_INVALID.
 * Since 0.1.
 *
 * Pointers:
 * `data` is NULL or valid for reads of `len` bytes.
 */
int32_t mf_task_fail_data(struct mf_task *task, int32_t code, const void *data, size_t len);

/**
 * Tells whoever asks mf_task_state() how far the task in hand is. Cheap.
 *
 * - `task`: the task in hand.
 * - `done`, `total`: in units of the task's own; a `total` of 0 means that it is not known.
 *
 * Returns MF_OK, or MF_E_INVALID for a stale task. One thread at a time for one task. Forked
 * child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_task_progress(struct mf_task *task, uint64_t done, uint64_t total);

/**
 * Whether the host asked for the task in hand to be cancelled: it should then return soon, with a
 * code of its own or mf_task_fail(). Cheap.
 *
 * Returns 1 or 0, or MF_E_INVALID for a stale task. One thread at a time for one task. Forked
 * child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_task_cancelled(const struct mf_task *task);

/**
 * Ends a task that mf_worker_next() or mf_worker_take() gave out. The handle is stale afterwards,
 * and so is what mf_task_payload() and mf_task_reply_buf() gave.
 *
 * - `task`: the task in hand. A handler's task is none of those: it ends when the handler returns.
 * - `code`: 0 = completed, anything else = failed with that code.
 *
 * Returns MF_OK, or MF_E_INVALID for a stale task or a handler's. Any thread, not only the one
 * that took the task. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * No other thread uses the task during this call.
 */
int32_t mf_task_finish(struct mf_task *task, int32_t code);

/**
 * Ends a task that mf_worker_next() or mf_worker_take() gave out, with its result: mf_task_reply()
 * or mf_task_fail_data(), and mf_task_finish(), in one call.
 *
 * - `task`: the task in hand, not a handler's.
 * - `code`: 0 = completed, and the data are its result; anything else = failed with that code, and
 *   the data come back as they are, with MF_F_DATA in mf_completion.flags.
 * - `data`, `len`: bytes, which are copied; `data` may be NULL if `len` is 0.
 *
 * A code of 0 does not undo what mf_task_fail() or mf_task_fail_data() was told before; the data are
 * not used then. Any other code replaces that failure.
 *
 * Returns MF_OK: the task has ended and the handle is stale, as after mf_task_finish(). With every
 * error the task is still in hand (an earlier reply may be gone) and can be ended with something
 * smaller:
 * - MF_E_INVALID: a stale task or a handler's, or NULL with a length;
 * - MF_E_TOO_LARGE, MF_E_NO_MEMORY: as for mf_task_reply().
 *
 * Waits as mf_task_reply() does. Any thread, not only the one that took the task. Forked child:
 * MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `data` is NULL or valid for reads of `len` bytes; no other thread uses the task during this call.
 */
int32_t mf_task_end(struct mf_task *task,
                    int32_t code,
                    const void *data,
                    size_t len);

/**
 * The payload of the task in hand as memory of its own, which stays readable after the task's end:
 * for language runtimes whose objects lie over payloads and may outlive the task.
 *
 * - `task`: the task in hand, also a handler's.
 * - `data`: receives the address of the payload: not NULL, also if it is empty, and aligned to 64
 *   bytes. Read-only.
 * - `len`: receives its bytes.
 * - `view`: receives a handle for mf_view_detach() and mf_view_release(), never 0.
 *
 * The bytes are the payload until the task ends. After that the memory is still there, but the host
 * puts other payloads into it, unless mf_view_detach() was called before. Where a payload is shorter
 * than a page, the view is a copy: nothing is ever put into that, and detaching it costs nothing.
 *
 * Returns MF_OK, or with NULL, 0 and 0
 * - MF_E_INVALID: a stale task, or NULL;
 * - MF_E_NO_MEMORY: the process has too little memory or too many mappings (vm.max_map_count);
 * - MF_E_SYSTEM: the system refuses.
 *
 * The pages of the payload are mapped once more, at the cost of a system call; a task can have
 * several views. One thread at a time for one task. Forked child: MF_E_INVALID; but it inherits the
 * memory of the views that its parent has, for as long as it lives. Since 0.1.
 *
 * Pointers:
 * `data`, `len` and `view` are NULL or valid for a write.
 */
int32_t mf_task_view(const struct mf_task *task,
                     const void **data,
                     size_t *len,
                     uint64_t *view);

/**
 * Makes the memory of a view this process's own: it keeps the bytes that it has now, at the same
 * address, until mf_view_release(). To be called before the task ends, and only if something still
 * refers to the view: it costs a copy, and memory for it.
 *
 * - `view`: as mf_task_view() gave it. Detaching it again changes nothing.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: not a view, or one that was released;
 * - MF_E_NO_MEMORY, MF_E_SYSTEM: the system refuses. Nothing has changed.
 *
 * Other threads may read the memory meanwhile, and see what they saw before. Any thread. Forked
 * child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_view_detach(uint64_t view);

/**
 * Gives the memory of a view back, detached or not, before or after the end of its task. Nothing may
 * refer to it any more.
 *
 * - `view`: as mf_task_view() gave it. 0 is none: nothing happens.
 *
 * Returns MF_OK, or MF_E_INVALID for one that was released already, or is made up. Any thread.
 * Forked child: MF_E_INVALID, also for the parent's views. Since 0.1.
 *
 * Pointers:
 * Nobody reads the memory any more.
 */
int32_t mf_view_release(uint64_t view);

/**
 * Joins the lane that this program inherited from the engine that started it
 * (mf_config.worker_argv), or from the zygote that has forked it (MF_ZYGOTE). Once per process; the
 * engine sends tasks from then on.
 *
 * In a zygote's child this comes before anything else, threads above all: it restricts the process
 * as mf_config.sandbox says. After an error such a child must exit, by _exit().
 *
 * - `worker`: receives the handle.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: NULL, or the process was neither started by an engine nor forked by a zygote
 *   between mf_zygote_recv() and mf_zygote_reply(), or it has joined already;
 * - MF_E_CLOSED: the zygote that has forked it is gone;
 * - MF_E_UNSUPPORTED: host and worker use different versions of the shared layout;
 * - MF_E_NO_MEMORY, MF_E_SYSTEM: the system refuses.
 *
 * Starts a small thread, which ends this process if the host dies. From then on SIGTERM, which the
 * engine sends before it kills, makes mf_worker_next() answer MF_E_CLOSED and hands back what is not
 * started, unless the program has its own use for that signal. Any thread. Forked child:
 * MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `worker` is NULL or valid for a write.
 */
int32_t mf_worker_join(struct mf_worker **worker);

/**
 * Takes the next task. Threads may wait here side by side.
 *
 * - `worker`: the joined lane.
 * - `task`: receives the task, to be ended by mf_task_finish() or mf_task_end(), on any thread; NULL
 *   with every error.
 * - `timeout_ns`: nanoseconds to wait for one; < 0 for ever, 0 not at all.
 *
 * Returns MF_OK, or
 * - MF_E_TIMEOUT: none came in time;
 * - MF_E_CLOSED: the engine wants no more of this worker: finish what is in hand and leave;
 * - MF_E_WOULD_BLOCK: as many tasks are in hand as mf_worker_concurrency() says;
 * - MF_E_INVALID: not a worker, or NULL.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `task` is NULL or valid for a write.
 */
int32_t mf_worker_next(struct mf_worker *worker,
                       struct mf_task **task,
                       int64_t timeout_ns);

/**
 * mf_worker_next() that also tells everything about the task, for callers to whom each call is
 * dear: what mf_task_payload(), mf_task_get_id(), mf_task_get_label(), mf_task_attempt() and
 * mf_task_user_data() would.
 *
 * - `worker`: the joined lane.
 * - `work`: receives the task, to be ended as one of mf_worker_next() is; its `size` is set by the
 *   caller. Zeros with every error, except if it is unusable itself.
 * - `timeout_ns`: nanoseconds to wait for one; < 0 for ever, 0 not at all.
 *
 * Returns MF_OK, or the errors of mf_worker_next(); MF_E_INVALID also for a size that no version
 * of mf_work has. Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `work` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_worker_take(struct mf_worker *worker, struct mf_work *work, int64_t timeout_ns);

/**
 * How many tasks this program may hold at a time: mf_class_config.threads.
 *
 * Returns the number, or MF_E_INVALID if `worker` is not a worker. Any thread. Forked child:
 * MF_E_INVALID. Since 0.1.
 */
int32_t mf_worker_concurrency(const struct mf_worker *worker);

/**
 * The number of this worker in its engine, as in mf_completion.worker.
 *
 * Returns the number, or MF_E_INVALID if `worker` is not a worker. Any thread. Forked child:
 * MF_E_INVALID. Since 0.1.
 */
int32_t mf_worker_slot(const struct mf_worker *worker);

/**
 * The class whose tasks this worker runs.
 *
 * Returns MF_CPU_BOUND or MF_IO_BOUND, or MF_E_INVALID if `worker` is not a worker. Any thread.
 * Forked child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_worker_class(const struct mf_worker *worker);

/**
 * Gives up the lane: no more tasks are taken, and what the engine had sent in advance goes to
 * another worker. The program should finish what it has in hand, which is still possible, and
 * exit: it is killed after the engine's `stop_grace_ns`. `worker` is stale afterwards.
 *
 * Returns MF_OK, also for NULL, or MF_E_INVALID if `worker` is not a worker or has left already.
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_worker_leave(struct mf_worker *worker);

/**
 * For a language runtime that an engine has executed as its zygote (MF_ZYGOTE in mf_config.flags):
 * opens its end. Once per process.
 *
 * The runtime loads what its workers need, before or after this call, then repeats:
 * mf_zygote_recv(); fork; in the parent mf_zygote_reply(); in the child mf_worker_join() and what a
 * worker does. If it cannot start workers it says so by mf_zygote_fail(). It has its own process
 * group, signals at their defaults (but for SIGHUP, which is ignored), and of the host's
 * descriptors only 0 to 2 and mf_config.inherit_fds. If it ends, the engine executes it again; the
 * workers that it had go on.
 *
 * It notices the death of the host in mf_zygote_recv(), and only there. If it has threads, its
 * children may use only what survives a fork; and they end with the thread that forked them if that
 * ends before they have joined. It must not wait for workers itself: how they ended would be lost.
 *
 * Returns a descriptor that names the zygote in the other calls (not to be read, written or
 * closed), or
 * - MF_E_INVALID: this process was not executed as a zygote, or has opened it already;
 * - MF_E_UNSUPPORTED: the host has another version of the shared layout;
 * - MF_E_SYSTEM: the system refuses.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 */
int32_t mf_zygote_open(void);

/**
 * Waits until a worker is to be forked. Meanwhile the library reaps and reports workers that end
 * (no other children of this process), and when the host dies it kills them and removes the
 * engine's name.
 *
 * - `fd`: from mf_zygote_open().
 * - `request`: its `size` is set by the caller; receives the request. One that is not answered by
 *   mf_zygote_reply() before the next call counts as refused.
 *
 * Returns MF_OK, or
 * - MF_E_CLOSED: the runtime must exit;
 * - MF_E_INVALID: `fd` is not a zygote, or `request` is NULL or of a wrong size.
 *
 * Any thread, one at a time: others wait. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `request` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_zygote_recv(int32_t fd, struct mf_zygote_request *request);

/**
 * Answers the last request, in the process that received it, not in its child.
 *
 * - `fd`: from mf_zygote_open().
 * - `request`: as mf_zygote_recv() filled it.
 * - `pid`: the child that was forked; or, if that failed, < 0: the negative error number.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: `fd` is not a zygote, the request does not wait for an answer (any more), or
 *   `pid` is not a child of this process: then it counts as refused;
 * - MF_E_SYSTEM: no descriptor is left to watch the child, which is killed.
 *
 * Any thread. Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `request` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_zygote_reply(int32_t fd, const struct mf_zygote_request *request, int64_t pid);

/**
 * Tells the host that this runtime cannot start workers, and why: mf_engine_start() fails with that
 * text. In an engine that has started before, and has executed the runtime again since, it counts
 * as a failed start: it is tried again, and after several in a row tasks fail with that text. The
 * host kills this process.
 *
 * - `fd`: from mf_zygote_open().
 * - `text`: the reason, of which about 1000 bytes arrive; what is not UTF-8 in it is replaced. NULL
 *   = none.
 *
 * Returns MF_OK, MF_E_CLOSED if the host is gone, or MF_E_INVALID if `fd` is not a zygote. Any
 * thread; waits for another thread's mf_zygote_recv(). Forked child: MF_E_INVALID. Since 0.1.
 *
 * Pointers:
 * `text` is NULL or a NUL-terminated string.
 */
int32_t mf_zygote_fail(int32_t fd, const char *text);

/**
 * Chooses which messages of the library are kept for mf_log_read(): none before the first call. The
 * library itself never prints anything.
 *
 * - `level`: MF_LOG_OFF to MF_LOG_TRACE; messages of this level and of those below are kept, for all
 *   engines of the process. What waits already, stays.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: no such level;
 * - MF_E_UNSUPPORTED: the library is part of a Rust program that has set a logger, which gets the
 *   messages. Its level is not changed.
 *
 * Any thread. Forked child: has a queue of its own, from its first call of this or of mf_log_read()
 * on. Before that no message is kept in it, and no lock taken: workers that run a handler log
 * nothing. Since 0.1.
 */
int32_t mf_log_level(int32_t level);

/**
 * Fetches the oldest message of the log that was not fetched yet; see mf_log_level().
 *
 * For a program that would rather be called: mf_set_log(). A thread that reads is the better way where
 * a call from a foreign thread is dear, as in an interpreter.
 *
 * - `record`: receives the message; its `size` is set by the caller.
 * - `timeout_ns`: nanoseconds to wait for one; < 0 for ever, 0 not at all.
 *
 * Up to 1024 messages wait to be fetched. When there are that many, the newest are dropped, and
 * mf_log_record.dropped of the next one that is not says how many.
 *
 * Returns MF_OK, or, with `record` as it was,
 * - MF_E_TIMEOUT: none came in time;
 * - MF_E_CLOSED: mf_log_wake() ended the wait;
 * - MF_E_INVALID: NULL, or a size that no version of mf_log_record has.
 *
 * Any thread; several may wait, and each message goes to one of them. Forked child: reads a queue of
 * its own. Since 0.1.
 *
 * Pointers:
 * `record` is NULL or valid for as many bytes as its size says.
 */
int32_t mf_log_read(struct mf_log_record *record,
                    int64_t timeout_ns);

/**
 * Ends one mf_log_read() that waits, which then answers MF_E_CLOSED; if none waits, the next one
 * that is called with a timeout other than 0. So a thread that reads the log can be joined at exit,
 * whatever it does at the moment. Messages that wait stay, to be fetched with a timeout of 0.
 *
 * Returns MF_OK. Any thread. Forked child: for its own queue. Since 0.1.
 */
int32_t mf_log_wake(void);

/**
 * Has each message of the log told to a function; see mf_log_fn for what it may do, and mf_log_level()
 * for what messages there are. It replaces the function that was told before.
 *
 * - `function`: NULL for none. What waits is told to the one before; when this returns, that is not
 *   called any more.
 * - `user`: its first argument.
 * - `level`: as for mf_log_level(), which this calls.
 *
 * Returns MF_OK, or
 * - MF_E_INVALID: no such level, or called by the function itself;
 * - MF_E_UNSUPPORTED: as for mf_log_level();
 * - MF_E_SYSTEM: no thread could be started.
 *
 * A thread that waits in mf_log_read() meanwhile gets some of the messages in place of the function.
 * Waits for the function that was told before to return. Any thread. Forked child: has no function until
 * it sets one. Since 0.1.
 *
 * Pointers:
 * `function` is NULL or what mf_log_fn says, with this `user`, until it is replaced.
 */
int32_t mf_set_log(mf_log_fn function,
                   void *user,
                   int32_t level);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MINIFLOW_H */
