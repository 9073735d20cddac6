/* The smallest host: start, submit, wait, print, stop.
 *   cc -I include examples/c/hello.c -L target/release -lminiflow -o hello */
#include <stdio.h>

#include "miniflow.h"

/* Runs in a worker process: replies with the payload in reverse. */
static int32_t reverse(void *user, mf_task *task) {
  size_t len, i;
  void *reply;
  const char *payload = (const char *)mf_task_payload(task, &len);
  (void)user;
  if (mf_task_reply_buf(task, len, &reply) < 0) return 1;
  for (i = 0; i < len; i++) ((char *)reply)[i] = payload[len - 1 - i];
  return 0;
}

static int failed(const char *what, mf_engine *engine) {
  fprintf(stderr, "%s: %s\n", what, mf_last_error());
  mf_engine_free(engine);
  return 1;
}

int main(void) {
  mf_config config;
  mf_engine *engine;
  mf_task_id id;
  mf_completion done;
  mf_config_init(&config, sizeof config);
  config.handler = reverse;
  if (mf_engine_start(&config, &engine) < 0) return failed("start", NULL);
  if (mf_submit(engine, "olleh", 5, NULL, &id) < 0) return failed("submit", engine);
  if (mf_wait(engine, &id, &done, -1) < 0) return failed("wait", engine);
  printf("%s: %.*s\n", done.outcome == MF_COMPLETED ? "completed" : "not completed",
         (int)done.len, (const char *)done.data);
  mf_completion_release(engine, &done);
  if (mf_engine_stop(engine, -1) < 0) return failed("stop", engine);
  return mf_engine_free(engine) < 0;
}
