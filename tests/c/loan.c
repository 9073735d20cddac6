/* Description: payloads on loan, replies in place, results read in place; stale loans. */
#include "test.h"

/* Replies in place with every byte of the payload plus one. */
static int32_t add_one(void *user, mf_task *task) {
  size_t len = 0, i;
  void *room = NULL;
  const unsigned char *payload = (const unsigned char *)mf_task_payload(task, &len);
  (void)user;
  if (mf_task_reply_buf(task, len, &room) != MF_OK) return 1;
  for (i = 0; i < len; i++) ((unsigned char *)room)[i] = (unsigned char)(payload[i] + 1);
  return 0;
}

int main(void) {
  const size_t sizes[] = {0, 1, 40, 41, 152, 153, 4096, 65536, 1 << 20};
  mf_config cfg = config(add_one, NULL, 1, 1);
  mf_engine *engine, *other;
  mf_loan_buf loan, copy;
  mf_completion done;
  mf_engine_stats stats;
  mf_task_id id;
  size_t s, i;

  watchdog(60);
  cfg.max_payload = 1 << 20;
  cfg.payload_arena = 4 << 20;
  engine = start(&cfg);
  other = start(&cfg);
  memset(&loan, 0, sizeof loan);
  IS(mf_loan(engine, 8, NULL), MF_E_INVALID);
  IS(mf_loan(engine, 8, &loan), MF_E_INVALID); /* no size */
  loan.size = sizeof loan;
  IS(mf_loan(engine, (1 << 20) + 1, &loan), MF_E_TOO_LARGE);
  IS(mf_loan(NULL, 8, &loan), MF_E_INVALID);
  IS(mf_loan_drop(engine, &loan), MF_OK); /* none */
  IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_E_INVALID);

  for (s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    IS(mf_loan(engine, sizes[s], &loan), MF_OK);
    CHECK(loan.ptr != NULL && loan.len == sizes[s] && loan.handle != 0);
    memset(loan.ptr, (int)s, loan.len);
    IS(mf_submit_loaned(other, &loan, NULL, &id), MF_E_INVALID);
    IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_OK);
    IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_E_INVALID); /* twice */
    IS(mf_loan_drop(engine, &loan), MF_E_INVALID);
    IS(mf_wait(engine, &id, &done, 5 * SECOND), MF_OK);
    CHECK(done.outcome == MF_COMPLETED && done.len == sizes[s]);
    for (i = 0; i < done.len; i++) CHECK(((const unsigned char *)done.data)[i] == s + 1);
    IS(mf_completion_release(engine, &done), MF_OK);
    if (done.len > 0) IS(mf_completion_release(engine, &done), MF_E_INVALID);
  }

  /* Dropped: the memory is there again. Twice: no. */
  for (i = 0; i < 100; i++) {
    IS(mf_loan(engine, 1 << 20, &loan), MF_OK);
    copy = loan;
    IS(mf_loan_drop(i % 2 ? engine : NULL, &copy), MF_OK);
    IS(mf_loan_drop(engine, &loan), MF_E_INVALID);
  }
  stats.size = sizeof stats;
  IS(mf_stats(engine, &stats), MF_OK);
  CHECK(stats.payload_bytes == 0);

  /* Full of loans. */
  for (i = 0; mf_loan(engine, 1 << 20, &loan) == MF_OK; i++) {
    CHECK(i < 5);
    copy = loan;
  }
  IS(mf_loan(engine, 1 << 20, &loan), MF_E_WOULD_BLOCK);
  IS(mf_submit_wait(engine, loan.ptr, 1 << 20, NULL, &id, -1), MF_E_WOULD_BLOCK);
  IS(mf_loan_drop(engine, &copy), MF_OK);
  IS(mf_loan(engine, 1 << 20, &loan), MF_OK);

  /* A refused submit leaves the loan as it is, and a loan outlives its engine. */
  IS(mf_engine_stop(engine, 0), MF_OK);
  IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_E_CLOSED);
  IS(mf_engine_free(engine), MF_OK);
  memset(loan.ptr, 1, loan.len);
  IS(mf_submit_loaned(engine, &loan, NULL, &id), MF_E_INVALID);
  IS(mf_loan_drop(NULL, &loan), MF_OK);
  IS(mf_engine_free(other), MF_OK);
  return 0;
}
