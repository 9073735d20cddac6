/* Description: bad input of every kind has its documented error, and does no harm. */
#include "test.h"

static void configs(void) {
  mf_config cfg;
  mf_engine *engine = NULL;
  char name[80];
  const char *argv[2] = {NULL, NULL};
  const int32_t bad_fd = -1;
  const uint32_t cpu = 0;

  IS(mf_config_init(NULL, sizeof cfg), MF_E_INVALID);
  IS(mf_config_init((mf_config *)((char *)&cfg + 1), sizeof cfg), MF_E_INVALID);
  IS(mf_config_init(&cfg, 0), MF_E_INVALID);
  IS(mf_config_init(&cfg, 8), MF_E_INVALID);
  IS(mf_config_init(&cfg, (size_t)-8), MF_E_INVALID);
  IS(mf_engine_start(NULL, &engine), MF_E_INVALID);
  cfg = config(echo, NULL, 1, 1);
  IS(mf_engine_start(&cfg, NULL), MF_E_INVALID);
  IS(mf_engine_start((mf_config *)((char *)&cfg + 4), &engine), MF_E_INVALID);

#define REFUSED(change, code)               \
  do {                                      \
    cfg = config(echo, NULL, 1, 1);         \
    change;                                 \
    IS(mf_engine_start(&cfg, &engine), code); \
    CHECK(engine == NULL);                  \
    CHECK(strlen(mf_last_error()) > 0);     \
  } while (0)

  /* The size: short, long, odd. */
  REFUSED(cfg.size = 0, MF_E_INVALID);
  REFUSED(cfg.size = 336 - 8, MF_E_INVALID); /* 336: its first version */
  REFUSED(cfg.size += 4, MF_E_INVALID);
  REFUSED(cfg.size = 1u << 30, MF_E_INVALID);
  /* Nonsense. */
  REFUSED(cfg.handler = NULL, MF_E_INVALID);
  REFUSED(argv[0] = "true"; cfg.worker_argv = argv, MF_E_INVALID);
  REFUSED(argv[0] = NULL; cfg.worker_argv = argv; cfg.handler = NULL, MF_E_INVALID);
  REFUSED(cfg.flags = MF_ZYGOTE, MF_E_INVALID); /* without worker_argv */
  REFUSED(cfg.flags = 2, MF_E_INVALID);
  REFUSED(cfg.name = "no/slash", MF_E_INVALID);
  REFUSED(cfg.name = "\xff\xfe", MF_E_INVALID);
  memset(name, 'a', sizeof name);
  name[sizeof name - 1] = 0;
  REFUSED(cfg.name = name, MF_E_INVALID);
  REFUSED(cfg.classes[0].threads = 0, MF_E_INVALID);
  REFUSED(cfg.classes[0].threads = 100000, MF_E_INVALID);
  REFUSED(cfg.classes[0].min_workers = 2, MF_E_INVALID);
  REFUSED(cfg.classes[0].max_workers = 100000, MF_E_INVALID);
  REFUSED(cfg.classes[0].min_workers = 0; cfg.classes[0].max_workers = 0, MF_E_INVALID);
  REFUSED(cfg.classes[0].nice = 20, MF_E_INVALID);
  REFUSED(cfg.classes[1].nice = -21, MF_E_INVALID);
  REFUSED(cfg.classes[1].scheduler = 4, MF_E_INVALID);
  REFUSED(cfg.classes[1].scheduler = -1, MF_E_INVALID);
  REFUSED(cfg.classes[0].io_priority = 7, MF_E_INVALID);
  REFUSED(cfg.classes[0].io_priority = MF_IO_BEST_EFFORT + 8, MF_E_INVALID);
  REFUSED(cfg.classes[0].io_priority = INT32_MIN, MF_E_INVALID);
  REFUSED(cfg.max_tasks = 0, MF_E_INVALID);
  REFUSED(cfg.max_tasks = (1u << 20) + 1, MF_E_INVALID);
  REFUSED(cfg.inline_payload = 41, MF_E_INVALID);
  REFUSED(cfg.inline_result = 153, MF_E_INVALID);
  REFUSED(cfg.payload_arena = 1, MF_E_INVALID);
  REFUSED(cfg.max_result = 0, MF_E_INVALID);
  REFUSED(cfg.spin_ns = -1, MF_E_INVALID);
  REFUSED(cfg.start_timeout_ns = -1, MF_E_INVALID);
  REFUSED(cfg.dispatch_policy = 4, MF_E_INVALID);
  REFUSED(cfg.dispatch_policy = -1, MF_E_INVALID);
  REFUSED(cfg.dispatch_policy = MF_DISPATCH_CUSTOM, MF_E_INVALID); /* without a function */
  REFUSED(cfg.scaling_policy = 99, MF_E_INVALID);
  REFUSED(cfg.scaling_interval_ns = -1, MF_E_INVALID);
  REFUSED(cfg.scaling_policy = MF_SCALING_CUSTOM, MF_E_INVALID); /* without a function */
  REFUSED(cfg.scaling_idle_looks = 3, MF_E_INVALID);            /* without a policy */
  REFUSED(cfg.scaling_policy = MF_SCALING_DEFAULT; cfg.scaling_interval_ns = 1, MF_E_INVALID);
  REFUSED(cfg.scaling_policy = MF_SCALING_DEFAULT; cfg.scaling_cpu_permille = 1001, MF_E_INVALID);
  REFUSED(cfg.affinity = 4, MF_E_INVALID);
  REFUSED(cfg.affinity = -1, MF_E_INVALID);
  REFUSED(cfg.affinity = MF_AFFINITY_LIST, MF_E_INVALID); /* without a list */
  REFUSED(cfg.affinity = MF_AFFINITY_LIST; cfg.affinity_count = 1, MF_E_INVALID);
  REFUSED(cfg.affinity = MF_AFFINITY_LIST; cfg.affinity_cpus = &cpu; cfg.affinity_count = (size_t)-1,
          MF_E_INVALID);
  REFUSED(cfg.affinity_cpus = &cpu; cfg.affinity_count = 1, MF_E_INVALID); /* not a list */
  REFUSED(cfg.affinity_node = 1, MF_E_INVALID);                            /* not a node */
  REFUSED(cfg.class_affinity[1].affinity = 4, MF_E_INVALID);
  REFUSED(cfg.class_affinity[1].affinity = MF_AFFINITY_LIST, MF_E_INVALID);
  REFUSED(cfg.class_affinity[0].node = 1, MF_E_INVALID);
  REFUSED(cfg.huge_pages = 2, MF_E_INVALID);
  REFUSED(cfg.sandbox = 1u << 31, MF_E_INVALID);
  REFUSED(cfg.default_attempts = 65536, MF_E_INVALID);
  REFUSED(cfg.kill_grace_ns = -1, MF_E_INVALID);
  REFUSED(cfg.sandbox = MF_SANDBOX_SECCOMP | 16, MF_E_INVALID);
  REFUSED(cfg.sandbox_memory = 1, MF_E_INVALID); /* without MF_SANDBOX_RLIMITS */
  REFUSED(cfg.sandbox = MF_SANDBOX_SECCOMP; cfg.sandbox_cpu_s = 1, MF_E_INVALID);
  REFUSED(cfg.sandbox = MF_SANDBOX_RLIMITS; cfg.sandbox_files = 15, MF_E_INVALID);
  REFUSED(cfg.sandbox = MF_SANDBOX_RLIMITS; cfg.sandbox_memory = 1 << 20, MF_E_INVALID);
  REFUSED(cfg.inherit_count = 1, MF_E_INVALID);
  REFUSED(cfg.inherit_fds = &bad_fd; cfg.inherit_count = 1, MF_E_INVALID);
  REFUSED(cfg.inherit_fds = &bad_fd; cfg.inherit_count = (size_t)-1, MF_E_INVALID);
  /* A program that cannot be executed: whatever the error, there is one, and no engine. */
  cfg = config(NULL, NULL, 1, 1);
  argv[0] = "/nowhere/at/all";
  cfg.worker_argv = argv;
  cfg.start_timeout_ns = 5 * SECOND;
  CHECK(mf_engine_start(&cfg, &engine) < 0 && engine == NULL);
}

