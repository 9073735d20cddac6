/* Description: the placement fields of mf_config: workers of a handler and of a program run where and
 * as they say, and what cannot be had does not stop the engine. */
#include "test.h" /* first: it asks for all that glibc declares */

#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>

typedef struct {
  int32_t cpus; /* how many */
  int32_t cpu;  /* the first of them */
  int32_t nice;
  int32_t policy;
  int32_t io_priority;
} seen;

static seen here(void) {
  cpu_set_t set;
  seen s;
  int cpu;
  memset(&s, 0, sizeof s);
  IS(sched_getaffinity(0, sizeof set, &set), 0);
  s.cpus = CPU_COUNT(&set);
  for (cpu = 0; !CPU_ISSET(cpu, &set); cpu++) {
  }
  s.cpu = cpu;
  s.nice = getpriority(PRIO_PROCESS, 0);
  s.policy = sched_getscheduler(0);
  s.io_priority = (int32_t)syscall(SYS_ioprio_get, 1, 0);
  return s;
}

/* Replies with the place of the worker. */
static int32_t look(void *user, mf_task *task) {
  const seen s = here();
  (void)user;
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

/* The place of the one worker of a class. */
static seen place(mf_engine *engine, mf_class task_class) {
  mf_submit_opts opts;
  mf_completion done;
  mf_task_id id;
  seen s;
  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  opts.task_class = task_class;
  IS(mf_submit(engine, NULL, 0, &opts, &id), MF_OK);
  IS(mf_wait(engine, &id, &done, 60 * SECOND), MF_OK);
  CHECK(done.outcome == MF_COMPLETED && done.len == sizeof s);
  memcpy(&s, done.data, sizeof s);
  IS(mf_completion_release(engine, &done), MF_OK);
  return s;
}

static void end(mf_engine *engine) {
  IS(mf_engine_stop(engine, -1), MF_OK);
  IS(mf_engine_free(engine), MF_OK);
}

int main(int argc, char **argv) {
  const char *worker_argv[3];
  uint32_t cpus[2], absent = 1000000;
  const seen host = here();
  cpu_set_t set;
  mf_config cfg;
  mf_engine *engine;
  seen s, t;
  int round, cpu, count = 0;

  watchdog(300);
  if (argc > 1 && strcmp(argv[1], "--worker") == 0) return work();
  worker_argv[0] = argv[0];
  worker_argv[1] = "--worker";
  worker_argv[2] = NULL;

  /* Two processors, or the same one twice. */
  IS(sched_getaffinity(0, sizeof set, &set), 0);
  for (cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++) {
    if (CPU_ISSET(cpu, &set)) cpus[count++] = (uint32_t)cpu;
  }
  if (count < 2) cpus[1] = cpus[0];

  for (round = 0; round < 2; round++) {
    /* One worker of each class. On a busy machine an idle one is slow, and that is what is asked for. */
    cfg = config(look, NULL, 1, 1);
    cfg.start_timeout_ns = 60 * SECOND;
    cfg.classes[MF_IO_BOUND] = cfg.classes[MF_CPU_BOUND];
    if (round == 1) {
      cfg.handler = NULL;
      cfg.worker_argv = worker_argv;
    }

    /* As the host by default. */
    engine = start(&cfg);
    s = place(engine, MF_CPU_BOUND);
    CHECK(memcmp(&s, &host, sizeof s) == 0);
    end(engine);

    /* Worker i on cpus[i]; each class in its own way. */
    cfg.affinity = MF_AFFINITY_LIST;
    cfg.affinity_cpus = cpus;
    cfg.affinity_count = 2;
    cfg.classes[MF_CPU_BOUND].nice = 2;
    cfg.classes[MF_CPU_BOUND].scheduler = MF_SCHEDULER_BATCH;
    cfg.classes[MF_CPU_BOUND].io_priority = MF_IO_BEST_EFFORT + 3;
    cfg.classes[MF_IO_BOUND].scheduler = MF_SCHEDULER_IDLE;
    cfg.classes[MF_IO_BOUND].io_priority = MF_IO_IDLE;
    engine = start(&cfg);
    s = place(engine, MF_CPU_BOUND);
    t = place(engine, MF_IO_BOUND);
    CHECK(s.cpus == 1 && s.cpu == (int32_t)cpus[0]);
    CHECK(t.cpus == 1 && t.cpu == (int32_t)cpus[1]);
    CHECK(s.nice == (host.nice + 2 < 19 ? host.nice + 2 : 19) && t.nice == host.nice);
    CHECK(s.policy == SCHED_BATCH && t.policy == SCHED_IDLE);
    CHECK(s.io_priority == (2 << 13 | 3) && t.io_priority == 3 << 13);
    end(engine);

    /* A class may have another affinity than the rest. */
    cfg.class_affinity[MF_IO_BOUND].affinity = MF_AFFINITY_LIST;
    cfg.class_affinity[MF_IO_BOUND].cpus = cpus;
    cfg.class_affinity[MF_IO_BOUND].count = 1;
    cfg.classes[MF_CPU_BOUND].scheduler = MF_SCHEDULER_NORMAL;
    engine = start(&cfg);
    CHECK(place(engine, MF_CPU_BOUND).policy == SCHED_OTHER);
    t = place(engine, MF_IO_BOUND);
    CHECK(t.cpus == 1 && t.cpu == (int32_t)cpus[0]);
    end(engine);

    /* Spread: on different processors, if there are two. */
    memset(cfg.class_affinity, 0, sizeof cfg.class_affinity);
    cfg.affinity = MF_AFFINITY_SPREAD;
    cfg.affinity_cpus = NULL;
    cfg.affinity_count = 0;
    engine = start(&cfg);
    s = place(engine, MF_CPU_BOUND);
    t = place(engine, MF_IO_BOUND);
    CHECK(s.cpus == 1 && t.cpus == 1 && (s.cpu != t.cpu || host.cpus == 1));
    end(engine);

    /* What there is not: the engine runs without. */
    cfg.affinity = MF_AFFINITY_NODE;
    cfg.affinity_node = 4000;
    cfg.class_affinity[MF_IO_BOUND].affinity = MF_AFFINITY_LIST;
    cfg.class_affinity[MF_IO_BOUND].cpus = &absent;
    cfg.class_affinity[MF_IO_BOUND].count = 1;
    cfg.huge_pages = MF_HUGE_PAGES_ADVISE;
    engine = start(&cfg);
    CHECK(place(engine, MF_CPU_BOUND).cpus == host.cpus);
    CHECK(place(engine, MF_IO_BOUND).cpus == host.cpus);
    end(engine);
  }

  /* A caller that was compiled before there were these fields: what lies behind its struct is its own. */
  cfg = config(look, NULL, 1, 1);
  cfg.affinity = MF_AFFINITY_SPREAD;
  cfg.size = offsetof(mf_config, affinity_node);
  memset(&cfg.affinity_node, 0xee, sizeof cfg - cfg.size);
  engine = start(&cfg);
  CHECK(place(engine, MF_CPU_BOUND).cpus == 1);
  end(engine);

  /* The host is as it was. */
  s = here();
  CHECK(memcmp(&s, &host, sizeof s) == 0);
  return 0;
}
