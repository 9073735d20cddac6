/* What the C tests share. Every test is one program, valid as C99 and as C++11: exit code 0 =
 * passed, 1 = failed, 77 = skipped. A watchdog ends the ones that hang. */
#ifndef TEST_H
#define TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "miniflow.h"

#define CHECK(what)                                                                       \
  do {                                                                                    \
    if (!(what)) {                                                                        \
      fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #what,          \
              mf_last_error());                                                           \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

/* The call answers exactly this. */
#define IS(call, answer)                                                                  \
  do {                                                                                    \
    const long long is_ = (long long)(call);                                              \
    if (is_ != (long long)(answer)) {                                                     \
      fprintf(stderr, "%s:%d: %s is %lld, not %s (last error: %s)\n", __FILE__, __LINE__, \
              #call, is_, #answer, mf_last_error());                                      \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

#define SECOND INT64_C(1000000000)
#define MS INT64_C(1000000)

static inline void watchdog(unsigned seconds) { alarm(seconds); }

static inline void sleep_ms(long ms) {
  struct timespec t;
  t.tv_sec = ms / 1000;
  t.tv_nsec = ms % 1000 * 1000000;
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

static inline int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* Settings for `workers` CPU-bound workers of `threads` threads, and no others. */
static inline mf_config config(mf_handler handler, void *user, uint32_t workers,
                               uint32_t threads) {
  mf_config cfg;
  IS(mf_config_init(&cfg, sizeof cfg), MF_OK);
  cfg.handler = handler;
  cfg.handler_user = user;
  cfg.classes[MF_CPU_BOUND].min_workers = workers;
  cfg.classes[MF_CPU_BOUND].max_workers = workers;
  cfg.classes[MF_CPU_BOUND].threads = threads;
  cfg.classes[MF_IO_BOUND].min_workers = 0;
  cfg.classes[MF_IO_BOUND].max_workers = 0;
  return cfg;
}

static inline mf_engine *start(const mf_config *cfg) {
  mf_engine *engine = NULL;
  IS(mf_engine_start(cfg, &engine), MF_OK);
  CHECK(engine != NULL);
  return engine;
}

/* Replies with its payload. */
static inline int32_t echo(void *user, mf_task *task) {
  size_t len = 0;
  const void *payload = mf_task_payload(task, &len);
  (void)user;
  return payload == NULL ? -1 : mf_task_reply(task, payload, len);
}

#endif
