/* Description: 100 engines one after the other leave no descriptor, mapping, name, thread or
 * process. */
#include "test.h"

#include <dirent.h>

/* Entries of a directory whose names contain `part`. */
static int entries(const char *path, const char *part) {
  DIR *dir = opendir(path);
  struct dirent *entry;
  int count = 0;
  CHECK(dir != NULL);
  while ((entry = readdir(dir)) != NULL) count += strstr(entry->d_name, part) != NULL;
  closedir(dir);
  return count;
}

/* The name of this process's engines: other tests may run at the same time. */
static const char *own_name(void) {
  static char name[64];
  snprintf(name, sizeof name, "cycles-%ld", (long)getpid());
  return name;
}

/* Lines of /proc/self/maps, with what is the library's (not malloc's, whose arenas may come). */
static int mappings(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[600];
  int count = 0;
  CHECK(maps != NULL);
  while (fgets(line, sizeof line, maps) != NULL)
    count += strstr(line, "memfd:") != NULL || strstr(line, "/dev/shm") != NULL;
  fclose(maps);
  return count;
}

static void cycle(int round) {
  mf_config cfg = config(echo, NULL, 2, 1);
  mf_engine *engine;
  mf_completion done;
  char payload[20000];
  int i;

  memset(payload, 'x', sizeof payload);
  if (round % 2) cfg.name = own_name();
  engine = start(&cfg);
  CHECK(mf_event_fd(engine) >= 0);
  for (i = 0; i < 20; i++)
    IS(mf_submit(engine, payload, (size_t)i * 1000, NULL, NULL), MF_OK);
  for (i = 0; i < 10; i++) {
    IS(mf_poll(engine, &done, 1, 10 * SECOND), 1);
    IS(mf_completion_release(engine, &done), MF_OK);
  }
  if (round % 3) IS(mf_engine_stop(engine, round % 3 == 1 ? -1 : 0), MF_OK);
  IS(mf_engine_free(engine), MF_OK); /* with completions that nobody fetched */
}

int main(void) {
  int fds, maps, threads, i;
  watchdog(300);
  for (i = 0; i < 6; i++) cycle(i); /* what is made once: stdio, the fork guard, slabs */
  fds = entries("/proc/self/fd", "");
  threads = entries("/proc/self/task", "");
  maps = mappings();
  IS(maps, 0);
  for (i = 0; i < 100; i++) cycle(i);
  IS(entries("/proc/self/fd", ""), fds);
  IS(entries("/proc/self/task", ""), threads);
  IS(entries("/dev/shm", own_name()), 0);
  IS(mappings(), maps);
  IS(waitpid(-1, &i, WNOHANG), -1); /* no child, not even a zombie */
  IS(errno, ECHILD);
  return 0;
}
