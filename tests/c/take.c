/* Description: this program as its own worker program, by the calls for runtimes to which each call
 * is dear: tasks taken with everything about them and ended with their results in one call; failures
 * with data. Payloads and results of all kinds: none, inline, in the arena. */
#include "test.h"

#define TASKS 240
#define STEP 3
#define MAX_RESULT 4096

/* What the program does with a task, by its user data. */
enum { COMPLETE, FAIL, FAIL_BEFORE, TOO_LARGE, NOT_AT_ALL, KINDS };

/* What mf_worker_take() tells is what the single calls tell. */
static void is_consistent(const mf_work *work) {
  mf_task_id id;
  uint8_t label[16];
  size_t len = 1;
  CHECK(work->size == sizeof *work);
  CHECK(mf_task_payload(work->task, &len) == work->payload && len == work->len);
  CHECK(work->payload != NULL);
  IS(mf_task_attempt(work->task), work->attempt);
  CHECK(mf_task_user_data(work->task) == work->user_data);
  IS(mf_task_get_id(work->task, &id), MF_OK);
  CHECK(memcmp(&id, &work->id, sizeof id) == 0);
  IS(mf_task_get_label(work->task, label), MF_OK);
  CHECK(memcmp(label, work->label, sizeof label) == 0);
}

static int is_clear(const mf_work *work) {
  return work->task == NULL && work->payload == NULL && work->len == 0;
}

static char large[MAX_RESULT + 1];

static int work(void) {
  mf_worker *worker;
  mf_work work, none;
  int rc;

  memset(&work, 0xee, sizeof work);
  IS(mf_worker_take(NULL, NULL, 0), MF_E_INVALID);
  work.size = 5;
  IS(mf_worker_take(NULL, &work, 0), MF_E_INVALID);
  CHECK(work.attempt == 0xeeeeeeee); /* nothing is written where nothing is known */
  work.size = sizeof work;
  IS(mf_worker_take(NULL, &work, 0), MF_E_INVALID);
  CHECK(is_clear(&work) && work.size == sizeof work);

  IS(mf_worker_join(&worker), MF_OK);
  while ((rc = mf_worker_take(worker, &work, -1)) == MF_OK) {
    is_consistent(&work);
    none.size = sizeof none;
    IS(mf_worker_take(worker, &none, -1), MF_E_WOULD_BLOCK); /* one is in hand */
    CHECK(is_clear(&none));
    switch (work.user_data % KINDS) {
      case COMPLETE:
        IS(mf_task_reply(work.task, "replaced", 8), MF_OK);
        IS(mf_task_end(work.task, 0, work.payload, work.len), MF_OK);
        break;
      case FAIL:
        IS(mf_task_fail(work.task, 1, "replaced"), MF_OK);
        IS(mf_task_end(work.task, -(int32_t)work.user_data, work.payload, work.len), MF_OK);
        break;
      case FAIL_BEFORE:
        IS(mf_task_fail(work.task, 7, "a text"), MF_OK);
        IS(mf_task_end(work.task, 0, work.payload, work.len), MF_OK);
        break;
      case TOO_LARGE:
        IS(mf_task_end(work.task, 0, large, sizeof large), MF_E_TOO_LARGE);
        IS(mf_task_end(work.task, 8, large, sizeof large), MF_E_TOO_LARGE);
        IS(mf_task_end(work.task, 8, NULL, 1), MF_E_INVALID);
        is_consistent(&work); /* not ended */
        IS(mf_task_end(work.task, 8, large, MAX_RESULT), MF_OK);
        break;
      default:
        IS(mf_task_finish(work.task, 0), MF_OK);
    }
    IS(mf_task_end(work.task, 0, NULL, 0), MF_E_INVALID); /* stale */
    CHECK(mf_task_payload(work.task, &work.len) == NULL);
  }
  IS(rc, MF_E_CLOSED);
  CHECK(is_clear(&work));
  IS(mf_worker_leave(worker), MF_OK);
  IS(mf_worker_take(worker, &work, -1), MF_E_INVALID);
  return 0;
}

static void check(const mf_completion *done) {
  char payload[TASKS * STEP];
  const int32_t number = (int32_t)done->user_data;
  const size_t len = (size_t)number * STEP;
  memset(payload, number, sizeof payload);
  IS(done->outcome, done->code == 0 ? MF_COMPLETED : MF_FAILED);
  switch (number % KINDS) {
    case COMPLETE:
      CHECK(done->flags == 0 && done->code == 0 && done->len == len);
      CHECK(len == 0 || memcmp(done->data, payload, len) == 0);
      break;
    case FAIL:
      CHECK(done->flags == MF_F_DATA && done->code == -number && done->len == len);
      CHECK(memcmp(done->data, payload, len) == 0);
      break;
    case FAIL_BEFORE:
      CHECK(done->flags == 0 && done->code == 7 && done->len == 6);
      CHECK(memcmp(done->data, "a text", 6) == 0);
      break;
    case TOO_LARGE:
      CHECK(done->flags == MF_F_DATA && done->code == 8 && done->len == MAX_RESULT);
      CHECK(memcmp(done->data, large, MAX_RESULT) == 0);
      break;
    default:
      CHECK(done->flags == 0 && done->code == 0 && done->len == 0);
  }
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  mf_config cfg = config(NULL, NULL, 1, 1);
  mf_engine *engine;
  mf_submit_opts opts;
  mf_completion done;
  char payload[TASKS * STEP];
  int i;

  watchdog(60);
  if (argc > 1 && strcmp(argv[1], "--worker") == 0) return work();
  worker_argv[0] = argv[0];
  worker_argv[1] = "--worker";
  worker_argv[2] = NULL;
  cfg.worker_argv = worker_argv;
  cfg.max_result = MAX_RESULT;
  engine = start(&cfg);
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  memcpy(opts.label, "0123456789abcdef", 16);
  for (i = 0; i < TASKS; i++) {
    opts.user_data = (uint64_t)i;
    memset(payload, i, sizeof payload);
    IS(mf_submit_wait(engine, payload, (size_t)i * STEP, &opts, NULL, -1), MF_OK);
  }
  for (i = 0; i < TASKS; i++) {
    IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
    check(&done);
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
