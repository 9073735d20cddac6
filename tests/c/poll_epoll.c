/* Description: a host loop with epoll on the event fd, level- and edge-triggered. */
#include "test.h"

#include <poll.h>
#include <sys/epoll.h>

#define COUNT 20000

static int32_t sometimes_slow(void *user, mf_task *task) {
  (void)user;
  if (mf_task_user_data(task) % 997 == 0) sleep_ms(2);
  return 0;
}

static void drain(mf_engine *engine, unsigned *got) {
  mf_completion done[64];
  int n;
  while ((n = mf_poll(engine, done, 64, 0)) > 0) *got += (unsigned)n;
  IS(n, 0);
}

static void loop(mf_engine *engine, uint32_t mode) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  mf_submit_opts opts;
  unsigned sent = 0, got = 0;
  struct pollfd fd;

  IS(mf_submit_opts_init(&opts, sizeof opts), MF_OK);
  memset(&event, 0, sizeof event);
  event.events = EPOLLIN | mode;
  CHECK(set >= 0 && mf_event_fd(engine) >= 0);
  IS(epoll_ctl(set, EPOLL_CTL_ADD, mf_event_fd(engine), &event), 0);
  while (got < COUNT) {
    /* Bursts, so that the loop sleeps between them. */
    unsigned burst = 1 + sent % 511;
    for (; burst > 0 && sent < COUNT; burst--, sent++) {
      opts.user_data = sent;
      IS(mf_submit(engine, NULL, 0, &opts, NULL), MF_OK);
    }
    if (mode & EPOLLET) drain(engine, &got);
    while (got < sent) {
      const int n = epoll_wait(set, &event, 1, 5000);
      CHECK(n == 1); /* never silent while completions are missing */
      drain(engine, &got);
    }
  }
  IS(got, COUNT);
  fd.fd = mf_event_fd(engine);
  fd.events = POLLIN;
  IS(poll(&fd, 1, 20), 0); /* nothing is left: not readable */
  close(set);
}

int main(void) {
  mf_config cfg = config(sometimes_slow, NULL, 2, 1);
  mf_engine *engine;

  watchdog(60);
  engine = start(&cfg);
  IS(mf_event_fd(engine), mf_event_fd(engine));
  loop(engine, 0);
  loop(engine, EPOLLET);
  IS(mf_engine_free(engine), MF_OK);
  return 0;
}