/* A struct of a later version: zeros at its end are fine, anything else is not. */
static void later_versions(void) {
  struct {
    mf_config cfg;
    uint64_t later;
  } longer;
  mf_engine *engine = NULL;
  memset(&longer, 0xff, sizeof longer);
  IS(mf_config_init(&longer.cfg, sizeof longer), MF_OK);
  CHECK(longer.later == 0 && longer.cfg.size == sizeof longer);
  longer.cfg = config(echo, NULL, 1, 1);
  longer.cfg.size = sizeof longer;
  longer.later = 1;
  IS(mf_engine_start(&longer.cfg, &engine), MF_E_INVALID);
  longer.later = 0;
  IS(mf_engine_start(&longer.cfg, &engine), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
}

static void submits(mf_engine *engine) {
  static char big[(1 << 20) + 1];
  mf_submit_opts opts;
  mf_submission subs[2];
  mf_task_id id, ids[2];
  mf_completion completion;

  IS(mf_submit_opts_init(NULL, sizeof opts), MF_E_INVALID);
  IS(mf_submit_opts_init(&opts, sizeof opts - 1), MF_E_INVALID);
  IS(mf_submit(engine, NULL, 1, NULL, &id), MF_E_INVALID);
  IS(mf_submit(engine, "x", (size_t)-1, NULL, &id), MF_E_TOO_LARGE);
  IS(mf_submit(engine, big, sizeof big, NULL, &id), MF_E_TOO_LARGE);
  IS(mf_submit_wait(engine, big, sizeof big, NULL, &id, -1), MF_E_TOO_LARGE);

#define WITH(change, code)                                      \
  do {                                                          \
    IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);         \
    change;                                                     \
    IS(mf_submit(engine, "x", 1, &opts, &id), code);            \
    IS(mf_submit_wait(engine, "x", 1, &opts, &id, -1), code);   \
  } while (0)
  WITH(opts.size = 0, MF_E_INVALID);
  WITH(opts.size -= 8, MF_E_INVALID);
  WITH(opts.size = 3000000, MF_E_INVALID);
  WITH(opts.task_class = 2, MF_E_INVALID);
  WITH(opts.task_class = -1, MF_E_INVALID);
  WITH(opts.task_class = MF_IO_BOUND, MF_E_INVALID); /* has no workers here */
  WITH(opts.priority = 4, MF_E_INVALID);
  WITH(opts.priority = INT32_MIN, MF_E_INVALID);
  WITH(opts.reserved0 = 1, MF_E_INVALID);
  WITH(opts.flags = 1u << 20, MF_E_INVALID);
  WITH(opts.max_attempts = 65536, MF_E_INVALID);

  memset(subs, 0, sizeof subs);
  IS(mf_submit_batch(engine, NULL, sizeof subs[0], 1, ids), MF_E_INVALID);
  IS(mf_submit_batch(engine, NULL, sizeof subs[0], 0, NULL), 0);
  IS(mf_submit_batch(engine, subs, 0, 1, ids), MF_E_INVALID);
  IS(mf_submit_batch(engine, subs, sizeof subs[0] - 1, 1, ids), MF_E_INVALID);
  IS(mf_submit_batch(engine, subs, sizeof subs[0] - 8, 1, ids), MF_E_INVALID);
  subs[0].size = 8;
  IS(mf_submit_batch(engine, subs, sizeof subs[0], 1, ids), MF_E_INVALID);
  subs[0].size = sizeof subs[0];
  subs[0].reserved0 = 1;
  IS(mf_submit_batch(engine, subs, sizeof subs[0], 1, ids), MF_E_INVALID);
  subs[0].reserved0 = 0;
  subs[0].len = 1;
  IS(mf_submit_batch(engine, subs, sizeof subs[0], 1, ids), MF_E_INVALID);

  /* No length is a length. */
  IS(mf_submit(engine, NULL, 0, NULL, &id), MF_OK);
  IS(mf_wait(engine, &id, &completion, 5 * SECOND), MF_OK);
  CHECK(completion.outcome == MF_COMPLETED && completion.len == 0 && completion.handle == 0);
  CHECK(completion.data == NULL && completion.attempt == 1);
  IS(mf_completion_release(engine, &completion), MF_OK); /* nothing to release */
  IS(mf_completion_release(engine, NULL), MF_E_INVALID);

  /* A stale id. */
  IS(mf_wait(engine, &id, &completion, -1), MF_E_NOT_FOUND);
  IS(mf_wait(engine, NULL, &completion, 0), MF_E_INVALID);
  IS(mf_wait(engine, &id, NULL, 0), MF_E_INVALID);
  IS(mf_cancel(engine, &id, 0), MF_E_NOT_FOUND);
  IS(mf_cancel(engine, &id, MF_CANCEL_KILL), MF_E_NOT_FOUND);
  IS(mf_cancel(engine, &id, MF_CANCEL_UNSTARTED), MF_E_NOT_FOUND);
  IS(mf_cancel(engine, &id, MF_CANCEL_UNSTARTED | MF_CANCEL_KILL), MF_E_INVALID);
  IS(mf_cancel(engine, &id, 4), MF_E_INVALID);
  IS(mf_cancel(engine, NULL, 0), MF_E_INVALID);
  memset(&id, 0xee, sizeof id);
  IS(mf_wait(engine, &id, &completion, -1), MF_E_NOT_FOUND);
  IS(mf_poll(engine, NULL, 1, 0), MF_E_INVALID);
  IS(mf_poll(engine, (mf_completion *)((char *)&completion + 4), 1, 0), MF_E_INVALID);
  IS(mf_poll(engine, NULL, 0, -1), 0);
  IS(mf_poll(engine, &completion, 1, 0), 0);
}

