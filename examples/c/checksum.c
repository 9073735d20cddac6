/* Checksums every file under a directory, in worker processes.
 *   cc -O2 -I include examples/c/checksum.c -L target/release -lminiflow -Wl,-rpath,$PWD/target/release -o checksum
 *   ./checksum [--each] [--verify] [--workers N] [--program ./worker] DIR
 * One task per file, its path as payload, in batches; completions by epoll on the engine's event
 * fd. Files that cannot be read are failed tasks, and reported. Symbolic links are not followed. */
#include "checksum.h"

#include <dirent.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>

#define BATCH 128
#define WORKERS 1024

static void die(const char *what, const char *why) {
  fprintf(stderr, "checksum: %s: %s\n", what, why);
  exit(1);
}

static void *grown(void *array, size_t count, size_t *room, size_t size) {
  if (count == *room) {
    *room = *room ? *room * 2 : 1024;
    array = realloc(array, *room * size);
    if (array == NULL) die("realloc", strerror(ENOMEM));
  }
  return array;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the tree ---- */

typedef struct entry {
  char *path;
  checksum sum;
  int error; /* of the worker's: an error number; -1 = crashed or cancelled */
  int done;
} entry;

/* A walk that keeps the directories that are still to be read, so that depth costs no stack. */
typedef struct tree {
  char **dirs;
  size_t dir_count, dir_room;
  entry *files;
  size_t file_count, file_room;
  size_t unreadable;
} tree;

static void add_dir(tree *t, char *path) {
  t->dirs = (char **)grown(t->dirs, t->dir_count, &t->dir_room, sizeof *t->dirs);
  t->dirs[t->dir_count++] = path;
}

static void add_file(tree *t, char *path) {
  entry *file;
  t->files = (entry *)grown(t->files, t->file_count, &t->file_room, sizeof *t->files);
  file = &t->files[t->file_count++];
  memset(file, 0, sizeof *file);
  file->path = path;
}

/* Reads one more directory; 0 when there is none. */
static int walk(tree *t) {
  char *dir_path;
  DIR *dir;
  struct dirent *found;
  if (t->dir_count == 0) return 0;
  dir_path = t->dirs[--t->dir_count];
  dir = opendir(dir_path);
  if (dir == NULL) {
    fprintf(stderr, "checksum: %s: %s\n", dir_path, strerror(errno));
    t->unreadable++;
    free(dir_path);
    return 1;
  }
  while ((found = readdir(dir)) != NULL) {
    char *path = NULL;
    unsigned char type = found->d_type;
    struct stat status;
    if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0) continue;
    if (type == DT_UNKNOWN &&
        fstatat(dirfd(dir), found->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
      type = S_ISDIR(status.st_mode) ? DT_DIR : S_ISREG(status.st_mode) ? DT_REG : DT_UNKNOWN;
    }
    if (type != DT_DIR && type != DT_REG) continue;
    if (asprintf(&path, "%s/%s", dir_path, found->d_name) < 0) die("asprintf", strerror(ENOMEM));
    if (type == DT_DIR) {
      add_dir(t, path);
    } else {
      add_file(t, path);
    }
  }
  closedir(dir);
  free(dir_path);
  return 1;
}

static void free_tree(tree *t) {
  size_t i;
  for (i = 0; i < t->file_count; i++) free(t->files[i].path);
  free(t->files);
  free(t->dirs);
}

/* ---- the engine ---- */

static int32_t handle(void *user, mf_task *task) {
  (void)user;
  return checksum_task(task);
}

static uint64_t per_worker[WORKERS];

static void take(tree *t, const mf_completion *done) {
  entry *file = &t->files[done->user_data];
  file->done++;
  if (done->worker < WORKERS) per_worker[done->worker]++;
  if (done->outcome == MF_COMPLETED && done->len == sizeof file->sum) {
    memcpy(&file->sum, done->data, sizeof file->sum);
    return;
  }
  file->error = done->outcome == MF_FAILED ? done->code : -1;
  fprintf(stderr, "checksum: %s: %.*s\n", file->path, (int)done->len, (const char *)done->data);
}

/* Fetches what is ready; how many that was. */
static size_t drain(mf_engine *engine, tree *t) {
  static mf_completion done[BATCH];
  size_t all = 0;
  int n, i;
  while ((n = mf_poll(engine, done, BATCH, 0)) > 0) {
    for (i = 0; i < n; i++) take(t, &done[i]);
    mf_completion_release_batch(engine, done, (size_t)n);
    all += (size_t)n;
  }
  if (n < 0) die("mf_poll", mf_last_error());
  return all;
}

/* Submits the next files of the list, one batch at most; how many were accepted. */
static size_t submit(mf_engine *engine, tree *t, size_t from) {
  static mf_submission batch[BATCH]; /* zeros, where nothing else is set */
  size_t count = 0;
  int n;
  for (; count < BATCH && from + count < t->file_count; count++) {
    batch[count].payload = t->files[from + count].path;
    batch[count].len = strlen(t->files[from + count].path);
    batch[count].user_data = from + count;
  }
  n = mf_submit_batch(engine, batch, sizeof batch[0], count, NULL);
  if (n == MF_E_WOULD_BLOCK) return 0; /* full: fetch completions first */
  if (n < 0) die("mf_submit_batch", mf_last_error());
  return (size_t)n;
}

static void run(mf_engine *engine, tree *t) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  size_t sent = 0, received = 0;
  memset(&event, 0, sizeof event);
  event.events = EPOLLIN;
  if (set < 0 || mf_event_fd(engine) < 0 ||
      epoll_ctl(set, EPOLL_CTL_ADD, mf_event_fd(engine), &event) != 0) {
    die("epoll", strerror(errno));
  }
  for (;;) {
    size_t accepted = 0, fetched;
    int more = 1;
    while (t->file_count - sent < BATCH && (more = walk(t)) != 0) {
    }
    if (sent < t->file_count) accepted = submit(engine, t, sent);
    sent += accepted;
    fetched = drain(engine, t);
    received += fetched;
    if (!more && received == t->file_count) break;
    if (accepted == 0 && fetched == 0 && epoll_wait(set, &event, 1, -1) < 0 && errno != EINTR) {
      die("epoll_wait", strerror(errno));
    }
  }
  close(set);
}

