/* Description: cancelling what is queued and what runs; progress and state; stop cancels. */
#include "test.h"

/* Runs until it is cancelled, telling how far it is. */
static int32_t until_cancelled(void *user, mf_task *task) {
  uint64_t step;
  (void)user;
  for (step = 1; mf_task_cancelled(task) == 0; step++) {
    IS(mf_task_progress(task, step, 1000), MF_OK);
    sleep_ms(1);
  }
  IS(mf_task_cancelled(task), 1);
  return mf_task_fail(task, 42, "gave up") == MF_OK ? 0 : 1;
}

int main(void) {
  mf_config cfg = config(until_cancelled, NULL, 1, 1);
  mf_engine *engine;
  mf_task_id running, queued[3], waiting;
  mf_task_info info;
  mf_completion done;
  int i;

  watchdog(60);
  engine = start(&cfg);
  info.size = sizeof info;
  IS(mf_submit(engine, NULL, 0, NULL, &running), MF_OK);
  for (i = 0; i < 3; i++) IS(mf_submit(engine, NULL, 0, NULL, &queued[i]), MF_OK);
  do {
    sleep_ms(1);
    IS(mf_task_state(engine, &running, &info), MF_OK);
  } while (info.state != MF_TASK_RUNNING || info.progress_done < 3);
  CHECK(info.worker == 0 && info.elapsed_ns > 0 && info.progress_total == 1000);
  IS(mf_task_state(engine, &queued[2], &info), MF_OK);
  CHECK(info.state == MF_TASK_QUEUED && info.worker == MF_NO_WORKER && info.elapsed_ns == 0);

  /* Only what nobody has been given: not what runs (which is not told either), but what waits. */
  IS(mf_cancel(engine, &running, MF_CANCEL_UNSTARTED), MF_E_WOULD_BLOCK);
  CHECK(strstr(mf_last_error(), "a worker has") != NULL);
  IS(mf_submit(engine, NULL, 0, NULL, &waiting), MF_OK); /* more than are given in advance */
  IS(mf_cancel(engine, &waiting, MF_CANCEL_UNSTARTED), MF_OK);
  IS(mf_cancel(engine, &waiting, MF_CANCEL_UNSTARTED), MF_OK); /* it still never runs */
  IS(mf_wait(engine, &waiting, &done, 5 * SECOND), MF_OK);
  CHECK(done.outcome == MF_CANCELLED && done.attempt == 0 && done.worker == MF_NO_WORKER);
  IS(mf_cancel(engine, &waiting, MF_CANCEL_UNSTARTED), MF_E_NOT_FOUND);
  IS(mf_task_state(engine, &running, &info), MF_OK);
  CHECK(info.state == MF_TASK_RUNNING);

  /* Queued: cancelled, without ever having run. */
  IS(mf_cancel(engine, &queued[2], 0), MF_OK);
  /* Running: told; it says what it makes of it. */
  IS(mf_cancel(engine, &running, 0), MF_OK);
  IS(mf_wait(engine, &running, &done, 5 * SECOND), MF_OK);
  CHECK(done.outcome == MF_FAILED && done.code == 42 && done.attempt == 1);
  CHECK(done.len == 7 && memcmp(done.data, "gave up", 7) == 0);
  IS(mf_completion_release(engine, &done), MF_OK);
  IS(mf_cancel(engine, &running, 0), MF_E_NOT_FOUND);
  IS(mf_cancel(engine, &queued[0], 0), MF_OK); /* may have started by now */
  IS(mf_wait(engine, &queued[0], &done, 5 * SECOND), MF_OK);
  CHECK(done.outcome == MF_CANCELLED || done.outcome == MF_FAILED);
  IS(mf_completion_release(engine, &done), MF_OK);
  IS(mf_wait(engine, &queued[2], &done, 5 * SECOND), MF_OK);
  CHECK(done.outcome == MF_CANCELLED);
  IS(mf_completion_release(engine, &done), MF_OK);

  /* Stop: the one that is left is told too, and its completion can be fetched. */
  IS(mf_engine_stop(engine, 10 * MS), MF_OK);
  IS(mf_task_state(engine, &queued[1], &info), MF_OK);
  CHECK(info.state == MF_TASK_DONE);
  IS(mf_poll(engine, &done, 1, 0), 1);
  CHECK(memcmp(&done.id, &queued[1], sizeof done.id) == 0);
  CHECK(done.outcome == MF_CANCELLED || done.outcome == MF_FAILED);
  IS(mf_completion_release(engine, &done), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
