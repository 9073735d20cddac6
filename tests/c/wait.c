/* Description: waiting for one task: who gets it, time-outs, a second waiter. */
#include "test.h"

static int32_t slow(void *user, mf_task *task) {
  size_t len;
  const void *payload = mf_task_payload(task, &len);
  (void)user;
  sleep_ms((long)mf_task_user_data(task));
  return mf_task_reply(task, payload, len);
}

static mf_engine *engine;
static mf_task_id awaited;

static void *first_waiter(void *arg) {
  mf_completion done;
  (void)arg;
  IS(mf_wait(engine, &awaited, &done, -1), MF_OK);
  CHECK(done.len == 5 && memcmp(done.data, "first", 5) == 0);
  IS(mf_completion_release(engine, &done), MF_OK);
  return NULL;
}

static void submit(const char *text, uint64_t ms, mf_task_id *id) {
  mf_submit_opts opts;
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = ms;
  IS(mf_submit(engine, text, strlen(text), &opts, id), MF_OK);
}

int main(void) {
  mf_config cfg = config(slow, NULL, 1, 2);
  mf_completion done, polled;
  mf_task_id id;
  pthread_t thread;
  int64_t before;
  int i;

  watchdog(60);
  engine = start(&cfg);

  /* Already polled: not found, at once. */
  submit("polled", 0, &id);
  IS(mf_poll(engine, &polled, 1, -1), 1);
  IS(mf_wait(engine, &id, &done, -1), MF_E_NOT_FOUND);
  IS(mf_completion_release(NULL, &polled), MF_OK);

  /* Waited for: never polled. The second waiter is refused. */
  submit("first", 200, &awaited);
  IS(pthread_create(&thread, NULL, first_waiter, NULL), 0);
  sleep_ms(60);
  IS(mf_wait(engine, &awaited, &done, -1), MF_E_INVALID);
  IS(mf_poll(engine, &polled, 1, 0), 0);
  IS(pthread_join(thread, NULL), 0);
  IS(mf_poll(engine, &polled, 1, 0), 0);

  /* A time-out is one, and the completion is not lost. */
  submit("late", 100, &id);
  before = now_ns();
  IS(mf_wait(engine, &id, &done, 20 * MS), MF_E_TIMEOUT);
  CHECK(now_ns() - before >= 20 * MS);
  IS(mf_wait(engine, &id, &done, 0), MF_E_TIMEOUT);
  IS(mf_wait(engine, &id, &done, 5 * SECOND), MF_OK);
  CHECK(done.run_ns >= 100 * MS && done.user_data == 100);
  IS(mf_completion_release(engine, &done), MF_OK);
  submit("late", 50, &id);
  IS(mf_wait(engine, &id, &done, 1 * MS), MF_E_TIMEOUT);
  IS(mf_poll(engine, &done, 1, 5 * SECOND), 1);
  IS(mf_completion_release(engine, &done), MF_OK);

  /* An empty poll waits as long as it was told to. */
  before = now_ns();
  IS(mf_poll(engine, &done, 1, 30 * MS), 0);
  CHECK(now_ns() - before >= 30 * MS);

  /* Round trips. */
  for (i = 0; i < 2000; i++) {
    submit("ping", 0, &id);
    IS(mf_wait(engine, &id, &done, -1), MF_OK);
    CHECK(memcmp(&id, &done.id, sizeof id) == 0 && done.len == 4);
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
