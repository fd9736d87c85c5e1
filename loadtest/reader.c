/* Readers that cost little more than the kernel does: one epoll loop over many streaming connections.
 *
 * usage: reader HOST PORT CONNECTIONS SAMPLE_EVERY MARKER AT_ONCE
 * On standard input, ended by a NUL byte: one request for each connection, or for all; each ends in a blank line.
 * A request for a WebSocket is followed, on one line, by what is sent once it is open. Then, a line each:
 *   frames N     answered `framed N` once N frames have come in all
 *   until N      answered `reached N` once every connection's last number is N or more
 *   stop N       the last N connections are read no more
 *   report       answered by one line of JSON, then the program ends
 * It says `open SECONDS` once every connection was answered. A frame is told by MARKER, which its number follows: it
 * must be the last one's plus 1, or as SECOND:COUNT, which some servers have instead, more than the last one's. Of each SAMPLE_EVERY-th connection every event's age is taken, by its sent_ns
 * (CLOCK_MONOTONIC).
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
#define REST 64
#define MOST_AGES 8000000

struct reader { int fd, open, closed, faults, connected, rest_length; long frames, last, part; char rest[REST]; };

static struct reader *readers;
static double *ages;
static long age_count, frames_seen;
static char chunk[CHUNK + REST + 1];
static char *requests[65536], *says[65536];
static int request_count, poll_fd, sample_every, opened;
static const char *marker;
static struct sockaddr_in address;

static int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void say(int fd, const char *text) {
  unsigned char frame[4096] = {0x81};
  int length = strlen(text), at = 2;
  if (length < 126) frame[1] = 0x80 | length;
  else { frame[1] = 0x80 | 126; frame[2] = length >> 8; frame[3] = length; at = 4; }
  at += 4; /* a mask of zeros */
  memcpy(frame + at, text, length);
  if (write(fd, frame, at + length) < 0) perror("say");
}

static void take(struct reader *reader, int which, char *data, int length) {
  char *at = data, *end = data + length;
  int size = strlen(marker);
  if (!reader->open) {
    const char *text = says[which % request_count];
    if (text && reader->frames == 0 && memmem(data, length, " 101 ", 5)) say(reader->fd, text);
    if (memmem(data, length, text ? "stream.open" : " 200 ", text ? 11 : 5)) { reader->open = 1; opened++; }
  }
  while ((at = memmem(at, end - at, marker, size))) {
    char *after;
    long seq = strtol(at + size, &after, 10);
    if (after >= end) break;
    if (*after == ':') {
      long part = strtol(after + 1, &after, 10);
      if (after >= end) break;
      if (seq < reader->last || (seq == reader->last && part <= reader->part)) reader->faults++;
      reader->part = part;
    } else if (reader->last && seq != reader->last + 1) reader->faults++;
    reader->last = seq;
    reader->frames++;
    frames_seen++;
    at = after;
  }
  if (which % sample_every == 0) {
    int64_t now = now_ns();
    for (at = data; (at = memmem(at, end - at, "\"sent_ns\":", 10)); at += 10) {
      char *after;
      int64_t sent = strtoll(at + 10, &after, 10);
      /* A number that the read cut in two is no time. */
      if (sent && after < end && age_count < MOST_AGES) ages[age_count++] = (now - sent) / 1e6;
    }
  }
}

/* What may be the beginning of a marker and its number waits for the next read. */
static int keep_from(const char *data, int length) {
  int size = strlen(marker);
  int from = length > REST ? length - REST : 0;
  for (int at = from; at < length; at++) {
    int left = length - at;
    if (memcmp(data + at, marker, left < size ? left : size)) continue;
    if (left < size) return left;
    int digit = at + size;
    while (digit < length && data[digit] >= '0' && data[digit] <= ':') digit++;
    if (digit == length) return left;
  }
  return 0;
}

static void receive(struct reader *reader, int which) {
  memcpy(chunk, reader->rest, reader->rest_length);
  ssize_t got = recv(reader->fd, chunk + reader->rest_length, CHUNK, 0);
  if (got <= 0) {
    if (got == 0 || errno != EAGAIN) { reader->closed = 1; epoll_ctl(poll_fd, EPOLL_CTL_DEL, reader->fd, NULL); }
    return;
  }
  int length = reader->rest_length + got;
  chunk[length] = 0;
  int keep = keep_from(chunk, length);
  char saved[REST];
  memcpy(saved, chunk + length - keep, keep);
  chunk[length - keep] = 0;
  take(reader, which, chunk, length - keep);
  memcpy(reader->rest, saved, reader->rest_length = keep);
}

