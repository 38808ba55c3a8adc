/*
 * Traffic for measurements, from one core.
 *
 *   load stream BYTES SECONDS RATE  send and receive messages over a socket pair, RATE calls a second (0: as fast as it goes);
 *                                   prints {"calls", "bytes", "seconds"}
 *   load socket BYTES CALLS         the same for a number of calls; prints {"ns"} of one send and its receive
 *   load tls LIBRARY PORT BYTES CALLS  SSL_write to a server on loopback; prints {"ns"} of one write
 *
 * libssl is opened by its path: no development package is needed, and a copy of the file has only the probes that are put on it.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Text like that of an API: it compresses, but not to nothing. */
static char *text(size_t bytes)
{
	char *buffer = malloc(bytes + 64);
	uint32_t seed = 1;
	size_t at = 0;
	while (at < bytes) {
		seed = seed * 1664525 + 1013904223;
		at += sprintf(buffer + at, "{\"id\":%u,\"state\":\"%s\"},", seed >> 8, seed & 64 ? "open" : "paid");
	}
	return buffer;
}

static int pair(int *ends)
{
	int room = 1 << 20;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		die("socketpair");
	return setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

static void pass(int *ends, const char *out, char *in, size_t bytes)
{
	if (send(ends[0], out, bytes, 0) != (ssize_t)bytes || recv(ends[1], in, bytes, MSG_WAITALL) != (ssize_t)bytes)
		die("message");
}

static int stream(size_t bytes, double seconds, double rate)
{
	int ends[2];
	char *all = text(1 << 20), *in = malloc(bytes);
	uint64_t calls = 0;
	pair(ends);
	double start = now(), end = start + seconds;
	while (now() < end) {
		for (int turn = 0; turn < 64; turn++, calls += 2)
			pass(ends, all + (calls * 37) % ((1 << 20) - bytes), in, bytes);
		/* Asleep, not spinning: on two cores the sender's idle time is the rest of the system's. */
		double ahead = rate > 0 ? calls / rate - (now() - start) : 0;
		if (ahead > 0)
			usleep(ahead * 1e6);
	}
	printf("{\"calls\":%lu,\"bytes\":%lu,\"seconds\":%.6f}\n", calls, calls * bytes, now() - start);
	return 0;
}

static int socket_calls(size_t bytes, uint64_t calls)
{
	int ends[2];
	char *out = text(bytes), *in = malloc(bytes);
	pair(ends);
	double start = now();
	for (uint64_t call = 0; call < calls; call++)
		pass(ends, out, in, bytes);
	printf("{\"ns\":%.1f}\n", (now() - start) * 1e9 / calls);
	return 0;
}

static int tls(const char *path, int port, int bytes, uint64_t calls)
{
	void *library = dlopen(path, RTLD_NOW);
	if (!library)
		return fprintf(stderr, "%s\n", dlerror()), 1;
	void *(*method)(void) = dlsym(library, "TLS_client_method");
	void *(*context_new)(void *) = dlsym(library, "SSL_CTX_new");
	void *(*ssl_new)(void *) = dlsym(library, "SSL_new");
	int (*set_fd)(void *, int) = dlsym(library, "SSL_set_fd");
	int (*handshake)(void *) = dlsym(library, "SSL_connect");
	int (*ssl_write)(void *, const void *, int) = dlsym(library, "SSL_write");
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int descriptor = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(descriptor, (struct sockaddr *)&address, sizeof(address)))
		die("connect");
	void *ssl = ssl_new(context_new(method()));
	set_fd(ssl, descriptor);
	if (handshake(ssl) != 1)
		return fprintf(stderr, "no handshake\n"), 1;
	char *out = text(bytes);
	double start = now();
	for (uint64_t call = 0; call < calls; call++)
		if (ssl_write(ssl, out, bytes) != bytes)
			return fprintf(stderr, "short write\n"), 1;
	printf("{\"ns\":%.1f}\n", (now() - start) * 1e9 / calls);
	return 0;
}

int main(int count, char **words)
{
	if (count == 5 && !strcmp(words[1], "stream"))
		return stream(atol(words[2]), atof(words[3]), atof(words[4]));
	if (count == 4 && !strcmp(words[1], "socket"))
		return socket_calls(atol(words[2]), atol(words[3]));
	if (count == 6 && !strcmp(words[1], "tls"))
		return tls(words[2], atoi(words[3]), atoi(words[4]), atol(words[5]));
	return fprintf(stderr, "load stream|socket|tls ...\n"), 2;
}
