/* Description: attempts, deadlines, retries and cancellation by force, and what the counters say. */
#include "test.h"

enum { DIE = 1, DIE_ONCE, SPIN, SPIN_ONCE, FAIL, FAIL_ONCE, FINE };

static int32_t handler(void *user, mf_task *task) {
  const int first = mf_task_attempt(task) == 1;
  (void)user;
  switch (mf_task_user_data(task)) {
    case DIE: raise(SIGKILL); return 1;
    case DIE_ONCE: if (first) raise(SIGKILL); return 0;
    case SPIN: for (;;) sleep_ms(1);
    case SPIN_ONCE: while (first) sleep_ms(1); return 0;
    case FAIL: return 5;
    case FAIL_ONCE: return first ? 5 : 0;
    default: return 0;
  }
}

static mf_engine *engine;

static mf_completion run(uint64_t what, uint32_t attempts, int64_t deadline_ns, uint32_t flags) {
  mf_submit_opts opts;
  mf_completion done;
  mf_task_id id;
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = what;
  opts.max_attempts = attempts;
  opts.deadline_ns = deadline_ns;
  opts.flags = flags;
  IS(mf_submit(engine, NULL, 0, &opts, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 20 * SECOND), MF_OK);
  IS(mf_completion_release(NULL, &done), MF_OK);
  return done;
}

static void by_force(void) {
  mf_submit_opts opts;
  mf_completion done;
  mf_task_info info;
  mf_task_id id;
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = SPIN;
  opts.deadline_ns = -1; /* none, in spite of the class's */
  IS(mf_submit(engine, NULL, 0, &opts, &id), MF_OK);
  memset(&info, 0, sizeof info);
  info.size = sizeof info;
  do {
    sleep_ms(1);
    IS(mf_task_state(engine, &id, &info), MF_OK);
  } while (info.state != MF_TASK_RUNNING || info.elapsed_ns < 200 * MS);
  IS(mf_cancel(engine, &id, MF_CANCEL_KILL), MF_OK);
  IS(mf_wait(engine, &id, &done, 20 * SECOND), MF_OK);
  CHECK(done.outcome == MF_CANCELLED && done.attempt == 1 && done.run_ns >= 200 * MS);
  IS(mf_completion_release(NULL, &done), MF_OK);
}

int main(void) {
  mf_config cfg = config(handler, NULL, 1, 1);
  mf_engine_stats stats;
  mf_worker_row row;
  mf_completion done;

  watchdog(60);
  cfg.kill_grace_ns = 5 * MS;
  cfg.default_attempts = 2;
  cfg.default_deadline_ns = 20 * SECOND;
  cfg.classes[MF_CPU_BOUND].deadline_ns = SECOND;
  engine = start(&cfg);
#define EXPECT(call, want_outcome, want_attempt) \
  done = call;                                   \
  IS(done.outcome, want_outcome);                \
  IS(done.attempt, want_attempt)

  EXPECT(run(DIE, 0, 0, 0), MF_CRASHED, 2);
  IS(done.code, SIGKILL);
  IS(done.flags, MF_F_BY_SIGNAL);
  EXPECT(run(DIE, 1, 0, 0), MF_CRASHED, 1);
  EXPECT(run(DIE_ONCE, 0, 0, 0), MF_COMPLETED, 2);
  EXPECT(run(FAIL, 3, 0, 0), MF_FAILED, 1);
  EXPECT(run(FAIL, 3, 0, MF_RETRY_FAILED), MF_FAILED, 3);
  EXPECT(run(FAIL_ONCE, 3, 0, MF_RETRY_FAILED | MF_RETRY_TIMEOUT), MF_COMPLETED, 2);
  EXPECT(run(SPIN, 3, 30 * MS, 0), MF_TIMED_OUT, 1);
  CHECK(done.run_ns >= 30 * MS && done.code == 0 && done.flags == 0);
  EXPECT(run(SPIN, 1, 0, 0), MF_TIMED_OUT, 1); /* the class's deadline */
  EXPECT(run(SPIN_ONCE, 2, 500 * MS, MF_RETRY_TIMEOUT), MF_COMPLETED, 2);
  by_force();

  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  IS(mf_stats(engine, &stats), MF_OK);
  IS(stats.crashed, 2);
  IS(stats.timed_out, 2);
  IS(stats.cancelled, 1);
  IS(stats.killed, 4);
  IS(stats.died, 4);
  IS(stats.retried, 6);
  EXPECT(run(FINE, 0, 0, 0), MF_COMPLETED, 1);
  IS(mf_worker_stats(engine, &row, sizeof row, 1), 1);
  IS(row.crashed, 2);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
