/* Description: the sandbox fields of mf_config: each bit does its own, workers see it, and limits
 * under which no worker can run make the start fail. */
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "test.h"

typedef struct {
  int32_t kill_errno;
  int32_t no_new_privs;
  int32_t seccomp;
  int32_t dumpable;
  struct rlimit memory, files, cpu, core;
} seen;

/* Replies with what a worker sees; the payload is the host's pid. */
static int32_t look(void *user, mf_task *task) {
  size_t len = 0;
  const void *payload = mf_task_payload(task, &len);
  pid_t host;
  seen s;
  (void)user;
  if (payload == NULL || len != sizeof host) return 1;
  memcpy(&host, payload, sizeof host);
  memset(&s, 0, sizeof s);
  s.kill_errno = kill(host, 0) == 0 ? 0 : errno;
  s.no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  s.seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
  s.dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
  if (getrlimit(RLIMIT_AS, &s.memory) != 0 || getrlimit(RLIMIT_NOFILE, &s.files) != 0 ||
      getrlimit(RLIMIT_CPU, &s.cpu) != 0 || getrlimit(RLIMIT_CORE, &s.core) != 0)
    return 2;
  return mf_task_reply(task, &s, sizeof s);
}

static int work(void) {
  mf_worker *worker;
  mf_task *task;
  if (mf_worker_join(&worker) != MF_OK) return 3;
  while (mf_worker_next(worker, &task, -1) == MF_OK) {
    IS(mf_task_finish(task, look(NULL, task)), MF_OK);
  }
  IS(mf_worker_leave(worker), MF_OK);
  return 0;
}

static seen ask(const mf_config *cfg) {
  mf_engine *engine = start(cfg);
  const pid_t host = getpid();
  mf_completion done;
  seen s;
  IS(mf_submit(engine, &host, sizeof host, NULL, NULL), MF_OK);
  IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
  CHECK(done.outcome == MF_COMPLETED && done.len == sizeof s);
  memcpy(&s, done.data, sizeof s);
  IS(mf_completion_release(engine, &done), MF_OK);
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return s;
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  struct rlimit core;
  mf_config cfg;
  mf_engine *engine;
  seen s;
  int round;

  watchdog(60);
  if (argc > 1 && strcmp(argv[1], "--worker") == 0) return work();
  worker_argv[0] = argv[0];
  worker_argv[1] = "--worker";
  worker_argv[2] = NULL;
  IS(getrlimit(RLIMIT_CORE, &core), 0);

  for (round = 0; round < 2; round++) {
    /* Nothing by default. */
    cfg = config(look, NULL, 1, 1);
    if (round == 1) {
      cfg.handler = NULL;
      cfg.worker_argv = worker_argv;
    }
    s = ask(&cfg);
    CHECK(s.kill_errno == 0 && s.no_new_privs == 0 && s.seccomp == 0);
    CHECK(s.core.rlim_cur == core.rlim_cur);

    cfg.sandbox = MF_SANDBOX_NO_NEW_PRIVS;
    s = ask(&cfg);
    CHECK(s.kill_errno == 0 && s.no_new_privs == 1 && s.seccomp == 0);

    cfg.sandbox = MF_SANDBOX_SECCOMP;
    s = ask(&cfg);
    CHECK(s.kill_errno == EPERM && s.no_new_privs == 1 && s.seccomp == 2);

    cfg.sandbox = MF_SANDBOX_RLIMITS;
    s = ask(&cfg);
    CHECK(s.kill_errno == 0 && s.no_new_privs == 0 && s.core.rlim_cur == 0);
    cfg.sandbox_files = 50;
    cfg.sandbox_cpu_s = 100;
    cfg.sandbox_core = 4096;
    s = ask(&cfg);
    CHECK(s.files.rlim_cur == 50 && s.files.rlim_max == 50);
    CHECK(s.cpu.rlim_cur == 100 && s.cpu.rlim_max == 101);
    CHECK(s.core.rlim_cur == (core.rlim_cur < 4096 ? core.rlim_cur : 4096));
#ifndef __SANITIZE_ADDRESS__ /* which maps terabytes */
    cfg.sandbox_memory = (uint64_t)4 << 30;
    s = ask(&cfg);
    CHECK(s.memory.rlim_cur == (uint64_t)4 << 30 && s.files.rlim_cur == 50);
#endif

    /* Just above what is mapped in any case. */
    cfg.sandbox_memory = cfg.payload_arena + cfg.result_arena + 4096;
    CHECK(mf_engine_start(&cfg, &engine) < 0 && engine == NULL);
    CHECK(strstr(mf_last_error(), "bytes of memory") != NULL);
  }

  /* A caller that was compiled before there were limits: what lies behind its struct is its own. */
  cfg = config(look, NULL, 1, 1);
  cfg.sandbox = MF_SANDBOX_RLIMITS;
  cfg.size = offsetof(mf_config, sandbox_memory);
  memset(&cfg.sandbox_memory, 0xee, sizeof cfg - cfg.size);
  CHECK(ask(&cfg).core.rlim_cur == 0);

  /* Last: it stays. */
  cfg = config(look, NULL, 1, 1);
  IS(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
  CHECK(ask(&cfg).dumpable == 1);
  cfg.sandbox = MF_SANDBOX_UNDUMPABLE_HOST | MF_SANDBOX_NO_NEW_PRIVS;
  s = ask(&cfg);
  CHECK(s.dumpable == 0 && s.no_new_privs == 1);
  IS(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
  return 0;
}
