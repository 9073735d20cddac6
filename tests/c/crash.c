/* Description: this program as its own worker program, which dies of a null pointer: the text of the
 * completion names function, file and line, and the worker is replaced. */
#include "test.h"

#ifdef __GNUC__
__attribute__((noinline))
#endif
static int parse_header(const volatile unsigned char *header) {
  return header[0] + 1; /* CRASH */
}
#define CRASH_LINE "crash.c:9)"

static int work(void) {
  mf_worker *worker;
  mf_task *task;

  IS(mf_worker_join(&worker), MF_OK);
  while (mf_worker_next(worker, &task, -1) == MF_OK) {
    size_t len;
    const void *payload = mf_task_payload(task, &len);
    if (len == 3 && memcmp(payload, "two", 3) == 0) {
      mf_task *other; /* one thread, two tasks in hand: which of them was it? */
      IS(mf_worker_next(worker, &other, -1), MF_OK);
      return parse_header(NULL);
    }
    if (len != 0) {
      IS(mf_task_reply(task, payload, len), MF_OK);
      IS(mf_task_finish(task, 0), MF_OK);
    } else {
      IS(mf_task_finish(task, parse_header(NULL)), MF_OK);
    }
  }
  return 0;
}

/* The completion of a task with this payload; its text, as a string. */
static mf_completion run(mf_engine *engine, const char *payload, char text[1000]) {
  mf_completion done;
  IS(mf_submit_wait(engine, payload, strlen(payload), NULL, NULL, -1), MF_OK);
  IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
  snprintf(text, 1000, "%.*s", (int)done.len, (const char *)done.data);
  IS(mf_completion_release(engine, &done), MF_OK);
  return done;
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  mf_config cfg = config(NULL, NULL, 1, 1);
  mf_engine *engine;
  mf_completion done;
  char text[1000];
  int tries;

  watchdog(60);
  if (argc > 1 && strcmp(argv[1], "--worker") == 0) return work();
  worker_argv[0] = argv[0];
  worker_argv[1] = "--worker";
  worker_argv[2] = NULL;
  cfg.worker_argv = worker_argv;
  engine = start(&cfg);
  /* A machine that is busy may take longer for the names than a completion waits for them. */
  for (tries = 0; tries < 10; tries++) {
    done = run(engine, "", text);
    CHECK(done.outcome == MF_CRASHED && done.code == SIGSEGV);
    CHECK(strstr(text, "died of SIGSEGV at 0x0 running task ") != NULL);
    if (strstr(text, ", in parse_header") != NULL) break;
  }
  if (strstr(text, ", in parse_header") == NULL || strstr(text, CRASH_LINE) == NULL) {
    fprintf(stderr, "%s\n", text);
    return 1;
  }
  done = run(engine, "fine", text);
  CHECK(done.outcome == MF_COMPLETED && strcmp(text, "fine") == 0);
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