static void outputs(mf_engine *engine) {
  mf_engine_stats stats;
  mf_worker_row row;
  mf_task_info info;
  mf_task_id id;
  char json[8];

  memset(&id, 0, sizeof id);
  IS(mf_stats(engine, NULL), MF_E_INVALID);
  stats.size = 12;
  IS(mf_stats(engine, &stats), MF_E_INVALID);
  stats.size = sizeof stats;
  IS(mf_stats(engine, &stats), MF_OK);
  CHECK(stats.workers == 1 && stats.size == sizeof stats);
  IS(mf_worker_stats(engine, NULL, sizeof row, 1), MF_E_INVALID);
  IS(mf_worker_stats(engine, &row, sizeof row - 8, 1), MF_E_INVALID);
  IS(mf_worker_stats(engine, NULL, sizeof row, 0), 1);
  IS(mf_worker_stats(engine, &row, sizeof row, 1), 1);
  CHECK(row.pid > 1 && row.state == MF_WORKER_READY && row.size == sizeof row);
  info.size = 8;
  IS(mf_task_state(engine, &id, &info), MF_E_INVALID);
  info.size = sizeof info;
  IS(mf_task_state(engine, &id, &info), MF_E_NOT_FOUND);
  IS(mf_task_state(engine, NULL, &info), MF_E_INVALID);
  IS(mf_task_state(engine, &id, NULL), MF_E_INVALID);
  CHECK(mf_status_json(engine, NULL, 0) > 100);
  IS(mf_status_json(engine, NULL, 5), MF_E_INVALID);
  CHECK(mf_status_json(engine, json, sizeof json) > 100 && strlen(json) == 7);
  CHECK(mf_metrics_text(engine, NULL, 0) > 100);
  IS(mf_metrics_text(engine, NULL, 5), MF_E_INVALID);
  CHECK(mf_metrics_text(engine, json, sizeof json) > 100 && strlen(json) == 7);
  IS(mf_resize(engine, 5, 1), MF_E_INVALID);
  IS(mf_resize(engine, MF_CPU_BOUND, 2), MF_E_INVALID);
}

