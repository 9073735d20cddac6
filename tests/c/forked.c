/* Description: what a forked child of the host may not do, and what it may. */
#include "test.h"

static mf_engine *engine;
static mf_completion held;
static mf_loan_buf loan;

/* In the child: everything of the parent's is refused, at once, whatever other threads did. */
static int child(void) {
  mf_config cfg = config(echo, NULL, 1, 1);
  mf_engine *own;
  mf_engine_stats stats;
  mf_task_id id;
  mf_completion done;

  memset(&id, 0, sizeof id);
  stats.size = sizeof stats;
  IS(mf_submit(engine, "x", 1, NULL, &id), MF_E_INVALID);
  IS(mf_submit_as(engine, "x", 1, NULL, 1, &id), MF_E_INVALID);
  IS(mf_submit_wait(engine, "x", 1, NULL, &id, -1), MF_E_INVALID);
  IS(mf_submit_batch(engine, NULL, sizeof(mf_submission), 0, NULL), MF_E_INVALID);
  IS(mf_poll(engine, &done, 1, -1), MF_E_INVALID);
  IS(mf_wait(engine, &id, &done, -1), MF_E_INVALID);
  IS(mf_cancel(engine, &id, 0), MF_E_INVALID);
  IS(mf_stats(engine, &stats), MF_E_INVALID);
  IS(mf_worker_stats(engine, NULL, sizeof(mf_worker_row), 0), MF_E_INVALID);
  IS(mf_status_json(engine, NULL, 0), MF_E_INVALID);
  IS(mf_engine_name(engine, NULL, 0), MF_E_INVALID);
  IS(mf_metrics_text(engine, NULL, 0), MF_E_INVALID);
  IS(mf_event_fd(engine), MF_E_INVALID);
  IS(mf_resize(engine, MF_CPU_BOUND, 1), MF_E_INVALID);
  IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_E_INVALID);
  IS(mf_loan_drop(engine, &loan), MF_E_INVALID);
  IS(mf_completion_release(engine, &held), MF_E_INVALID);
  IS(mf_engine_stop(engine, -1), MF_E_INVALID);
  IS(mf_engine_free(engine), MF_E_INVALID);
  CHECK(strstr(mf_last_error(), "fork") != NULL);

  /* An engine of its own. */
  own = start(&cfg);
  IS(mf_submit(own, "own", 3, NULL, &id), MF_OK);
  IS(mf_wait(own, &id, &done, 5 * SECOND), MF_OK);
  CHECK(done.len == 3 && memcmp(done.data, "own", 3) == 0);
  IS(mf_completion_release(own, &held), MF_E_INVALID); /* still the parent's */
  IS(mf_completion_release(own, &done), MF_OK);
  IS(mf_submit(engine, "x", 1, NULL, &id), MF_E_INVALID);
  IS(mf_engine_free(own), MF_OK);
  return 0;
}

/* Keeps every lock of the library busy while the other thread forks. */
static volatile int stop;
static void *busy(void *arg) {
  mf_completion done;
  mf_task_id id;
  (void)arg;
  while (!stop) {
    IS(mf_submit(engine, "busy", 4, NULL, &id), MF_OK);
    IS(mf_wait(engine, &id, &done, -1), MF_OK);
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  return NULL;
}

int main(void) {
  mf_config cfg = config(echo, NULL, 1, 1);
  mf_task_id id;
  mf_completion done;
  pthread_t thread;
  int status, i;

  watchdog(120);
  engine = start(&cfg);
  IS(mf_submit(engine, "held", 4, NULL, &id), MF_OK);
  IS(mf_wait(engine, &id, &held, -1), MF_OK);
  loan.size = sizeof loan;
  IS(mf_loan(engine, 100, &loan), MF_OK);
  IS(pthread_create(&thread, NULL, busy, NULL), 0);
  for (i = 0; i < 10; i++) {
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      watchdog(30);
      _exit(child());
    }
    IS(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  stop = 1;
  IS(pthread_join(thread, NULL), 0);

  /* The parent's goes on as if nothing had been. */
  CHECK(memcmp(held.data, "held", 4) == 0);
  IS(mf_completion_release(engine, &held), MF_OK);
  memset(loan.ptr, 7, 100);
  IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 5 * SECOND), MF_OK);
  CHECK(done.len == 100);
  IS(mf_completion_release(engine, &done), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
