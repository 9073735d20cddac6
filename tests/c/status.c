/* Description: the name of an engine, its status as JSON, and what its rows say about processes. */
#include "test.h"

static int32_t handler(void *user, mf_task *task) {
  (void)user;
  if (mf_task_user_data(task) == 1) {
    const int64_t end = now_ns() + 100 * MS;
    while (now_ns() < end) {
    }
  }
  return 0;
}

static int is_there(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/dev/shm/miniflow.%u.%s", (unsigned)geteuid(), name);
  return access(path, F_OK) == 0;
}

static void names(void) {
  char name[65], second[65], expected[65], number[32];
  mf_config cfg = config(handler, NULL, 1, 1);
  mf_engine *engine = start(&cfg);
  mf_engine *other = start(&cfg);
  const int32_t len = mf_engine_name(engine, name, sizeof name);
  CHECK(len > 0 && (size_t)len == strlen(name));
  snprintf(number, sizeof number, "-%d", (int)getpid());
  CHECK(strcmp(name + len - strlen(number), number) == 0);
  CHECK(is_there(name));
  IS(mf_engine_name(other, second, sizeof second), len + 2);
  CHECK(strncmp(second, name, (size_t)len) == 0 && strcmp(second + len, "-2") == 0);

  IS(mf_engine_name(engine, NULL, 0), len);
  IS(mf_engine_name(engine, expected, 4), len); /* cut */
  CHECK(strlen(expected) == 3 && strncmp(expected, name, 3) == 0);
  IS(mf_engine_name(engine, NULL, 1), MF_E_INVALID);
  IS(mf_engine_name(NULL, name, sizeof name), MF_E_INVALID);
  IS(mf_engine_free(other), MF_OK);
  IS(mf_engine_stop(engine, -1), MF_OK);
  CHECK(!is_there(name) && !is_there(second));
  IS(mf_engine_name(engine, expected, sizeof expected), len);
  CHECK(strcmp(expected, name) == 0);
  IS(mf_engine_free(engine), MF_OK);

  cfg.name = "";
  engine = start(&cfg);
  strcpy(name, "unchanged");
  IS(mf_engine_name(engine, name, sizeof name), 0);
  CHECK(name[0] == 0);
  IS(mf_engine_free(engine), MF_OK);

  snprintf(expected, sizeof expected, "test-c-status-%d", (int)getpid());
  cfg.name = expected;
  engine = start(&cfg);
  IS(mf_engine_name(engine, name, sizeof name), strlen(expected));
  CHECK(strcmp(name, expected) == 0 && is_there(expected));
  other = NULL;
  IS(mf_engine_start(&cfg, &other), MF_E_INVALID);
  CHECK(strstr(mf_last_error(), expected) != NULL);
  IS(mf_engine_free(engine), MF_OK);
  CHECK(!is_there(expected));
}

/* Runs one task to its end. */
static void run(mf_engine *engine, uint64_t user_data) {
  mf_submit_opts opts;
  mf_task_id id;
  mf_completion done;
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.user_data = user_data;
  IS(mf_submit(engine, "x", 1, &opts, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, -1), MF_OK);
  IS(mf_completion_release(engine, &done), MF_OK);
}

/* The whole text, to be freed. */
static char *json_of(mf_engine *engine) {
  size_t cap = 16;
  char *text = NULL;
  for (;;) {
    int32_t len;
    text = (char *)realloc(text, cap);
    CHECK(text != NULL);
    len = mf_status_json(engine, text, cap);
    CHECK(len > 0);
    if ((size_t)len < cap) {
      CHECK(strlen(text) == (size_t)len);
      return text;
    }
    cap = (size_t)len + 64; /* it may have grown when it is asked for again */
  }
}

static void json(void) {
  static const char *const parts[] = {
      "\"schema\":1,",        "\"state\":\"running\"", "\"policy\":\"least_loaded\"",
      "\"scaling\":\"off\"",  "\"completed\":3,",      "\"queue_time\":{\"count\":3,",
      "\"crashes\":[]",       "\"is_running\":true",   "\"input_queue\":{",
      "\"output_queue\":{",   "\"process_pool\":{",    "\"cpu-1\":{\"active_tasks\":0,",
      "\"total_load\":0",     "\"cpus\":",             "\"placement\":\"none\""};
  const mf_config cfg = config(handler, NULL, 2, 1);
  mf_engine *engine = start(&cfg);
  char name[65], quoted[80];
  char *text;
  size_t i;
  int depth = 0;
  for (i = 0; i < 3; i++) run(engine, 0);
  text = json_of(engine);
  for (i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (strstr(text, parts[i]) == NULL) {
      fprintf(stderr, "no %s in %s\n", parts[i], text);
      exit(1);
    }
  }
  IS(mf_engine_name(engine, name, sizeof name) > 0, 1);
  snprintf(quoted, sizeof quoted, "\"name\":\"%s\"", name);
  CHECK(strstr(text, quoted) != NULL);
  for (i = 0; text[i] != 0; i++) {
    depth += (text[i] == '{') - (text[i] == '}');
    CHECK(depth > 0 || text[i + 1] == 0);
  }
  IS(depth, 0);
  free(text);
  IS(mf_engine_stop(engine, -1), MF_OK);
  text = json_of(engine);
  CHECK(strstr(text, "\"state\":\"stopped\"") != NULL);
  CHECK(strstr(text, "\"is_running\":false") != NULL);
  free(text);
  IS(mf_engine_free(engine), MF_OK);
}

static void rows(void) {
  const mf_config cfg = config(handler, NULL, 1, 1);
  mf_engine *engine = start(&cfg);
  const int64_t deadline = now_ns() + 20 * SECOND;
  mf_worker_row row;
  do {
    CHECK(now_ns() < deadline);
    run(engine, 1);
    row.size = sizeof row;
    IS(mf_worker_stats(engine, &row, sizeof row, 1), 1);
  } while (row.cpu_permille < 100);
  CHECK(row.cpu_permille <= 2000);
  CHECK(row.rss_bytes > 100000 && row.pid > 1 && row.completed > 0);
  IS(mf_engine_free(engine), MF_OK);
}

int main(void) {
  watchdog(60);
  names();
  json();
  rows();
  return 0;
}
