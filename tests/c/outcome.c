/* Description: how tasks end: codes, texts, replies that are replaced, crashes; what a handler sees
 * of its task, and that it cannot use it wrongly. */
#include "test.h"

#define MAX_RESULT 4096

enum { RETURN_CODE = 1, FAIL, FAIL_THEN_OK, FAIL_ZERO, REPLY_TWICE, TOO_LARGE, FINISH, SEGV, EXIT,
       INSPECT, STALE, NOT_UTF8, END, FAIL_DATA,
       FAIL_DATA_LARGE, FAIL_DATA_THEN_TEXT, FAIL_TEXT_THEN_DATA };

static mf_task *kept;

/* Bytes that no text has. */
static const char bytes[] = "\0\xff\0\xfe binary";

static int32_t handler(void *user, mf_task *task) {
  const char *text = (const char *)user;
  static const mf_task_id none = {{0}};
  mf_task_id id = {{0}};
  uint8_t label[16];
  char large[MAX_RESULT + 1];
  void *room;
  switch (mf_task_user_data(task)) {
    case RETURN_CODE: mf_task_reply(task, "lost", 4); return -7;
    case FAIL: mf_task_fail(task, 12, text); return 99;
    case FAIL_THEN_OK: return mf_task_fail(task, 13, NULL);
    case FAIL_ZERO:
      if (mf_task_fail_data(task, 0, "x", 1) != MF_E_INVALID) return 1;
      return mf_task_fail(task, 0, "x") == MF_E_INVALID ? 0 : 1;
    case FAIL_DATA:
      if (mf_task_reply(task, "lost", 4) != MF_OK) return 1;
      if (mf_task_fail_data(task, 14, bytes, sizeof bytes) != MF_OK) return 2;
      if (mf_task_reply(task, "late", 4) != MF_E_INVALID) return 3; /* would overwrite it */
      if (mf_task_reply_buf(task, 4, &room) != MF_E_INVALID) return 4;
      return 0;
    case FAIL_DATA_LARGE:
      memset(large, 0xfd, sizeof large);
      if (mf_task_fail_data(task, 15, large, sizeof large) != MF_E_TOO_LARGE) return 1;
      if (mf_task_fail_data(task, 15, NULL, 1) != MF_E_INVALID) return 2;
      return mf_task_fail_data(task, 15, large, sizeof large - 1);
    case FAIL_DATA_THEN_TEXT:
      if (mf_task_fail_data(task, 16, bytes, sizeof bytes) != MF_OK) return 1;
      return mf_task_fail(task, 17, "a text");
    case FAIL_TEXT_THEN_DATA:
      mf_task_fail(task, 18, "a text");
      return mf_task_fail_data(task, 19, NULL, 0);
    case REPLY_TWICE:
      if (mf_task_reply(task, "one", 3) || mf_task_reply_buf(task, 3, &room)) return 1;
      memcpy(room, "two", 3);
      return 0;
    case TOO_LARGE:
      if (mf_task_reply_buf(task, 1 << 20, &room) != MF_E_TOO_LARGE || room != NULL) return 1;
      return mf_task_reply(task, mf_last_error(), 5);
    case FINISH: return mf_task_finish(task, 0) == MF_E_INVALID ? 0 : 1;
    case END: return mf_task_end(task, 0, "x", 1) == MF_E_INVALID ? 0 : 1;
    case SEGV: raise(SIGSEGV); return 1;
    case EXIT: _exit(3);
    case INSPECT:
      if (mf_task_get_id(task, NULL) != MF_E_INVALID || mf_task_get_id(task, &id) != MF_OK) return 1;
      if (memcmp(&id, &none, sizeof id) == 0 || mf_task_attempt(task) != 1) return 2;
      if (mf_task_get_label(task, label) != MF_OK || memcmp(label, "0123456789abcdef", 16)) return 3;
      kept = task;
      return mf_task_reply(task, id.bytes, 16);
    case STALE: return mf_task_attempt(kept) == 0 && kept != task ? 0 : 1;
    case NOT_UTF8: mf_task_fail(task, 1, "\xff!"); return 0;
    default: return 1;
  }
}

static mf_engine *engine;

static mf_completion run(uint64_t what) {
  mf_submit_opts opts;
  mf_completion done;
  mf_task_id id;
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = what;
  memcpy(opts.label, "0123456789abcdef", 16);
  IS(mf_submit(engine, NULL, 0, &opts, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 10 * SECOND), MF_OK);
  CHECK(done.user_data == what && memcmp(&done.id, &id, sizeof id) == 0);
  return done;
}

static int text_is(const mf_completion *done, const char *text) {
  return done->len == strlen(text) && memcmp(done->data, text, done->len) == 0;
}

static int text_has(const mf_completion *done, const char *part) {
  return done->len > 0 && memmem(done->data, done->len, part, strlen(part)) != NULL;
}

int main(void) {
  char text[] = "from the host";
  mf_config cfg = config(handler, text, 1, 1);
  mf_completion done;

  watchdog(60);
  cfg.max_result = MAX_RESULT;
  engine = start(&cfg);
#define EXPECT(what, want_outcome, want_code, condition)                       \
  done = run(what);                                                            \
  IS(done.outcome, want_outcome);                                              \
  IS(done.code, want_code);                                                    \
  CHECK(condition);                                                            \
  IS(mf_completion_release(NULL, &done), MF_OK)

  EXPECT(RETURN_CODE, MF_FAILED, -7, text_has(&done, "-7"));
  EXPECT(FAIL, MF_FAILED, 12, done.flags == 0 && text_is(&done, "from the host"));
  EXPECT(FAIL_THEN_OK, MF_FAILED, 13, done.len == 0 && done.data == NULL);
  EXPECT(FAIL_ZERO, MF_COMPLETED, 0, done.len == 0);
  EXPECT(FAIL_DATA, MF_FAILED, 14,
         done.flags == MF_F_DATA && done.len == sizeof bytes && !memcmp(done.data, bytes, done.len));
  EXPECT(FAIL_DATA_LARGE, MF_FAILED, 15,
         done.flags == MF_F_DATA && done.len == MAX_RESULT && ((const char *)done.data)[7] == '\xfd');
  EXPECT(FAIL_DATA_THEN_TEXT, MF_FAILED, 17, done.flags == 0 && text_is(&done, "a text"));
  EXPECT(FAIL_TEXT_THEN_DATA, MF_FAILED, 19, done.flags == MF_F_DATA && done.len == 0);
  EXPECT(REPLY_TWICE, MF_COMPLETED, 0, text_is(&done, "two"));
  EXPECT(TOO_LARGE, MF_COMPLETED, 0, text_is(&done, "10485"));
  EXPECT(FINISH, MF_COMPLETED, 0, done.len == 0);
  EXPECT(END, MF_COMPLETED, 0, done.len == 0);
  EXPECT(NOT_UTF8, MF_FAILED, 1, text_is(&done, "\xef\xbf\xbd!"));
  EXPECT(INSPECT, MF_COMPLETED, 0, memcmp(done.data, &done.id, 16) == 0);
  EXPECT(STALE, MF_COMPLETED, 0, done.len == 0);
  EXPECT(SEGV, MF_CRASHED, SIGSEGV, (done.flags & MF_F_BY_SIGNAL) && text_has(&done, "SIGSEGV"));
  EXPECT(EXIT, MF_CRASHED, 3, done.flags == 0 && done.attempt == 1 && done.len > 0);
  EXPECT(FAIL, MF_FAILED, 12, done.worker == 0); /* the worker was replaced */
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
