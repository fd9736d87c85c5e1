/* The machine's limit: one epoll loop that keeps nothing, checks nothing, and writes each event to every reader.
 *
 * usage: loop PORT      speaks just enough HTTP for the readers and the writers of the load tool:
 *   GET /readyz         200
 *   POST /v1/runs       201, the one run that there is
 *   GET …/stream        an SSE response: what is posted from now on
 *   POST …/events       a frame of the body to every reader, then 200
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536
#define BUFFER 65536

static struct { int reading; int length; char *data; } peers[MOST];
static int readers[MOST], reader_count;
static long seq = 2;
static char frame[2 * BUFFER];

static void answer(int fd, const char *status, const char *body) {
  char head[512];
  int length = snprintf(head, sizeof head,
                        "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", status,
                        strlen(body), body);
  if (write(fd, head, length) < 0) return;
}

static void drop(int fd) {
  for (int i = 0; i < reader_count; i++)
    if (readers[i] == fd) { readers[i] = readers[--reader_count]; break; }
  free(peers[fd].data);
  memset(&peers[fd], 0, sizeof peers[fd]);
  close(fd);
}

static int wrap(char *into, const char *text, int length) {
  int head = sprintf(into, "%x\r\n", length);
  memcpy(into + head, text, length);
  memcpy(into + head + length, "\r\n", 2);
  return head + length + 2;
}

static void follow(int fd) {
  static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
  char text[256], chunk[512];
  int length = sprintf(text, "event: stream.open\ndata: {}\n\nid: 1-1\ndata: {}\n\nid: 2-1\ndata: {}\n\n");
  length = wrap(chunk, text, length);
  if (write(fd, head, sizeof head - 1) < 0 || write(fd, chunk, length) < 0) return;
  peers[fd].reading = 1;
  readers[reader_count++] = fd;
}

static void publish(const char *body, int length) {
  static char text[2 * BUFFER];
  seq++;
  int size = sprintf(text, "id: %ld-1\ndata: {\"seq\":%ld,\"body\":%.*s}\n\n", seq, seq, length, body);
  size = wrap(frame, text, size);
  for (int i = 0; i < reader_count; i++)
    /* A reader that takes less would be cut in two: it is a limit, not a server. */
    if (write(readers[i], frame, size) != size) { drop(readers[i]); i--; }
}

static int serve(int fd) {
  char *data = peers[fd].data, *end = memmem(data, peers[fd].length, "\r\n\r\n", 4);
  if (!end) return 0;
  *end = 0;
  char *field = strcasestr(data, "\r\ncontent-length:");
  int body = field ? atoi(field + 17) : 0, whole = end + 4 - data + body;
  if (peers[fd].length < whole) { *end = '\r'; return 0; }
  if (!strncmp(data, "GET /readyz", 11)) answer(fd, "200 OK", "{}");
  else if (!strncmp(data, "POST /v1/runs ", 14)) answer(fd, "201 Created", "{\"id\":\"run\"}");
  else if (!strncmp(data, "GET ", 4)) follow(fd);
  else { publish(end + 4, body); answer(fd, "200 OK", "{}"); }
  memmove(data, data + whole, peers[fd].length -= whole);
  return 1;
}

static void receive(int fd) {
  if (!peers[fd].data) peers[fd].data = malloc(BUFFER + 1);
  ssize_t got = read(fd, peers[fd].data + peers[fd].length, BUFFER - peers[fd].length);
  if (got <= 0) { if (got == 0 || errno != EAGAIN) drop(fd); return; }
  peers[fd].length += got;
  peers[fd].data[peers[fd].length] = 0;
  while (peers[fd].data && serve(fd)) ;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, poll = epoll_create1(0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) { perror("listen"); return 1; }
  struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, events[512];
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &wanted);
  for (;;) {
    int ready = epoll_wait(poll, events, 512, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) { receive(fd); continue; }
      while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0 && fd < MOST) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        wanted.data.fd = fd;
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
      }
    }
  }
}
