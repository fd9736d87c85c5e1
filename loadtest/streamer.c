/* One connection that appends a line, or a WebSocket frame, an event, and is answered for each by its seq.
 *
 * usage: streamer HOST PORT lines|frames RATE SECONDS
 * On standard input: the head of the request, a blank line within it as HTTP has it, ended by a NUL byte; then the event,
 * in which SENT_NS_IS_PUT_HERE becomes the time. Lines go out as chunks of one body, frames unmasked by a mask of zeros.
 * RATE 0: as fast as answers come, with at most WINDOW events unanswered; else so many a second, and one that is late
 * because of those before it counts from when it was due. After SECONDS it waits for the last answers and prints one
 * line of JSON; `refused` counts answers that are errors or whose seq does not follow the one before.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 8000000
#define WINDOW 4096
#define AT_ONCE 256
#define MARK "SENT_NS_IS_PUT_HERE"

static char event[1 << 16], head[1 << 16], out[1 << 22], text[1 << 20];
static int event_length, out_length, out_done, text_length, framed;
static int64_t *due_ns;
static double *times;
static long sent, answered, refused, last_seq;

static int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void put(const void *bytes, int length) { memcpy(out + out_length, bytes, length); out_length += length; }

/* Queue so many events that were due at a rate, or are due now. */
static void send_events(long count, int64_t began, double rate, int64_t now) {
  char number[32], frame[14];
  sprintf(number, "%019lld", (long long)now);
  for (char *digit = number; *digit == '0'; digit++) *digit = ' ';
  if (!framed) put(frame, sprintf(frame, "%lx\r\n", count * (event_length + 1)));
  for (long i = 0; i < count; i++, sent++) {
    due_ns[sent % MOST] = rate ? began + (int64_t)(sent / rate * 1e9) : now;
    if (framed) {
      int length = 0;
      frame[length++] = (char)0x81;
      if (event_length < 126) frame[length++] = (char)(0x80 | event_length);
      else { frame[length++] = (char)(0x80 | 126); frame[length++] = event_length >> 8; frame[length++] = event_length & 255; }
      memset(frame + length, 0, 4);
      put(frame, length + 4);
    }
    char *at = out + out_length, *end;
    put(event, event_length);
    for (end = out + out_length; (at = memmem(at, end - at, MARK, 19)); at += 19) memcpy(at, number, 19);
    if (!framed) put("\n", 1);
  }
  if (!framed) put("\r\n", 2);
}

static void take_answer(char *answer, int length) {
  char kept = answer[length];
  answer[length] = 0;
  char *found = strstr(answer, framed ? "\"last_seq\":" : "\"seq\":");
  long seq = found ? atol(strchr(found, ':') + 1) : 0;
  if (!seq || (last_seq && seq != last_seq + 1)) { if (!refused++) fprintf(stderr, "%.*s\n", length, answer); }
  last_seq = seq;
  answer[length] = kept;
  times[answered % MOST] = (now_ns() - due_ns[answered % MOST]) / 1e6;
  answered++;
}

/* Take whole lines out of what a chunked body has brought; chunk heads are lines that hold no brace. */
static int take_lines(void) {
  int start = 0;
  for (char *end; (end = memchr(text + start, '\n', text_length - start)); start = end + 1 - text)
    if (memchr(text + start, '{', end - text - start)) take_answer(text + start, end - text - start);
  return start;
}

static int take_frames(void) {
  int start = 0;
  while (text_length - start >= 2) {
    unsigned char *frame = (unsigned char *)text + start;
    int length = frame[1] & 127, skip = 2;
    if (length == 126) { if (text_length - start < 4) break; length = frame[2] << 8 | frame[3]; skip = 4; }
    if (text_length - start < skip + length) break;
    if ((frame[0] & 15) == 1) take_answer(text + start + skip, length);
    start += skip + length;
  }
  return start;
}

static int compare(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  int port = atoi(argv[2]), on = 1, got, length = 0, opened = 0;
  framed = argv[3][0] == 'f';
  double rate = atof(argv[4]), seconds = atof(argv[5]);
  while ((got = getchar()) > 0) head[length++] = got;
  while ((got = getchar()) > 0) event[event_length++] = got;
  due_ns = malloc(MOST * sizeof *due_ns);
  times = malloc(MOST * sizeof *times);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); return 1; }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  put(head, length);
  int64_t began = 0, now;
  for (;;) {
    now = now_ns();
    int over = began && now >= began + (int64_t)(seconds * 1e9);
    if (over && answered == sent) break;
    if (over && now >= began + (int64_t)(seconds * 1e9) + 30000000000LL) break;
    int wait = 100;
    if (began && !over && out_done == out_length) {
      long wanted = rate ? (long)((now - began) / 1e9 * rate) + 1 - sent : WINDOW - (sent - answered);
      out_length = out_done = 0;
      if (wanted > AT_ONCE) wanted = AT_ONCE;
      if (wanted > 0 && (rate || wanted >= AT_ONCE / 4 || sent == answered)) send_events(wanted, began, rate, now);
      if (rate) wait = 1;
    }
    struct pollfd ready = {fd, POLLIN | (out_done < out_length ? POLLOUT : 0), 0};
    if (rate && out_done == out_length && poll(&ready, 1, 0) == 0) { usleep(200); continue; }
    poll(&ready, 1, wait);
    if (out_done < out_length) {
      ssize_t wrote = write(fd, out + out_done, out_length - out_done);
      if (wrote > 0) out_done += wrote;
      else if (errno != EAGAIN) { perror("write"); return 1; }
    }
    if (!(ready.revents & (POLLIN | POLLHUP))) continue;
    got = read(fd, text + text_length, sizeof text - 1 - text_length);
    if (got == 0 || (got < 0 && errno != EAGAIN)) { fprintf(stderr, "the connection was closed: %.*s\n", text_length, text); return 1; }
    if (got < 0) continue;
    text_length += got;
    int start = 0;
    /* The answer to the head of an upgrade comes at once, that of a body with the first line: do not wait for it. */
    if (!opened) {
      char *end = memmem(text, text_length, "\r\n\r\n", 4);
      if (!end) continue;
      if (text[9] != (framed ? '1' : '2')) { fprintf(stderr, "%.*s\n", text_length, text); return 1; }
      opened = 1;
      start = end + 4 - text;
      memmove(text, text + start, text_length - start);
      text_length -= start;
      began = now_ns();
    }
    start = framed ? take_frames() : take_lines();
    memmove(text, text + start, text_length - start);
    text_length -= start;
  }
  double took = (now_ns() - began) / 1e9;
  long kept = answered < MOST ? answered : MOST;
  qsort(times, kept, sizeof *times, compare);
  printf("{\"answered\":%ld,\"refused\":%ld,\"seconds\":%.6f,\"p50\":%.3f,\"p99\":%.3f}\n", answered, refused + (sent - answered),
         took, kept ? times[kept / 2] : 0, kept ? times[(long)(kept * 0.99)] : 0);
  return 0;
}
