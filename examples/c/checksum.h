/* What the host (checksum.c) and the worker program (worker.c) share: a task is the path of a file,
 * its result the file's checksum, FNV-1a of 64 bits. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "miniflow.h"

typedef struct checksum {
  uint64_t hash;
  uint64_t bytes;
} checksum;

#define FNV_BASIS UINT64_C(0xcbf29ce484222325)

static inline uint64_t fnv1a(uint64_t hash, const void *data, size_t len) {
  const unsigned char *bytes = (const unsigned char *)data;
  size_t i;
  for (i = 0; i < len; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
  return hash;
}

/* The checksum of a file; 0, or the error number. Not blocked by a pipe or a device: those are
 * EINVAL, should a path have become one. */
static inline int checksum_file(const char *path, checksum *sum) {
  char buffer[32768];
  ssize_t n;
  int error = 0;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
  sum->hash = FNV_BASIS;
  sum->bytes = 0;
  if (fd < 0) return errno;
  if (lseek(fd, 0, SEEK_CUR) < 0) error = EINVAL;
  while (error == 0 && (n = read(fd, buffer, sizeof buffer)) != 0) {
    if (n > 0) {
      sum->hash = fnv1a(sum->hash, buffer, (size_t)n);
      sum->bytes += (uint64_t)n;
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  close(fd);
  return error;
}

/* Does one task. What cannot be read is a failed task, with its error number as the code. */
static inline int32_t checksum_task(mf_task *task) {
  size_t len = 0;
  checksum sum;
  int error;
  const void *payload = mf_task_payload(task, &len);
  char *path = payload == NULL ? NULL : (char *)malloc(len + 1);
  if (path == NULL) return ENOMEM;
  memcpy(path, payload, len);
  path[len] = '\0';
  error = checksum_file(path, &sum);
  free(path);
  if (error != 0) {
    mf_task_fail(task, error, strerror(error));
    return error;
  }
  return mf_task_reply(task, &sum, sizeof sum);
}

#endif
