/* Readers that cost little more than the kernel does: one epoll loop over many SSE connections.
 *
 * usage: reader HOST PORT CONNECTIONS SAMPLE_EVERY    the request is read from standard input, ended by a NUL byte
 * then, a line each on standard input:  until N   answered `reached N` once every connection has seen event N
 *                                       report    answered by one line of JSON, then the program ends
 * It says `open` once every connection was answered. Of each connection it counts the frames with an id and keeps the
 * last seq; of each SAMPLE_EVERY-th it takes the age of every event by its member sent_ns (CLOCK_MONOTONIC).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
#define MOST_AGES 4000000

struct reader { int fd, open, closed, faults; long frames, last; char rest[64]; int rest_length; };

static struct reader *readers;
static double *ages;
static long age_count;
static char chunk[CHUNK + 128];

static int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void take(struct reader *reader, char *data, int length, int sampled) {
  char *at = data, *end = data + length;
  if (!reader->open && memmem(data, length, "stream.open", 11)) reader->open = 1;
  while ((at = memmem(at, end - at, "\nid: ", 5))) {
    char *line = memchr(at + 5, '\n', end - at - 5);
    if (!line) break;
    long seq = strtol(at + 5, NULL, 10);
    if (reader->last && seq != reader->last + 1) reader->faults++;
    reader->last = seq;
    reader->frames++;
    at = line;
  }
  if (sampled) {
    int64_t now = now_ns();
    for (at = data; (at = memmem(at, end - at, "\"sent_ns\":", 10)); at += 10) {
      char *after;
      int64_t sent = strtoll(at + 10, &after, 10);
      /* A number that the read cut in two is no time. */
      if (after < end && age_count < MOST_AGES) ages[age_count++] = (now - sent) / 1e6;
    }
  }
}

/* Whole lines are taken; what follows the last id that is not whole waits for the next read. */
static void receive(struct reader *reader, int sampled) {
  memcpy(chunk, reader->rest, reader->rest_length);
  ssize_t got = recv(reader->fd, chunk + reader->rest_length, CHUNK, 0);
  if (got <= 0) { if (got == 0 || errno != EAGAIN) reader->closed = 1; return; }
  int length = reader->rest_length + got, keep = 0;
  chunk[length] = 0;
  char *tail = memrchr(chunk, '\n', length);
  if (tail) keep = chunk + length - tail;
  /* An id's line is short: a longer rest is a data line, which nothing is looked for in. */
  if (keep > (int)sizeof reader->rest) keep = 0;
  take(reader, chunk, length, sampled);
  reader->rest_length = keep;
  memcpy(reader->rest, chunk + length - keep, keep);
}

static int compare(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static void report(int count) {
  long frames = 0, faults = 0, closed = 0, least = -1;
  for (int i = 0; i < count; i++) {
    frames += readers[i].frames; faults += readers[i].faults; closed += readers[i].closed;
    if (readers[i].frames != readers[i].last) faults++;
    if (least < 0 || readers[i].last < least) least = readers[i].last;
  }
  qsort(ages, age_count, sizeof *ages, compare);
  printf("{\"frames\":%ld,\"faults\":%ld,\"closed\":%ld,\"least\":%ld,\"p50\":%.3f,\"p99\":%.3f}\n", frames, faults, closed,
         least, age_count ? ages[age_count / 2] : 0, age_count ? ages[(long)(age_count * 0.99)] : 0);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int count = atoi(argv[3]), sample_every = atoi(argv[4]);
  static char request[65536];
  int length = 0, got;
  while ((got = getchar()) > 0) request[length++] = got;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  readers = calloc(count, sizeof *readers);
  ages = malloc(MOST_AGES * sizeof *ages);
  int poll = epoll_create1(0);
  struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = (uint32_t)-1}, events[512];
  fcntl(0, F_SETFL, O_NONBLOCK);
  epoll_ctl(poll, EPOLL_CTL_ADD, 0, &wanted);
  for (int i = 0; i < count; i++) {
    int fd = readers[i].fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); return 1; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (send(fd, request, length, 0) != length) return 1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    wanted.data.u32 = i;
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
  }
  long until = -1;
  int told_open = 0;
  for (;;) {
    int ready = epoll_wait(poll, events, 512, 20);
    for (int i = 0; i < ready; i++) {
      uint32_t which = events[i].data.u32;
      if (which != (uint32_t)-1) {
        receive(&readers[which], which % sample_every == 0);
        if (readers[which].closed) epoll_ctl(poll, EPOLL_CTL_DEL, readers[which].fd, NULL);
        continue;
      }
      char line[256] = {0};
      if (read(0, line, sizeof line - 1) <= 0 || !strncmp(line, "report", 6)) { report(count); return 0; }
      if (!strncmp(line, "until ", 6)) until = atol(line + 6);
    }
    int open = 1, reached = 1;
    if (!told_open || until >= 0)
      for (int i = 0; i < count; i++) { open &= readers[i].open; reached &= readers[i].last >= until || readers[i].closed; }
    if (!told_open && open) { told_open = 1; puts("open"); fflush(stdout); }
    if (until >= 0 && reached) { printf("reached %ld\n", until); fflush(stdout); until = -1; }
  }
}