/* ---- the report ---- */

/* Does it all again in this process; how many files differ. */
static size_t verify(const tree *t) {
  size_t i, wrong = 0;
  for (i = 0; i < t->file_count; i++) {
    const entry *file = &t->files[i];
    checksum sum;
    const int error = checksum_file(file->path, &sum);
    if (file->done != 1 || file->error != error ||
        (error == 0 && (file->sum.hash != sum.hash || file->sum.bytes != sum.bytes))) {
      fprintf(stderr, "checksum: %s: the single-process run differs\n", file->path);
      wrong++;
    }
  }
  return wrong;
}

static void report(const tree *t, int each, double elapsed) {
  uint64_t total = 0, bytes = 0, most = 1;
  size_t failed = 0, i;
  int w;
  for (i = 0; i < t->file_count; i++) {
    const entry *file = &t->files[i];
    if (file->error != 0) {
      failed++;
      continue;
    }
    /* Does not depend on the order of the files. */
    total += fnv1a(fnv1a(FNV_BASIS, file->path, strlen(file->path) + 1), &file->sum,
                   sizeof file->sum);
    bytes += file->sum.bytes;
    if (each) printf("%016llx  %s\n", (unsigned long long)file->sum.hash, file->path);
  }
  printf("total     %016llx\n", (unsigned long long)total);
  printf("files     %zu (%zu failed, %zu directories unreadable)\n", t->file_count, failed,
         t->unreadable);
  printf("bytes     %llu\n", (unsigned long long)bytes);
  for (w = 0; w < WORKERS; w++) {
    if (per_worker[w] > most) most = per_worker[w];
  }
  for (w = 0; w < WORKERS; w++) {
    if (per_worker[w] > 0) {
      printf("worker %-2d %-40.*s %llu\n", w, (int)(1 + per_worker[w] * 39 / most),
             "########################################", (unsigned long long)per_worker[w]);
    }
  }
  printf("time      %.3f s\n", elapsed);
}

int main(int argc, char **argv) {
  const char *program[2] = {NULL, NULL};
  const char *root = NULL;
  int each = 0, check = 0, i;
  unsigned long workers = 0;
  mf_config config;
  mf_engine *engine;
  tree files;
  double begin, elapsed;
  size_t wrong = 0;

  for (i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--each") == 0) {
      each = 1;
    } else if (strcmp(argv[i], "--verify") == 0) {
      check = 1;
    } else if (strcmp(argv[i], "--program") == 0 && i + 1 < argc) {
      program[0] = argv[++i];
    } else if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc) {
      workers = strtoul(argv[++i], NULL, 10);
    } else if (root == NULL && argv[i][0] != '-') {
      root = argv[i];
    } else {
      root = NULL;
      break;
    }
  }
  if (root == NULL) {
    fprintf(stderr, "usage: checksum [--each] [--verify] [--workers N] [--program PATH] DIR\n");
    return 2;
  }
  memset(&files, 0, sizeof files);
  add_dir(&files, strdup(root));

  mf_config_init(&config, sizeof config);
  if (program[0] != NULL) {
    config.worker_argv = program;
  } else {
    config.handler = handle;
  }
  if (workers > 0) {
    config.classes[MF_CPU_BOUND].min_workers = (uint32_t)workers;
    config.classes[MF_CPU_BOUND].max_workers = (uint32_t)workers;
  }
  config.classes[MF_IO_BOUND].min_workers = 0; /* this is a processor's work, mostly */
  config.classes[MF_IO_BOUND].max_workers = 0;
  if (mf_engine_start(&config, &engine) < 0) die("mf_engine_start", mf_last_error());

  begin = seconds();
  run(engine, &files);
  elapsed = seconds() - begin;
  report(&files, each, elapsed);
  if (check) {
    begin = seconds();
    wrong = verify(&files);
    begin = seconds() - begin;
    printf("single    %.3f s, %.2f times as long: %s\n", begin, begin / elapsed,
           wrong == 0 ? "equal" : "NOT EQUAL");
  }
  if (mf_engine_stop(engine, -1) < 0) die("mf_engine_stop", mf_last_error());
  mf_engine_free(engine);
  free_tree(&files);
  return wrong != 0;
}
