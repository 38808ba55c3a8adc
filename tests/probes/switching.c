/*
 * An agent that leaves a TLS call by other ways than its return: by longjmp, or for a while by a switch to another stack.
 *
 * switching LIBSSL jump
 * switching LIBSSL switch A-STACK-OFFSET B-STACK-OFFSET STACK-BYTES PORT
 *
 * No headers of OpenSSL: what a test machine has is the library.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#define BIO_CTRL_FLUSH 11
#define FUNCTION(result, name, ...) static result (*name)(__VA_ARGS__)

FUNCTION(void *, TLS_client_method, void);
FUNCTION(void *, SSL_CTX_new, void *);
FUNCTION(void *, SSL_new, void *);
FUNCTION(void, SSL_set_bio, void *, void *, void *);
FUNCTION(void, SSL_set_connect_state, void *);
FUNCTION(int, SSL_connect, void *);
FUNCTION(int, SSL_write, void *, const void *, int);
FUNCTION(int, SSL_read, void *, void *, int);
FUNCTION(void *, BIO_meth_new, int, const char *);
FUNCTION(int, BIO_meth_set_write, void *, int (*)(void *, const char *, int));
FUNCTION(int, BIO_meth_set_read, void *, int (*)(void *, char *, int));
FUNCTION(int, BIO_meth_set_ctrl, void *, long (*)(void *, int, long, void *));
FUNCTION(void *, BIO_new, void *);
FUNCTION(void, BIO_set_data, void *, void *);
FUNCTION(void *, BIO_get_data, void *);
FUNCTION(void, BIO_set_init, void *, int);

static void *context, *method;
static int clear[2];
static jmp_buf before;
static ucontext_t from, a, b;
static enum { STAY, JUMP, SWITCH } leave;
static int *first, *second;

static void must(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(1);
	}
}

static int out(void *bio, const char *bytes, int size)
{
	int how = leave;
	leave = STAY;
	if (how == JUMP)
		longjmp(before, 1);
	if (how == SWITCH)
		swapcontext(&a, &from);
	return write(*(int *)BIO_get_data(bio), bytes, size);
}

static int in(void *bio, char *bytes, int size) { return read(*(int *)BIO_get_data(bio), bytes, size); }
static long control(void *bio, int what, long number, void *pointer) { return what == BIO_CTRL_FLUSH; }

static void load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	must(library != 0, dlerror());
#define FIND(name) must((*(void **)&name = dlsym(library, #name)) != 0, #name)
	FIND(TLS_client_method), FIND(SSL_CTX_new), FIND(SSL_new), FIND(SSL_set_bio), FIND(SSL_set_connect_state), FIND(SSL_connect);
	FIND(SSL_write), FIND(SSL_read), FIND(BIO_meth_new), FIND(BIO_meth_set_write), FIND(BIO_meth_set_read);
	FIND(BIO_meth_set_ctrl), FIND(BIO_new), FIND(BIO_set_data), FIND(BIO_get_data), FIND(BIO_set_init);
	context = SSL_CTX_new(TLS_client_method());
	method = BIO_meth_new(100 | 0x0400, "leaving");
	BIO_meth_set_write(method, out), BIO_meth_set_read(method, in), BIO_meth_set_ctrl(method, control);
}

static void *stream_on(int *socket)
{
	void *stream = SSL_new(context), *bio = BIO_new(method);
	BIO_set_data(bio, socket), BIO_set_init(bio, 1);
	SSL_set_bio(stream, bio, bio);
	SSL_set_connect_state(stream);
	return stream;
}

static int *connected(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int *number = malloc(sizeof(*number));
	*number = socket(AF_INET, SOCK_STREAM, 0);
	must(!connect(*number, (void *)&address, sizeof(address)), "connect");
	return number;
}

/* The pad makes each turn's frame, so that the last one stands far below where the TLS call stood. */
static void __attribute__((noinline)) say_deep(int turns, const char *text)
{
	volatile char pad[1024];
	pad[0] = turns;
	if (turns)
		say_deep(turns - 1, text);
	else
		must(write(clear[0], text, strlen(text)) == (long)strlen(text), "clear");
	pad[1] = turns;
}

static void *one, *two;

static void say(void *stream, const char *text)
{
	char answer[64];
	must(SSL_write(stream, text, strlen(text)) == (int)strlen(text), "SSL_write");
	must(SSL_read(stream, answer, sizeof(answer)) == (int)strlen(text), "SSL_read");
}

static void on_a(void) { say(one, "said on A!"); }

static void on_b(void)
{
	must(write(clear[0], "clear ", 6) == 6, "clear");
	say(two, "said on B!");
	say_deep(2, "text");
}

static void enter(ucontext_t *which, void (*function)(void), char *stack, long bytes)
{
	getcontext(which);
	which->uc_stack.ss_sp = stack;
	which->uc_stack.ss_size = bytes;
	which->uc_link = &from;
	makecontext(which, function, 0);
	swapcontext(&from, which);
}

int main(int count, char **arguments)
{
	must(count > 2 && !socketpair(AF_UNIX, SOCK_STREAM, 0, clear), "arguments");
	load(arguments[1]);
	if (!strcmp(arguments[2], "jump")) {
		one = stream_on(&clear[1]);
		leave = JUMP;
		if (!setjmp(before))
			SSL_write(one, "never said", 10);
		say_deep(0, "clear ");
		say_deep(4, "te");
		say_deep(40, "xt");
		return 0;
	}
	long bytes = atol(arguments[5]);
	char *stacks = mmap(0, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(stacks != MAP_FAILED, "mmap");
	first = connected(atoi(arguments[6])), second = connected(atoi(arguments[6]));
	one = stream_on(first), two = stream_on(second);
	must(SSL_connect(one) == 1 && SSL_connect(two) == 1, "SSL_connect");
	leave = SWITCH;
	enter(&a, on_a, stacks + atol(arguments[3]) * bytes, bytes);
	enter(&b, on_b, stacks + atol(arguments[4]) * bytes, bytes);
	must(!swapcontext(&from, &a), "swapcontext");
	return 0;
}
