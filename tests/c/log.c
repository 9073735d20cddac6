/* Description: the log: nothing is printed; messages by level, read in time and without waiting; a
 * reader that is woken to be joined; what a forked child and a worker have of it. */
#include "test.h"

static mf_log_record record;

/* Dies of a signal if it has a payload; else reads the log of its own process. */
static int32_t handler(void *user, mf_task *task) {
  static mf_log_record own;
  size_t len;
  (void)user;
  mf_task_payload(task, &len);
  if (len > 0) raise(SIGKILL);
  own.size = sizeof own;
  return mf_log_read(&own, 0) == MF_E_TIMEOUT ? 0 : 1;
}

static mf_engine *engine;

/* A worker dies, which is worth a message, before the end of its task is told. */
static void crash(void) {
  mf_completion done;
  mf_task_id id;
  IS(mf_submit(engine, "x", 1, NULL, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 20 * SECOND), MF_OK);
  CHECK(done.outcome == MF_CRASHED);
  IS(mf_completion_release(engine, &done), MF_OK);
}

static void *reader(void *arg) {
  mf_log_record mine;
  mine.size = sizeof mine;
  IS(mf_log_read(&mine, -1), MF_E_CLOSED);
  CHECK(strstr(mf_last_error(), "mf_log_wake") != NULL);
  return arg;
}

/* What the function was told. */
struct told {
  pthread_mutex_t lock;
  uint32_t messages;
  int again; /* what mf_set_log() answered in the function itself */
  char last[4096];
};

static void hear(void *user, const mf_log_record *message) {
  struct told *told = (struct told *)user;
  CHECK(message->size == sizeof *message);
  CHECK(strncmp(message->target, "miniflow::", 10) == 0);
  pthread_mutex_lock(&told->lock);
  told->messages++;
  told->again = mf_set_log(NULL, NULL, MF_LOG_OFF);
  snprintf(told->last, sizeof told->last, "%s", message->message);
  pthread_mutex_unlock(&told->lock);
}

/* A function is told what comes, also while its lock is held by who uses the engine, and nothing after
 * it was taken away. */
static void callback(void) {
  static struct told told = {PTHREAD_MUTEX_INITIALIZER, 0, 0, ""};
  IS(mf_set_log(hear, &told, MF_LOG_TRACE + 1), MF_E_INVALID);
  IS(mf_set_log(hear, &told, MF_LOG_WARN), MF_OK);
  pthread_mutex_lock(&told.lock);
  crash();
  CHECK(told.messages == 0);
  pthread_mutex_unlock(&told.lock);
  IS(mf_set_log(NULL, NULL, MF_LOG_WARN), MF_OK); /* tells what waits, first */
  CHECK(told.messages > 0);
  CHECK(strstr(told.last, "worker") != NULL);
  IS(told.again, MF_E_INVALID);
  told.messages = 0;
  crash();
  CHECK(told.messages == 0);
  IS(mf_log_read(&record, 20 * SECOND), MF_OK);
}

/* A child has a queue of its own, and none before it asks. */
static void fork_and_read(void) {
  int status;
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    IS(mf_log_read(&record, 0), MF_E_TIMEOUT);
    IS(mf_log_level(MF_LOG_INFO), MF_OK);
    IS(mf_log_wake(), MF_OK);
    IS(mf_log_read(&record, -1), MF_E_CLOSED);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
  mf_config cfg = config(handler, NULL, 1, 1);
  mf_completion done;
  mf_task_id id;
  pthread_t thread;
  FILE *printed = tmpfile();
  const int stderr_fd = dup(2);
  uint64_t now;

  watchdog(60);
  record.size = sizeof record;
  engine = start(&cfg);

  /* Nobody asked: nothing is kept, and nothing is printed. */
  CHECK(printed != NULL && stderr_fd >= 0);
  IS(dup2(fileno(printed), 2), 2);
  crash();
  IS(dup2(stderr_fd, 2), 2);
  IS(fseek(printed, 0, SEEK_END), 0);
  IS(ftell(printed), 0);
  IS(mf_log_read(&record, 0), MF_E_TIMEOUT);

  /* Wrong use. */
  IS(mf_log_level(-1), MF_E_INVALID);
  IS(mf_log_level(MF_LOG_TRACE + 1), MF_E_INVALID);
  IS(mf_log_read(NULL, -1), MF_E_INVALID);
  record.size = 100;
  IS(mf_log_read(&record, -1), MF_E_INVALID);
  record.size = sizeof record;

  /* What is asked for. */
  IS(mf_log_level(MF_LOG_WARN), MF_OK);
  IS(mf_log_read(&record, 1 * MS), MF_E_TIMEOUT);
  crash();
  IS(mf_log_read(&record, 20 * SECOND), MF_OK);
  CHECK(record.size == sizeof record && record.dropped == 0);
  CHECK(record.level == MF_LOG_WARN || record.level == MF_LOG_ERROR);
  CHECK(strncmp(record.target, "miniflow::", 10) == 0);
  IS(record.target_len, strlen(record.target));
  CHECK(strstr(record.message, "worker 0") != NULL);
  IS(record.message_len, strlen(record.message));
  now = (uint64_t)time(NULL) * (uint64_t)SECOND;
  CHECK(record.time_ns > now - 60 * (uint64_t)SECOND && record.time_ns < now + 60 * (uint64_t)SECOND);

  /* Messages that wait are the parent's; the workers' own logs are empty. */
  crash();
  fork_and_read();
  IS(mf_submit(engine, NULL, 0, NULL, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 20 * SECOND), MF_OK);
  CHECK(done.outcome == MF_COMPLETED);
  IS(mf_log_read(&record, 20 * SECOND), MF_OK);

  /* A reader is woken where it waits, or before it does. */
  while (mf_log_read(&record, 0) == MF_OK) {
  }
  IS(pthread_create(&thread, NULL, reader, NULL), 0);
  IS(mf_log_wake(), MF_OK);
  IS(pthread_join(thread, NULL), 0);
  IS(mf_log_wake(), MF_OK);
  IS(mf_log_read(&record, 0), MF_E_TIMEOUT); /* does not wait */
  IS(mf_log_read(&record, -1), MF_E_CLOSED);

  callback();

  IS(mf_log_level(MF_LOG_OFF), MF_OK);
  while (mf_log_read(&record, 0) == MF_OK) {
  }
  crash();
  IS(mf_engine_free(engine), MF_OK);
  IS(mf_log_read(&record, 0), MF_E_TIMEOUT);
  fclose(printed);
  close(stderr_fd);
  return 0;
}