static void worker_side(void) {
  mf_worker *worker = (mf_worker *)&worker;
  mf_task *task = (mf_task *)&task;
  mf_task_id id;
  void *buf;
  size_t len = 7;

  IS(mf_worker_join(NULL), MF_E_INVALID);
  IS(mf_worker_join(&worker), MF_E_INVALID); /* no engine started this process */
  CHECK(worker == NULL);
  IS(mf_worker_next(NULL, &task, 0), MF_E_INVALID);
  IS(mf_worker_next((mf_worker *)&len, &task, 0), MF_E_INVALID);
  IS(mf_worker_leave(NULL), MF_OK);
  IS(mf_worker_leave((mf_worker *)&len), MF_E_INVALID);
  CHECK(mf_task_payload(NULL, &len) == NULL && len == 0);
  CHECK(mf_task_payload((mf_task *)&len, NULL) == NULL);
  IS(mf_task_attempt((mf_task *)&len), 0);
  IS(mf_task_user_data(NULL), 0);
  IS(mf_task_get_id(NULL, &id), MF_E_INVALID);
  IS(mf_task_reply(NULL, NULL, 0), MF_E_INVALID);
  IS(mf_task_reply_buf((mf_task *)&len, 1, &buf), MF_E_INVALID);
  IS(mf_task_fail(NULL, 1, "x"), MF_E_INVALID);
  IS(mf_task_progress(NULL, 1, 1), MF_E_INVALID);
  IS(mf_task_cancelled(NULL), MF_E_INVALID);
  IS(mf_task_finish(NULL, 0), MF_E_INVALID);
  IS(mf_zygote_open(), MF_E_INVALID); /* no engine executed this process as its zygote */
  IS(mf_zygote_recv(0, NULL), MF_E_INVALID);
  IS(mf_zygote_reply(0, NULL, 1), MF_E_INVALID);
  IS(mf_zygote_fail(0, NULL), MF_E_INVALID);
}

