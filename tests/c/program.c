/* Description: this program as its own worker program: several tasks in hand, finished out of order
 * and on other threads; handles that go stale; a task that is not finished; the end. */
#include "test.h"

#define CONCURRENCY 4

static void *finish_elsewhere(void *task) {
  IS(mf_task_finish((mf_task *)task, 0), MF_OK);
  return NULL;
}

static int work(void) {
  mf_worker *worker, *again;
  mf_task *tasks[CONCURRENCY], *extra;
  pthread_t thread;
  size_t len;
  int rc, i, held = 0;

  IS(mf_worker_join(&worker), MF_OK);
  IS(mf_worker_join(&again), MF_E_INVALID); /* once */
  IS(mf_worker_concurrency(worker), CONCURRENCY);
  IS(mf_worker_slot(worker), 0);
  IS(mf_worker_next(worker, NULL, 0), MF_E_INVALID);

  /* As many as allowed, then no more. */
  for (i = 0; i < CONCURRENCY; i++) IS(mf_worker_next(worker, &tasks[i], -1), MF_OK);
  IS(mf_worker_next(worker, &extra, -1), MF_E_WOULD_BLOCK);
  CHECK(extra == NULL);
  for (i = CONCURRENCY - 1; i >= 0; i--) {
    const void *payload = mf_task_payload(tasks[i], &len);
    IS(mf_task_reply(tasks[i], payload, len), MF_OK);
    if (i % 2) {
      IS(pthread_create(&thread, NULL, finish_elsewhere, tasks[i]), 0);
      IS(pthread_join(thread, NULL), 0);
    } else {
      IS(mf_task_finish(tasks[i], 0), MF_OK);
    }
    IS(mf_task_finish(tasks[i], 0), MF_E_INVALID); /* twice */
    IS(mf_task_attempt(tasks[i]), 0);
    CHECK(mf_task_payload(tasks[i], &len) == NULL);
  }

  /* One by one until the engine wants no more. */
  while ((rc = mf_worker_next(worker, &extra, held ? 20 * MS : -1)) != MF_E_CLOSED) {
    if (rc == MF_E_TIMEOUT) {
      held = 0;
      continue;
    }
    IS(rc, MF_OK);
    held = 1;
    if (mf_task_user_data(extra) == 5) {
      IS(mf_task_fail(extra, 55, "five"), MF_OK);
      IS(mf_task_finish(extra, 0), MF_OK);
    } else {
      const void *payload = mf_task_payload(extra, &len);
      IS(mf_task_reply(extra, payload, len), MF_OK);
      IS(mf_task_finish(extra, mf_task_user_data(extra) == 6 ? 66 : 0), MF_OK);
    }
  }
  IS(mf_worker_next(worker, &extra, -1), MF_E_CLOSED);
  IS(mf_worker_leave(worker), MF_OK);
  IS(mf_worker_leave(worker), MF_E_INVALID);
  IS(mf_worker_next(worker, &extra, 0), MF_E_INVALID);
  return 0;
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  mf_config cfg = config(NULL, NULL, 1, CONCURRENCY);
  mf_engine *engine;
  mf_submit_opts opts;
  mf_completion done;
  char payload[1000];
  int i;

  watchdog(60);
  if (argc > 1 && strcmp(argv[1], "--worker") == 0) return work();
  worker_argv[0] = argv[0];
  worker_argv[1] = "--worker";
  worker_argv[2] = NULL;
  cfg.worker_argv = worker_argv;
  engine = start(&cfg);
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  for (i = 0; i < 1000; i++) {
    opts.user_data = (uint64_t)i;
    memset(payload, i % 256, sizeof payload);
    IS(mf_submit_wait(engine, payload, (size_t)i, &opts, NULL, -1), MF_OK);
  }
  for (i = 0; i < 1000; i++) {
    IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
    if (done.user_data == 5) {
      CHECK(done.outcome == MF_FAILED && done.code == 55 && memcmp(done.data, "five", 4) == 0);
    } else if (done.user_data == 6) {
      CHECK(done.outcome == MF_FAILED && done.code == 66);
    } else {
      memset(payload, (int)(done.user_data % 256), sizeof payload);
      CHECK(done.outcome == MF_COMPLETED && done.len == done.user_data);
      CHECK(done.len == 0 || memcmp(done.data, payload, done.len) == 0);
    }
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
