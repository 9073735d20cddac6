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
  int rc;

  request.size = sizeof request;
  IS(mf_zygote_recv(zygote, &request), MF_E_INVALID); /* the zygote's business */
  IS(mf_zygote_open(), MF_E_INVALID);
  IS(mf_worker_join(&worker), MF_OK);
  IS(mf_worker_join(&again), MF_E_INVALID); /* once */
  IS(prctl(PR_GET_NAME, name), 0);
  CHECK(strcmp(name, "mf-worker") == 0);
  while ((rc = mf_worker_next(worker, &task, -1)) == MF_OK) {
    IS(mf_task_reply(task, &loaded, sizeof loaded), MF_OK);
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

static uint32_t pid_of(mf_engine *engine, int slot) {
  mf_worker_row rows[2];
  const int count = mf_worker_stats(engine, rows, sizeof rows[0], 2);
  int i;
  for (i = 0; i < count; i++) {
    if (rows[i].slot == (uint32_t)slot) return rows[i].pid;
  }
  return 0;
}

static void kill_worker(mf_engine *engine, int slot) {
  const uint32_t pid = pid_of(engine, slot);
  CHECK(pid > 1);
  IS(kill((pid_t)pid, SIGKILL), 0);
}

/* Waits until so many workers have died and all are replaced. */
static void until_replaced(mf_engine *engine, uint64_t died) {
  mf_engine_stats stats;
  stats.size = sizeof stats;
  do {
    sleep_ms(1);
    IS(mf_stats(engine, &stats), MF_OK);
  } while (stats.died != died || stats.workers != 2);
  CHECK(!stats.degraded);
}

/* What the worker of a task has from its zygote. */
static pid_t zygote_of(mf_engine *engine) {
  mf_submit_opts opts;
  mf_completion done;
  mf_task_id id;
  int64_t zygote;

  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.max_attempts = 10; /* it may begin on a worker that was just killed */
  IS(mf_submit(engine, "x", 1, &opts, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 20 * SECOND), MF_OK);
  CHECK(done.outcome == MF_COMPLETED && done.len == sizeof zygote);
  memcpy(&zygote, done.data, sizeof zygote);
  IS(mf_completion_release(engine, &done), MF_OK);
  return (pid_t)zygote;
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  mf_config cfg = config(NULL, NULL, 2, 1);
  mf_engine *engine, *none;
  pid_t first;
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
    IS(zygote_of(engine), first); /* one that has not worked is replaced with a delay */
    kill_worker(engine, slot);
    until_replaced(engine, (uint64_t)slot + 1);
  }
  IS(zygote_of(engine), first);
  /* The zygote dies: the workers go on, and others come from its successor. */
  IS(kill(first, SIGKILL), 0);
  IS(zygote_of(engine), first);
  kill_worker(engine, 0);
  kill_worker(engine, 1);
  until_replaced(engine, 4);
  CHECK(zygote_of(engine) != first);
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
