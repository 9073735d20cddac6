/* Description: the number of workers follows the load, by a built-in policy and by a function, also one
 * that thinks for ever or answers nonsense; what was decided; submits that are refused for lack of memory. */
#include "test.h"

enum { TASKS = 100 };

static int32_t handler(void *user, mf_task *task) {
  struct timespec nap = {0, 20000000};
  (void)user;
  (void)task;
  nanosleep(&nap, NULL);
  return 0;
}

static int32_t three(void *user, mf_class task_class, const mf_engine_stats *stats,
                     uint32_t workers) {
  if (stats->size != sizeof *stats || stats->submitted == 0 || workers == 0) return 1;
  return task_class == *(mf_class *)user ? 3 : -1;
}

/* Thinks until it is let go. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int asked, let_go;

static int32_t for_ever(void *user, mf_class task_class, const mf_engine_stats *stats,
                        uint32_t workers) {
  (void)user;
  (void)task_class;
  (void)stats;
  (void)workers;
  pthread_mutex_lock(&lock);
  asked = 1;
  pthread_cond_broadcast(&changed);
  while (!let_go) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  return 4;
}

/* What is in *user. */
static int32_t answer(void *user, mf_class task_class, const mf_engine_stats *stats,
                      uint32_t workers) {
  (void)task_class;
  (void)stats;
  (void)workers;
  return *(int32_t *)user;
}

/* Runs the tasks; the most workers that there were meanwhile. */
static uint64_t work(mf_engine *engine) {
  uint64_t most = 0;
  int left = TASKS, i;
  for (i = 0; i < TASKS; i++) IS(mf_submit(engine, NULL, 0, NULL, NULL), MF_OK);
  while (left > 0) {
    mf_completion done[16];
    mf_engine_stats stats;
    int32_t got = mf_poll(engine, done, 16, 10000000);
    CHECK(got >= 0);
    left -= got;
    for (i = 0; i < got; i++) IS(mf_completion_release(engine, &done[i]), MF_OK);
    stats.size = sizeof stats;
    IS(mf_stats(engine, &stats), MF_OK);
    if (stats.workers > most) most = stats.workers;
  }
  return most;
}

static uint64_t run(const mf_config *cfg) {
  mf_engine *engine = start(cfg);
  uint64_t most = work(engine);
  IS(mf_engine_free(engine), MF_OK);
  return most;
}

static void slow_function(mf_config cfg) {
  mf_engine *engine;
  int64_t begin;
  cfg.scaling = for_ever;
  engine = start(&cfg);
  IS(work(engine), 1);
  pthread_mutex_lock(&lock);
  while (!asked) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  IS(work(engine), 1);
  begin = now_ns();
  IS(mf_engine_free(engine), MF_OK);
  CHECK(now_ns() - begin < 10 * SECOND);
  pthread_mutex_lock(&lock);
  let_go = 1; /* its thread ends now, without an engine */
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void decisions(mf_config cfg) {
  static int32_t wanted = INT32_MAX;
  /* A caller of a later version: there is more room for each. */
  struct newer {
    mf_scaling_decision decision;
    uint64_t later;
  } rows[4];
  mf_scaling_decision last;
  mf_engine *engine;
  int32_t count;
  cfg.scaling = answer;
  cfg.scaling_user = &wanted;
  engine = start(&cfg);
  IS(work(engine), 4); /* the most there may be */
  IS(mf_resize(engine, MF_CPU_BOUND, 3), MF_OK);
  memset(rows, 0xff, sizeof rows);
  count = mf_scaling_decisions(engine, &rows[0].decision, sizeof rows[0], 4);
  IS(count, 2);
  IS(rows[0].decision.size, sizeof rows[0]);
  IS(rows[0].later, 0);
  IS(rows[0].decision.task_class, MF_CPU_BOUND);
  IS(rows[0].decision.action, MF_DECISION_GROW);
  IS(rows[0].decision.before, 1);
  IS(rows[0].decision.after, 4);
  IS(rows[0].decision.ready, 1);
  IS(rows[0].decision.threads, 1);
  CHECK(rows[0].decision.queued + rows[0].decision.on_workers > 0);
  CHECK(rows[0].decision.cpu_permille >= -1 && rows[0].decision.cpu_permille <= 1000);
  CHECK(rows[0].decision.memory_permille >= 0 && rows[0].decision.memory_permille <= 1000);
  CHECK(strstr(rows[0].decision.reason, "the scaling function") != NULL);
  CHECK(rows[1].decision.time_ns >= rows[0].decision.time_ns);
  IS(rows[1].decision.action, MF_DECISION_RESIZE);
  /* The newest, if there is no room for all. */
  IS(mf_scaling_decisions(engine, &last, sizeof last, 1), 2);
  IS(last.action, MF_DECISION_RESIZE);
  IS(last.before, 4);
  IS(last.after, 3);
  IS(mf_scaling_decisions(engine, NULL, sizeof last, 0), 2);
  IS(mf_scaling_decisions(engine, NULL, sizeof last, 1), MF_E_INVALID);
  IS(mf_scaling_decisions(engine, &last, sizeof last - 8, 1), MF_E_INVALID);
  IS(mf_scaling_decisions(NULL, &last, sizeof last, 1), MF_E_INVALID);
  IS(mf_engine_free(engine), MF_OK);

  wanted = INT32_MIN; /* no answer */
  IS(run(&cfg), 1);
  wanted = 0; /* the last one stays */
  IS(run(&cfg), 1);
}

static void memory(void) {
  mf_config cfg = config(handler, NULL, 1, 1);
  mf_engine *engine;
  int64_t begin = now_ns();
  int32_t rc;
  cfg.memory_shed_permille = 500; /* needs a scaling policy */
  IS(mf_engine_start(&cfg, &engine), MF_E_INVALID);
  cfg.memory_shed_permille = 0;
  cfg.memory_refuse_permille = 1001;
  IS(mf_engine_start(&cfg, &engine), MF_E_INVALID);
  cfg.memory_refuse_permille = 1; /* more is in use on every machine */
  engine = start(&cfg);
  do {
    rc = mf_submit(engine, NULL, 0, NULL, NULL);
    CHECK(now_ns() - begin < 20 * SECOND);
  } while (rc == MF_OK);
  IS(rc, MF_E_WOULD_BLOCK);
  CHECK(strstr(mf_last_error(), "memory") != NULL);
  IS(mf_engine_free(engine), MF_OK);
}

int main(void) {
  static mf_class wanted = MF_CPU_BOUND;
  mf_config cfg = config(handler, NULL, 1, 1);
  watchdog(120);
  IS(run(&cfg), 1);
  cfg.classes[MF_CPU_BOUND].max_workers = 4;
  IS(run(&cfg), 1); /* off: the minimum */
  cfg.scaling_cpu_permille = 1000;
  cfg.scaling_policy = MF_SCALING_DEFAULT;
  CHECK(run(&cfg) > 1);
  cfg.scaling_policy = MF_SCALING_ADAPTIVE;
  CHECK(run(&cfg) > 1);
  cfg.scaling_policy = MF_SCALING_COMPATIBLE;
  CHECK(run(&cfg) > 1);
  cfg.scaling_policy = MF_SCALING_CUSTOM;
  cfg.scaling_interval_ns = 5000000;
  cfg.scaling = three;
  cfg.scaling_user = &wanted;
  IS(run(&cfg), 3);
  slow_function(cfg);
  decisions(cfg);
  memory();
  return 0;
}
