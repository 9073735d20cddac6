/* Description: sticky keys; dispatch functions that choose, that name no worker, and that call the
 * engine; changing the policy of a running engine. */
#include "test.h"

enum { TASKS = 64 };

typedef struct chooser {
  mf_engine *engine;
  uint32_t slot;
  int calls;
  int bad_rows;
  int32_t inside;
} chooser;

static int32_t handler(void *user, mf_task *task) {
  (void)user;
  (void)task;
  return 0;
}

static int32_t by_slot(void *user, mf_class task_class, const mf_worker_row *rows, size_t row_size,
                       size_t count) {
  chooser *c = (chooser *)user;
  size_t i;
  int32_t found = -1;
  c->calls++;
  for (i = 0; i < count; i++) {
    const mf_worker_row *row = (const mf_worker_row *)((const char *)rows + i * row_size);
    if (row->size != row_size || row->task_class != task_class || row->state != MF_WORKER_READY ||
        row->pid == 0 || row->running + row->queued >= row->depth)
      c->bad_rows++;
    if (row->slot == c->slot) found = (int32_t)i;
  }
  return found;
}

static int32_t out_of_range(void *user, mf_class task_class, const mf_worker_row *rows,
                            size_t row_size, size_t count) {
  mf_engine_stats stats;
  chooser *c = (chooser *)user;
  (void)task_class;
  (void)rows;
  (void)row_size;
  stats.size = sizeof stats;
  c->inside = mf_stats(c->engine, &stats); /* not allowed: it must fail, not hang */
  return (int32_t)count;
}

static int32_t slow(void *user, mf_class task_class, const mf_worker_row *rows, size_t row_size,
                    size_t count) {
  sleep_ms(2);
  return by_slot(user, task_class, rows, row_size, count);
}

static uint64_t failures(mf_engine *engine) {
  mf_engine_stats stats;
  stats.size = sizeof stats;
  IS(mf_stats(engine, &stats), MF_OK);
  return stats.policy_failures;
}

/* Runs TASKS tasks, one after the other; the set of workers that ran them, a bit each. */
static uint32_t run(mf_engine *engine, uint64_t key) {
  uint32_t workers = 0;
  int i;
  for (i = 0; i < TASKS; i++) {
    mf_submit_opts opts;
    mf_task_id id;
    mf_completion done;
    IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
    opts.sticky_key = key;
    IS(mf_submit(engine, NULL, 0, &opts, &id), MF_OK);
    IS(mf_wait(engine, &id, &done, -1), MF_OK);
    IS(done.outcome, MF_COMPLETED);
    workers |= 1u << done.worker;
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  return workers;
}

int main(void) {
  mf_config cfg = config(handler, NULL, 3, 1);
  mf_engine *engine;
  chooser c;
  memset(&c, 0, sizeof c);
  c.slot = 2;
  cfg.dispatch_policy = MF_DISPATCH_CUSTOM;
  cfg.dispatch = by_slot;
  cfg.dispatch_user = &c;
  IS(mf_engine_start(&cfg, &engine), MF_OK);
  IS(run(engine, 0), 1u << 2);
  IS(c.bad_rows, 0);
  CHECK(c.calls >= TASKS);
  IS(failures(engine), 0);

  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_CUSTOM, NULL, NULL), MF_E_INVALID);
  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_ROUND_ROBIN, by_slot, &c), MF_E_INVALID);
  IS(mf_set_dispatch_policy(engine, 99, NULL, NULL), MF_E_INVALID);
  IS(mf_set_dispatch_policy(NULL, MF_DISPATCH_LEAST_LOADED, NULL, NULL), MF_E_INVALID);

  c.engine = engine;
  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_CUSTOM, out_of_range, &c), MF_OK);
  CHECK(run(engine, 0) != 0);
  IS(c.inside, MF_E_INTERNAL);
  CHECK(failures(engine) > 0);

  /* Slow is only slow. */
  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_CUSTOM, slow, &c), MF_OK);
  IS(run(engine, 0), 1u << 2);

  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_POWER_OF_TWO, NULL, NULL), MF_OK);
  CHECK(run(engine, 0) != 0);
  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_ROUND_ROBIN, NULL, NULL), MF_OK);
  IS(run(engine, 0), 7);
  {
    uint32_t home = run(engine, 4711);
    CHECK(home == 1 || home == 2 || home == 4);
    IS(run(engine, 4711), home);
  }
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_set_dispatch_policy(engine, MF_DISPATCH_LEAST_LOADED, NULL, NULL), MF_E_CLOSED);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