static void begin(struct reader *reader, int which) {
  int on = 1;
  reader->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(reader->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  connect(reader->fd, (struct sockaddr *)&address, sizeof address);
  struct epoll_event wanted = {.events = EPOLLOUT, .data.u32 = which};
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, reader->fd, &wanted);
}

static void ask(struct reader *reader, int which) {
  const char *request = requests[which % request_count];
  if (write(reader->fd, request, strlen(request)) < 0) { perror("connect"); exit(1); }
  reader->connected = 1;
  struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = which};
  epoll_ctl(poll_fd, EPOLL_CTL_MOD, reader->fd, &wanted);
}

static int compare(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static double share(double part) { return age_count ? ages[(long)((age_count - 1) * part)] : 0; }

static void report(int count) {
  long faults = 0, closed = 0, least = -1;
  for (int i = 0; i < count; i++) {
    faults += readers[i].faults; closed += readers[i].closed;
    if (least < 0 || readers[i].frames < least) least = readers[i].frames;
  }
  qsort(ages, age_count, sizeof *ages, compare);
  printf("{\"frames\":%ld,\"faults\":%ld,\"closed\":%ld,\"least\":%ld,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"most\":%.3f}\n",
         frames_seen, faults, closed, least, share(0.5), share(0.9), share(0.99), share(1));
  fflush(stdout);
}

static void split(char *text) {
  while (*text) {
    char *end = strstr(text, "\r\n\r\n");
    if (!end) return;
    requests[request_count] = strndup(text, end + 4 - text);
    text = end + 4;
    if (strcasestr(requests[request_count], "upgrade: websocket")) {
      char *line = strchr(text, '\n');
      says[request_count] = strndup(text, line - text);
      text = line + 1;
    }
    request_count++;
  }
}

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  int count = atoi(argv[3]), at_once = atoi(argv[6]);
  sample_every = atoi(argv[4]);
  marker = argv[5];
  static char text[32 << 20];
  int length = 0, got;
  setvbuf(stdin, NULL, _IONBF, 0); /* what follows the requests is read by another way */
  while ((got = getchar()) > 0) text[length++] = got;
  split(text);
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  readers = calloc(count, sizeof *readers);
  ages = malloc(MOST_AGES * sizeof *ages);
  poll_fd = epoll_create1(0);
  struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = (uint32_t)-1}, events[512];
  fcntl(0, F_SETFL, O_NONBLOCK);
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &wanted);
  int64_t began = now_ns();
  int begun = 0, told_open = 0;
  long until = -1, frames = -1;
  for (;;) {
    while (begun < count && begun - opened < at_once) { begin(&readers[begun], begun); begun++; }
    int ready = epoll_wait(poll_fd, events, 512, 20);
    for (int i = 0; i < ready; i++) {
      uint32_t which = events[i].data.u32;
      if (which != (uint32_t)-1) {
        if (!readers[which].connected) ask(&readers[which], which);
        else receive(&readers[which], which);
        continue;
      }
      char line[256] = {0};
      if (read(0, line, sizeof line - 1) <= 0 || !strncmp(line, "report", 6)) { report(count); return 0; }
      if (!strncmp(line, "until ", 6)) until = atol(line + 6);
      if (!strncmp(line, "frames ", 7)) frames = atol(line + 7);
      if (!strncmp(line, "stop ", 5))
        for (int j = count - atoi(line + 5); j < count; j++) epoll_ctl(poll_fd, EPOLL_CTL_DEL, readers[j].fd, NULL);
    }
    if (!told_open && opened == count) {
      told_open = 1;
      printf("open %.6f\n", (now_ns() - began) / 1e9);
      fflush(stdout);
    }
    if (frames >= 0 && frames_seen >= frames) { printf("framed %ld\n", frames); fflush(stdout); frames = -1; }
    if (until >= 0) {
      int reached = 1;
      for (int i = 0; i < count && reached; i++) reached = readers[i].last >= until || readers[i].closed;
      if (reached) { printf("reached %ld\n", until); fflush(stdout); until = -1; }
    }
  }
}
