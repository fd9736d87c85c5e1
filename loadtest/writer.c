/* Writers that cost little more than the kernel does: keep-alive connections that post prepared requests.
 *
 * usage: writer HOST PORT CONNECTIONS RATE SECONDS COUNT
 * On standard input, ended by a NUL byte: paths, a line each; a blank line; header lines; a blank line; the body, in
 * which each SENT_NS_IS_PUT_HERE becomes the time. Requests go to the paths in turn.
 * RATE 0: each connection sends as soon as it has been answered; else so many requests a second in all, and one that
 * is late because of the one before it counts from when it was due. It ends after SECONDS, or after COUNT requests
 * when COUNT is not 0, and prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 4000000
#define MARK "SENT_NS_IS_PUT_HERE"

struct line { int fd, busy, length; int64_t due; char answer[65536]; };

static struct line *lines;
static char *paths[65536], *head, *body, *request;
static int path_count, body_length;
static double *times;
static long sent, answered, refused;

static int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void post(struct line *line, int64_t due) {
  int length = sprintf(request, "POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", paths[sent % path_count], head, body_length);
  memcpy(request + length, body, body_length);
  char number[32];
  sprintf(number, "%019lld", (long long)now_ns());
  /* JSON has no leading zeros: a space is as good. */
  for (char *digit = number; *digit == '0'; digit++) *digit = ' ';
  for (char *at = request + length; (at = memmem(at, request + length + body_length - at, MARK, 19)); at += 19)
    memcpy(at, number, 19);
  length += body_length;
  line->busy = 1; line->due = due; line->length = 0;
  for (int done = 0; done < length;) {
    ssize_t wrote = write(line->fd, request + done, length - done);
    if (wrote > 0) { done += wrote; continue; }
    if (wrote < 0 && errno == EAGAIN) { struct pollfd writable = {line->fd, POLLOUT, 0}; poll(&writable, 1, 100); continue; }
    perror("write"); exit(1);
  }
  sent++;
}

static void receive(struct line *line) {
  ssize_t got = read(line->fd, line->answer + line->length, sizeof line->answer - 1 - line->length);
  if (got <= 0) { if (got < 0 && errno == EAGAIN) return; fprintf(stderr, "a connection was closed\n"); exit(1); }
  line->length += got;
  line->answer[line->length] = 0;
  char *end = memmem(line->answer, line->length, "\r\n\r\n", 4);
  if (!end) return;
  char *field = strcasestr(line->answer, "content-length:");
  int whole = end + 4 - line->answer + (field && field < end ? atoi(field + 15) : 0);
  if (line->length < whole) return;
  if (line->answer[9] != '2') { if (!refused++) fprintf(stderr, "%s\n", line->answer); }
  if (answered < MOST) times[answered] = (now_ns() - line->due) / 1e6;
  answered++;
  line->busy = 0;
}

static int compare(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  int count = atoi(argv[3]), got, length = 0, on = 1;
  double rate = atof(argv[4]), seconds = atof(argv[5]);
  long most = atol(argv[6]);
  static char text[16 << 20];
  while ((got = getchar()) > 0) text[length++] = got;
  char *at = text;
  while (*at != '\n') { char *end = strchr(at, '\n'); *end = 0; paths[path_count++] = at; at = end + 1; }
  head = ++at;
  char *blank = strstr(at, "\n\n");
  body = blank + 2; body_length = text + length - body;
  char *headers = calloc(1, blank - at + 4096);
  for (char *line = strtok(strndup(at, blank - at), "\n"); line; line = strtok(NULL, "\n")) { strcat(headers, line); strcat(headers, "\r\n"); }
  head = headers;
  request = malloc(body_length + 65536);
  times = malloc(MOST * sizeof *times);
  lines = calloc(count, sizeof *lines);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  int poll_fd = epoll_create1(0);
  struct epoll_event events[512];
  for (int i = 0; i < count; i++) {
    lines[i].fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(lines[i].fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); return 1; }
    setsockopt(lines[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = i};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, lines[i].fd, &wanted);
  }
  int64_t began = now_ns(), ended = began + (int64_t)(seconds * 1e9), now;
  int next = 0;
  for (;;) {
    now = now_ns();
    int over = most ? sent >= most : now >= ended;
    if (over && answered == sent) break;
    if (now >= ended + 30000000000LL) break;
    int wait = over ? 100 : -1;
    for (int tried = 0; !over && tried < count; tried++) {
      int64_t due = rate ? began + (int64_t)(sent / rate * 1e9) : now;
      if (due > now) { wait = (due - now) / 1000000; break; }
      struct line *line = &lines[next];
      next = (next + 1) % count;
      if (!line->busy) { post(line, due); over = most && sent >= most; tried = -1; wait = 100; now = now_ns(); }
    }
    if (wait == 0) usleep(100); /* the readers share this core */
    int ready = epoll_wait(poll_fd, events, 512, wait < 0 ? 100 : wait);
    for (int i = 0; i < ready; i++) receive(&lines[events[i].data.u32]);
  }
  double took = (now_ns() - began) / 1e9;
  long kept = answered < MOST ? answered : MOST;
  qsort(times, kept, sizeof *times, compare);
  printf("{\"answered\":%ld,\"refused\":%ld,\"seconds\":%.6f,\"p50\":%.3f,\"p99\":%.3f}\n", answered, refused, took,
         kept ? times[kept / 2] : 0, kept ? times[(long)(kept * 0.99)] : 0);
  return 0;
}
