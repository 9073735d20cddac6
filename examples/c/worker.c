/* The worker program of checksum.c (--program): joins the engine that started it and works on as
 * many threads as it may hold tasks.
 *   cc -pthread -I include examples/c/worker.c -L target/release -lminiflow -Wl,-rpath,$PWD/target/release -o worker */
#include "checksum.h"

#include <pthread.h>

static void *work(void *worker) {
  mf_task *task;
  int rc;
  while ((rc = mf_worker_next((mf_worker *)worker, &task, -1)) == MF_OK) {
    if (mf_task_finish(task, checksum_task(task)) < 0) break;
  }
  if (rc != MF_E_CLOSED) fprintf(stderr, "worker: %s\n", mf_last_error());
  return rc == MF_E_CLOSED ? NULL : worker; /* NULL: an orderly end */
}

int main(void) {
  mf_worker *worker;
  pthread_t *threads;
  int count, started = 1, i;
  void *failed;

  if (mf_worker_join(&worker) < 0) {
    fprintf(stderr, "worker: %s\n", mf_last_error());
    return 1;
  }
  count = mf_worker_concurrency(worker);
  threads = (pthread_t *)calloc((size_t)count, sizeof *threads);
  if (threads == NULL) return 1;
  while (started < count && pthread_create(&threads[started], NULL, work, worker) == 0) started++;
  failed = work(worker); /* this thread is one of them */
  for (i = 1; i < started; i++) {
    void *also = NULL;
    pthread_join(threads[i], &also);
    if (also != NULL) failed = also;
  }
  free(threads);
  mf_worker_leave(worker);
  return failed != NULL;
}
