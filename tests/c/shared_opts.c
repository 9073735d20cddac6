/* Description: threads that share one set of options, each with user data of its own. */
#include "test.h"

#define THREADS 4
#define EACH 500

static mf_engine *engine;
static mf_submit_opts opts; /* read by all, written by none */

static void *submitter(void *first) {
  const uint64_t from = *(const uint64_t *)first;
  uint64_t i;
  for (i = from; i < from + EACH; i++) IS(mf_submit_as(engine, &i, sizeof i, &opts, i, NULL), MF_OK);
  return NULL;
}

/* Replies with what it sees of its options. */
static int32_t handler(void *user, mf_task *task) {
  uint8_t label[16];
  uint64_t payload;
  size_t len;
  (void)user;
  memcpy(&payload, mf_task_payload(task, &len), sizeof payload);
  if (payload != mf_task_user_data(task) || mf_task_get_label(task, label) != MF_OK) return 1;
  return mf_task_reply(task, label, sizeof label);
}

int main(void) {
  static char seen[THREADS * EACH];
  uint64_t firsts[THREADS], zero = 0;
  pthread_t threads[THREADS];
  mf_config cfg = config(handler, NULL, 1, 1);
  mf_completion done;
  mf_task_id id;
  int i;

  watchdog(60);
  cfg.max_tasks = THREADS * EACH;
  engine = start(&cfg);
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = 77777;
  memcpy(opts.label, "0123456789abcdef", 16);
  for (i = 0; i < THREADS; i++) {
    firsts[i] = (uint64_t)i * EACH; /* 0 is user data as any other */
    IS(pthread_create(&threads[i], NULL, submitter, &firsts[i]), 0);
  }
  for (i = 0; i < THREADS; i++) IS(pthread_join(threads[i], NULL), 0);
  for (i = 0; i < THREADS * EACH; i++) {
    IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
    CHECK(done.outcome == MF_COMPLETED && done.user_data < THREADS * EACH);
    CHECK(!seen[done.user_data]++);
    CHECK(done.len == 16 && memcmp(done.data, opts.label, 16) == 0);
    IS(mf_completion_release(engine, &done), MF_OK);
  }

  /* Without options, and what mf_submit() refuses. */
  IS(mf_submit_as(engine, &zero, sizeof zero, NULL, 0, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 10 * SECOND), MF_OK);
  CHECK(done.outcome == MF_COMPLETED && done.user_data == 0);
  IS(mf_completion_release(engine, &done), MF_OK);
  IS(mf_submit_as(engine, NULL, 1, &opts, 1, NULL), MF_E_INVALID);
  IS(mf_submit_as(NULL, "x", 1, &opts, 1, NULL), MF_E_INVALID);
  opts.priority = 9;
  IS(mf_submit_as(engine, "x", 1, &opts, 1, NULL), MF_E_INVALID);
  opts.priority = 0;
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_submit_as(engine, "x", 1, &opts, 1, NULL), MF_E_CLOSED);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
