/* Description: this program as its own worker program, which keeps views of payloads beyond their
 * tasks, as a language runtime does whose objects lie over payloads: short ones, long ones, detached
 * or not; what a forked child sees of them. And a handler that does the same. */
#include "test.h"

#define ROUNDS 60
#define LARGEST 300001

static const size_t lengths[] = {0, 1, 40, 41, 4095, 4096, 70000, LARGEST};
#define LENGTHS (sizeof lengths / sizeof lengths[0])

typedef struct {
  const void *data;
  size_t len;
  uint64_t handle;
  char byte; /* what it was filled with */
  int kept;  /* its bytes are still those of its task */
} view_t;

static int is_filled(const view_t *view) {
  const char *bytes = (const char *)view->data;
  size_t i;
  for (i = 0; i < view->len; i++)
    if (bytes[i] != view->byte) return 0;
  return 1;
}

static view_t take_view(mf_task *task) {
  view_t view;
  size_t len;
  const void *payload = mf_task_payload(task, &len);
  memset(&view, 0xee, sizeof view);
  IS(mf_task_view(task, &view.data, &view.len, &view.handle), MF_OK);
  CHECK(view.data != NULL && view.handle != 0 && view.len == len);
  CHECK(view.data != payload && (uintptr_t)view.data % 64 == 0);
  view.byte = len > 0 ? *(const char *)payload : 0;
  view.kept = 0;
  CHECK(is_filled(&view));
  return view;
}

/* In a child: the memory is there, the handles are not. */
static void fork_and_look(const view_t *views, int count, mf_task *task) {
  int status, i;
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const void *data;
    size_t len;
    uint64_t handle;
    for (i = 0; i < count; i++) {
      if (views[i].kept) CHECK(is_filled(&views[i]));
      IS(mf_view_detach(views[i].handle), MF_E_INVALID);
      IS(mf_view_release(views[i].handle), MF_E_INVALID);
    }
    IS(mf_task_view(task, &data, &len, &handle), MF_E_INVALID);
    CHECK(data == NULL && len == 0 && handle == 0);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Tells by `fd` that it came to its end. */
static int work(int fd) {
  static view_t views[ROUNDS * LENGTHS];
  mf_worker *worker;
  mf_work work;
  view_t view;
  int rc, i, count = 0;

  work.size = sizeof work;
  IS(mf_worker_join(&worker), MF_OK);
  while ((rc = mf_worker_take(worker, &work, -1)) == MF_OK) {
    view = take_view(work.task);
    if (count == 0) {
      IS(mf_task_view(NULL, &view.data, &view.len, &view.handle), MF_E_INVALID);
      CHECK(view.data == NULL && view.len == 0 && view.handle == 0);
      IS(mf_task_view(work.task, NULL, &view.len, &view.handle), MF_E_INVALID);
      IS(mf_task_view(work.task, &view.data, NULL, &view.handle), MF_E_INVALID);
      IS(mf_task_view(work.task, &view.data, &view.len, NULL), MF_E_INVALID);
      view = take_view(work.task); /* one more of the same */
    }
    /* Those below a page are copies. */
    view.kept = work.user_data % 3 == 0 || view.len < 4096;
    if (work.user_data % 3 == 0) {
      IS(mf_view_detach(view.handle), MF_OK);
      IS(mf_view_detach(view.handle), MF_OK);
    }
    IS(mf_task_end(work.task, 0, view.data, view.len), MF_OK);
    IS(mf_task_view(work.task, &work.payload, &work.len, &work.user_data), MF_E_INVALID);
    views[count++] = view;
    CHECK(!view.kept || is_filled(&view));
    if (count == ROUNDS) fork_and_look(views, count, work.task);
  }
  IS(rc, MF_E_CLOSED);
  IS(count, ROUNDS * LENGTHS);
  IS(mf_worker_leave(worker), MF_OK);
  for (i = 0; i < count; i++) {
    volatile char first;
    CHECK(!views[i].kept || is_filled(&views[i]));
    if (views[i].len > 0) first = *(const char *)views[i].data; /* whatever it is: it is there */
    (void)first;
    IS(mf_view_release(views[i].handle), MF_OK);
    IS(mf_view_release(views[i].handle), MF_E_INVALID);
    IS(mf_view_detach(views[i].handle), MF_E_INVALID);
  }
  IS(mf_view_release(0), MF_OK);
  IS(mf_view_detach(0), MF_E_INVALID);
  IS(mf_view_release(UINT64_MAX), MF_E_INVALID);
  IS(write(fd, "!", 1), 1);
  return 0;
}

/* A handler may keep views too. */
static int32_t handler(void *user, mf_task *task) {
  static view_t last;
  const uint64_t number = mf_task_user_data(task);
  (void)user;
  if (last.handle != 0) {
    CHECK(is_filled(&last));
    IS(mf_view_release(last.handle), MF_OK);
  }
  last = take_view(task);
  if (last.len >= 4096) IS(mf_view_detach(last.handle), MF_OK);
  return mf_task_reply(task, &number, sizeof number);
}

static void run(const mf_config *cfg, int echoes) {
  static char payload[LARGEST];
  mf_engine *engine = start(cfg);
  mf_completion done;
  int i;
  for (i = 0; i < (int)(ROUNDS * LENGTHS); i++) {
    const size_t len = lengths[(size_t)i % LENGTHS];
    const char byte = (char)(1 + i % 100);
    memset(payload, byte, len);
    IS(mf_submit_as(engine, payload, len, NULL, (uint64_t)i, NULL), MF_OK);
    IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
    CHECK(done.outcome == MF_COMPLETED && done.user_data == (uint64_t)i);
    if (echoes) CHECK(done.len == len && (len == 0 || memcmp(done.data, payload, len) == 0));
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  char number[12], end;
  int fds[2];
  mf_config cfg = config(NULL, NULL, 1, 1);

  watchdog(120);
  if (argc > 1) return work(atoi(argv[1]));
  IS(pipe(fds), 0);
  snprintf(number, sizeof number, "%d", fds[1]);
  worker_argv[0] = argv[0];
  worker_argv[1] = number;
  worker_argv[2] = NULL;
  cfg.worker_argv = worker_argv;
  cfg.inherit_fds = &fds[1];
  cfg.inherit_count = 1;
  run(&cfg, 1);
  IS(close(fds[1]), 0);
  IS(read(fds[0], &end, 1), 1); /* the worker got to its end */
  cfg = config(handler, NULL, 1, 1);
  run(&cfg, 0);
  return 0;
}