int main(void) {
  mf_config cfg;
  mf_engine *engine, *garbage[3];
  mf_task_id id;
  mf_completion completion;
  mf_loan_buf loan;
  size_t i;

  watchdog(120);
  IS(mf_abi_version(), MF_ABI_VERSION);
  CHECK(strcmp(mf_error_name(MF_E_CLOSED), "MF_E_CLOSED") == 0);
  CHECK(strcmp(mf_error_name(12345), "MF_E_UNKNOWN") == 0);
  CHECK(strcmp(mf_last_error(), "") == 0);
  worker_side();
  configs();
  later_versions();

  cfg = config(echo, NULL, 1, 1);
  cfg.max_payload = 1 << 20;
  engine = start(&cfg);
  submits(engine);
  outputs(engine);

  /* Stopped: twice, and what may follow. */
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_stop(engine, -1), MF_E_CLOSED);
  IS(mf_submit(engine, "x", 1, NULL, &id), MF_E_CLOSED);
  IS(mf_submit_wait(engine, "x", 1, NULL, &id, -1), MF_E_CLOSED);
  loan.size = sizeof loan;
  IS(mf_loan(engine, 8, &loan), MF_E_CLOSED);
  IS(mf_resize(engine, MF_CPU_BOUND, 1), MF_E_CLOSED);
  IS(mf_poll(engine, &completion, 1, 0), 0);
  IS(mf_poll(engine, &completion, 1, -1), MF_E_CLOSED);

  /* Not an engine: NULL, garbage, freed. */
  IS(mf_engine_free(engine), MF_OK);
  IS(mf_engine_free(NULL), MF_OK);
  garbage[0] = engine;
  garbage[1] = (mf_engine *)&cfg;
  garbage[2] = (mf_engine *)(uintptr_t)1;
  for (i = 0; i < 3; i++) {
    IS(mf_engine_free(garbage[i]), MF_E_INVALID);
    IS(mf_engine_stop(garbage[i], 0), MF_E_INVALID);
    IS(mf_submit(garbage[i], "x", 1, NULL, &id), MF_E_INVALID);
    IS(mf_poll(garbage[i], &completion, 1, 0), MF_E_INVALID);
    IS(mf_wait(garbage[i], &id, &completion, 0), MF_E_INVALID);
    IS(mf_event_fd(garbage[i]), MF_E_INVALID);
    IS(mf_stats(garbage[i], NULL), MF_E_INVALID);
    IS(mf_status_json(garbage[i], NULL, 0), MF_E_INVALID);
    IS(mf_engine_name(garbage[i], NULL, 0), MF_E_INVALID);
    IS(mf_metrics_text(garbage[i], NULL, 0), MF_E_INVALID);
  }
  IS(mf_submit(NULL, "x", 1, NULL, &id), MF_E_INVALID);
  return 0;
}
