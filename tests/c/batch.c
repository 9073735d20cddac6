/* Description: batches: ids, shared options, user data, a prefix when full, an error when the first
 * is refused. */
#include "test.h"

#define COUNT 300

int main(void) {
  static mf_submission subs[COUNT];
  static mf_task_id ids[COUNT];
  static uint64_t payloads[COUNT];
  static mf_completion done[COUNT];
  static char seen[COUNT];
  mf_submit_opts opts;
  mf_config cfg = config(echo, NULL, 2, 1);
  mf_engine *engine;
  int i, n, got = 0;

  watchdog(60);
  cfg.max_tasks = COUNT - 50;
  engine = start(&cfg);
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = 77777;
  memset(subs, 0, sizeof subs);
  for (i = 0; i < COUNT; i++) {
    payloads[i] = (uint64_t)i * 1000003;
    subs[i].payload = &payloads[i];
    subs[i].len = sizeof payloads[i];
    subs[i].opts = i % 2 ? &opts : NULL;
    subs[i].user_data = (uint64_t)i; /* 0 for the first: the one of its options */
  }
  n = mf_submit_batch(engine, subs, sizeof subs[0], COUNT, ids);
  IS(n, COUNT - 50); /* nothing is polled meanwhile */
  IS(mf_submit_batch(engine, subs + n, sizeof subs[0], 1, NULL), MF_E_WOULD_BLOCK);

  while (got < n) {
    const int k = mf_poll(engine, done, COUNT, 5 * SECOND);
    CHECK(k > 0);
    for (i = 0; i < k; i++) {
      const uint64_t u = done[i].user_data;
      uint64_t value = 0;
      CHECK(u < COUNT && !seen[u]++);
      CHECK(memcmp(&done[i].id, &ids[u], sizeof ids[u]) == 0);
      CHECK(done[i].outcome == MF_COMPLETED && done[i].code == 0 && done[i].flags == 0);
      CHECK(done[i].worker < 2 && done[i].attempt == 1 && done[i].reserved0 == 0);
      CHECK(done[i].queued_ns >= 0 && done[i].run_ns >= 0);
      CHECK(done[i].len == sizeof value);
      memcpy(&value, done[i].data, sizeof value);
      CHECK(value == u * 1000003);
    }
    IS(mf_completion_release_batch(NULL, done, (size_t)k), MF_OK);
    IS(mf_completion_release_batch(NULL, done, (size_t)k), MF_E_INVALID);
    got += k;
  }

  /* Not even the first: its error. A bad one later: a prefix. */
  subs[1].len = 1u << 30;
  IS(mf_submit_batch(engine, subs + 1, sizeof subs[0], 5, ids), MF_E_TOO_LARGE);
  IS(mf_submit_batch(engine, subs, sizeof subs[0], 5, NULL), 1);
  subs[1].len = 8;
  subs[2].payload = NULL;
  IS(mf_submit_batch(engine, subs + 2, sizeof subs[0], 5, ids), MF_E_INVALID);
  IS(mf_submit_batch(engine, subs, sizeof subs[0], 5, ids), 2);
  for (got = 0; got < 3; got++) {
    IS(mf_poll(engine, done, 1, 5 * SECOND), 1);
    IS(mf_completion_release(engine, done), MF_OK);
  }
  opts.user_data = 5;
  subs[0].opts = &opts;
  IS(mf_submit_batch(engine, subs, sizeof subs[0], 1, ids), 1);
  IS(mf_wait(engine, ids, done, 5 * SECOND), MF_OK);
  CHECK(done[0].user_data == 5);
  IS(mf_completion_release(engine, done), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
