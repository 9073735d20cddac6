/* Description: the number of workers follows the load, by a built-in policy and by a function. */
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

/* The most workers that there were while the tasks ran. */
static uint64_t run(const mf_config *cfg) {
  mf_engine *engine;
  uint64_t most = 0;
  int left = TASKS, i;
  IS(mf_engine_start(cfg, &engine), MF_OK);
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
  IS(mf_engine_free(engine), MF_OK);
  return most;
}

int main(void) {
  static mf_class wanted = MF_CPU_BOUND;
  mf_config cfg = config(handler, NULL, 1, 1);
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
  return 0;
}
