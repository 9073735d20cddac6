/* Description: this program as the zygote of an engine: it loads something once and forks workers
 * that have it; what its children may not do; a worker and the zygote that are killed; a zygote that
 * says why it cannot start workers. */
#include "test.h"

#include <sys/prctl.h>

/* What takes long to load: here, the zygote's pid. */
static int64_t loaded;

static void work(int zygote) {
  mf_zygote_request request;
  mf_worker *worker, *again;
  mf_task *task;
  char name[16];
  int64_t reply[2];
  int rc;

  request.size = sizeof request;
  IS(mf_zygote_recv(zygote, &request), MF_E_INVALID); /* the zygote's business */
  IS(mf_zygote_open(), MF_E_INVALID);
  IS(mf_worker_join(&worker), MF_OK);
  IS(mf_worker_join(&again), MF_E_INVALID); /* once */
  IS(prctl(PR_GET_NAME, name), 0);
  CHECK(strcmp(name, "mf-worker") == 0);
  while ((rc = mf_worker_next(worker, &task, -1)) == MF_OK) {
    reply[0] = loaded;
    reply[1] = getppid();
    IS(mf_task_reply(task, reply, sizeof reply), MF_OK);
    IS(mf_task_finish(task, 0), MF_OK);
  }
  IS(rc, MF_E_CLOSED);
  IS(mf_worker_leave(worker), MF_OK);
}

static int zygote(void) {
  mf_zygote_request request;
  mf_worker *worker;
  char name[16];
  int rc, fd = mf_zygote_open();

  CHECK(fd > 2);
  IS(mf_zygote_open(), MF_E_INVALID); /* once */
  IS(mf_worker_join(&worker), MF_E_INVALID);
  IS(prctl(PR_GET_NAME, name), 0);
  CHECK(strcmp(name, "mf-zygote") == 0);
  loaded = getpid();
  IS(mf_zygote_recv(fd, NULL), MF_E_INVALID);
  IS(mf_zygote_recv(fd + 1, &request), MF_E_INVALID);
  request.size = 1;
  IS(mf_zygote_recv(fd, &request), MF_E_INVALID);
  request.size = sizeof request;
  IS(mf_zygote_reply(fd, &request, getpid()), MF_E_INVALID); /* to no request */
  while ((rc = mf_zygote_recv(fd, &request)) == MF_OK) {
    const pid_t child = fork();
    if (child == 0) {
      work(fd);
      _exit(0);
    }
    CHECK(request.size == sizeof request && request.worker < 2);
    IS(mf_zygote_reply(fd, &request, child < 0 ? -errno : child), MF_OK);
    IS(mf_zygote_reply(fd, &request, child), MF_E_INVALID); /* it has its answer */
  }
  IS(rc, MF_E_CLOSED);
  IS(mf_zygote_recv(fd, &request), MF_E_CLOSED); /* for good */
  return 0;
}

static int failing(void) {
  mf_zygote_request request;
  const int fd = mf_zygote_open();

  request.size = sizeof request;
  IS(mf_zygote_fail(fd, "no module named \"x\""), MF_OK);
  while (mf_zygote_recv(fd, &request) == MF_OK) {
  }
  return 0;
}

/* The zygote that a task's worker has, which is also what it has loaded. */
static pid_t zygote_of(mf_engine *engine) {
  mf_submit_opts opts;
  mf_completion done;
  mf_task_id id;
  int64_t reply[2];

  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.max_attempts = 10; /* it may begin on a worker that was just killed */
  IS(mf_submit(engine, "x", 1, &opts, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 20 * SECOND), MF_OK);
  CHECK(done.outcome == MF_COMPLETED && done.len == sizeof reply);
  memcpy(reply, done.data, sizeof reply);
  IS(mf_completion_release(engine, &done), MF_OK);
  CHECK(reply[0] == reply[1]);
  return (pid_t)reply[0];
}

static uint32_t pid_of(mf_engine *engine, int slot) {
  mf_worker_row rows[2];
  const int count = mf_worker_stats(engine, rows, sizeof rows[0], 2);
  int i;
  for (i = 0; i < count; i++) {
    if (rows[i].slot == (uint32_t)slot) return rows[i].pid;
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  mf_config cfg = config(NULL, NULL, 2, 1);
  mf_engine *engine, *none;
  mf_engine_stats stats;
  pid_t first;
  uint32_t killed[2], now;
  int slot;

  if (argc > 1 && strcmp(argv[1], "--zygote") == 0) return zygote();
  if (argc > 1 && strcmp(argv[1], "--failing") == 0) return failing();
  watchdog(60);
  worker_argv[0] = argv[0];
  worker_argv[1] = "--failing";
  worker_argv[2] = NULL;
  cfg.worker_argv = worker_argv;
  cfg.flags = MF_ZYGOTE;
  IS(mf_engine_start(&cfg, &none), MF_E_INVALID);
  CHECK(strstr(mf_last_error(), "no module named \"x\"") != NULL);

  worker_argv[1] = "--zygote";
  engine = start(&cfg);
  first = zygote_of(engine);
  for (slot = 0; slot < 2; slot++) {
    killed[slot] = pid_of(engine, slot);
    CHECK(killed[slot] > 1);
    IS(kill((pid_t)killed[slot], SIGKILL), 0);
    do {
      IS(zygote_of(engine), first);
      now = pid_of(engine, slot);
    } while (now == 0 || now == killed[slot]);
  }
  /* The zygote dies: the workers go on, and others come from its successor. */
  IS(kill(first, SIGKILL), 0);
  for (slot = 0; slot < 2; slot++) {
    IS(kill((pid_t)pid_of(engine, slot), SIGKILL), 0);
    while (pid_of(engine, slot) == 0 || zygote_of(engine) == first) sleep_ms(1);
  }
  stats.size = sizeof stats;
  IS(mf_stats(engine, &stats), MF_OK);
  CHECK(stats.died == 4 && !stats.degraded);
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
