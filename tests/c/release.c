/* Description: results outlive the engine, until they are released, wherever they lie. */
#include "test.h"

#include <sys/mman.h>

#define COUNT 64

static int32_t fill(void *user, mf_task *task) {
  const size_t len = (size_t)mf_task_user_data(task);
  void *room;
  (void)user;
  if (mf_task_reply_buf(task, len, &room) != MF_OK) return 1;
  memset(room, 'a' + (int)(len % 26), len);
  return 0;
}

int main(void) {
  const size_t sizes[] = {1, 48, 49, 152, 153, 5000, 16384, 100000};
  mf_config cfg = config(fill, NULL, 2, 1);
  mf_engine *engine;
  mf_completion done[COUNT], made_up;
  mf_submit_opts opts;
  size_t i, k;
  int got = 0, round;

  watchdog(60);
  for (round = 0; round < 3; round++) {
    engine = start(&cfg);
    IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
    for (i = 0; i < COUNT; i++) {
      opts.user_data = sizes[i % 8];
      IS(mf_submit(engine, NULL, 0, &opts, NULL), MF_OK);
    }
    for (got = 0; got < COUNT;) {
      const int n = mf_poll(engine, done + got, (size_t)(COUNT - got), 10 * SECOND);
      CHECK(n > 0);
      got += n;
    }
    /* Every second one before, the others after. */
    for (i = 0; i < COUNT; i += 2) IS(mf_completion_release(engine, &done[i]), MF_OK);
    IS(mf_engine_free(engine), MF_OK);
    for (i = 1; i < COUNT; i += 2) {
      CHECK(done[i].outcome == MF_COMPLETED && done[i].len == done[i].user_data);
      for (k = 0; k < done[i].len; k++)
        CHECK(((const char *)done[i].data)[k] == 'a' + (int)(done[i].len % 26));
      IS(mf_completion_release(i % 4 == 1 ? engine : NULL, &done[i]), MF_OK);
    }
    for (i = 0; i < COUNT; i++) IS(mf_completion_release(NULL, &done[i]), MF_E_INVALID);
  }
  memset(&made_up, 0, sizeof made_up);
  IS(mf_completion_release(NULL, &made_up), MF_OK);
  made_up.handle = 1;
  IS(mf_completion_release(NULL, &made_up), MF_E_INVALID);
  made_up.handle = UINT64_MAX;
  IS(mf_completion_release(NULL, &made_up), MF_E_INVALID);
  IS(mf_completion_release_batch(NULL, NULL, 0), MF_OK);
  IS(mf_completion_release_batch(NULL, NULL, 1), MF_E_INVALID);
  return 0;
}
