/* Description: an engine that is freed while other threads wait in it; many threads at once. */
#include "test.h"

#define THREADS 4
#define EACH 3000

static mf_engine *engine;

static int32_t forever(void *user, mf_task *task) {
  (void)user;
  while (mf_task_cancelled(task) == 0) sleep_ms(1);
  return 1;
}

static void *poller(void *arg) {
  mf_completion done;
  int rc;
  (void)arg;
  while ((rc = mf_poll(engine, &done, 1, -1)) > 0) IS(mf_completion_release(NULL, &done), MF_OK);
  CHECK(rc == MF_E_CLOSED || rc == MF_E_INVALID);
  return NULL;
}

static void *waiter(void *id) {
  mf_completion done;
  IS(mf_wait(engine, (mf_task_id *)id, &done, -1), MF_OK);
  CHECK(done.outcome == MF_CANCELLED || done.outcome == MF_FAILED);
  IS(mf_completion_release(NULL, &done), MF_OK);
  return NULL;
}

static void *submitter(void *arg) {
  unsigned i;
  for (i = 0; i < EACH; i++) {
    int rc;
    /* Would block: everything is ready to be fetched, which is the other threads' business. */
    while ((rc = mf_submit_wait(engine, &i, sizeof i, NULL, NULL, -1)) == MF_E_WOULD_BLOCK)
      sched_yield();
    IS(rc, MF_OK);
  }
  return arg;
}

static unsigned fetched;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *fetcher(void *arg) {
  mf_completion done[33];
  for (;;) {
    const int n = mf_poll(engine, done, 33, -1);
    if (n == MF_E_CLOSED || n == MF_E_INVALID) return arg;
    CHECK(n > 0);
    IS(mf_completion_release_batch(engine, done, (size_t)n), MF_OK);
    pthread_mutex_lock(&lock);
    fetched += (unsigned)n;
    pthread_mutex_unlock(&lock);
  }
}

int main(void) {
  mf_config cfg = config(forever, NULL, 1, 1);
  pthread_t threads[2 * THREADS];
  mf_task_id id;
  int i, round;

  watchdog(120);
  cfg.stop_grace_ns = 100 * MS;
  for (round = 0; round < 5; round++) {
    engine = start(&cfg);
    IS(mf_submit(engine, NULL, 0, NULL, &id), MF_OK);
    IS(pthread_create(&threads[0], NULL, poller, NULL), 0);
    IS(pthread_create(&threads[1], NULL, poller, NULL), 0);
    IS(pthread_create(&threads[2], NULL, waiter, &id), 0);
    sleep_ms(30);
    IS(mf_engine_free(engine), MF_OK);
    for (i = 0; i < 3; i++) IS(pthread_join(threads[i], NULL), 0);
    IS(mf_engine_free(engine), MF_E_INVALID);
  }

  cfg = config(echo, NULL, 2, 2);
  cfg.max_tasks = 500;
  engine = start(&cfg);
  for (i = 0; i < THREADS; i++) {
    IS(pthread_create(&threads[i], NULL, submitter, NULL), 0);
    IS(pthread_create(&threads[THREADS + i], NULL, fetcher, NULL), 0);
  }
  for (i = 0; i < THREADS; i++) IS(pthread_join(threads[i], NULL), 0);
  IS(mf_engine_stop(engine, -1), MF_OK);
  for (i = 0; i < THREADS; i++) IS(pthread_join(threads[THREADS + i], NULL), 0);
  IS(fetched, THREADS * EACH);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
