/* The events that go into the rings. `probes/layouts.py` is the other half; a test compares every size and offset. */

enum event_kind {
	PROCESS_FORK = 1,
	PROCESS_EXEC = 2,
	PROCESS_EXIT = 3,
	SOCKET_OPEN = 4,
	SOCKET_CLOSE = 5,
	TLS_OPEN = 6,
	TLS_CLOSE = 7,
	FILE_MAPPED = 8,
	URING_USED = 9,
	SOCKET_DATA = 16,
	TLS_DATA = 17,
};

/* What a socket's first sight says of what it moved before. */
enum mid_stream {
	MID_STREAM_NO = 0,
	/* TCP's own counters say so. */
	MID_STREAM_MOVED = 1,
	/* Nobody counts, and the socket was not made in a run. */
	MID_STREAM_FOREIGN = 2,
};
enum direction { REQUEST = 0, RESPONSE = 1 };
enum tie { TIE_NONE = 0, TIE_NESTED = 1, TIE_CIPHERTEXT = 2 };
enum role { ROLE_UNKNOWN = 0, ROLE_CLIENT = 1, ROLE_SERVER = 2 };
enum library { LIBRARY_NONE = 0, LIBRARY_OPENSSL = 1, LIBRARY_GNUTLS = 2 };
enum absence {
	ABSENCE_NONE = 0,
	ABSENCE_FAULT = 1,
	ABSENCE_KERNEL_COPY = 2,
	ABSENCE_CIPHERTEXT = 3,
	ABSENCE_TOO_LARGE = 4,
	ABSENCE_URING = 5,
	ABSENCE_RING_FULL = 6,
	ABSENCE_UNKNOWN_CALL = 7,
	ABSENCE_OTHER_STACK = 8,
	/* No part of the stream: looked at where it was (MSG_PEEK), up to position and length. */
	ABSENCE_PEEKED = 9,
};

#define PATH_BYTES 108
#define COMM_BYTES 16

struct event_header {
	u64 time_ns;
	u64 run;
	u64 process_start_ns;
	u32 pid;
	u32 tid;
	u16 kind;
	u16 flags;
	u32 size;
};

struct data_event {
	struct event_header header;
	u64 stream;
	u64 position;
	u64 socket;
	u32 length;
	u32 captured;
	u8 direction;
	u8 tie;
	u8 absence;
	u8 library;
	u32 peer_bytes;
};

struct peer_address {
	u16 family;
	u16 port;
	u8 address[16];
	u32 pad;
};

/* Beside a TLS call's plaintext, where a datagram has its peer: the ciphertext that the call sent, left out, of the event's socket. */
struct wire {
	u64 position;
	u64 bytes;
	u64 pad;
};

struct socket_open_event {
	struct event_header header;
	u64 socket;
	u16 family;
	u16 type;
	u16 protocol;
	u8 role;
	u8 mid_stream;
	u16 local_port;
	u16 peer_port;
	u32 netns;
	u8 local_address[16];
	u8 peer_address[16];
	u32 path_bytes;
	char path[PATH_BYTES];
};

struct socket_close_event {
	struct event_header header;
	u64 socket;
	u64 position[2];
	u64 kernel_bytes[2];
	u8 kernel_known;
	u8 pad[7];
};

struct tls_open_event {
	struct event_header header;
	u64 stream;
	u64 pointer;
	u64 socket;
	u8 library;
	u8 tie;
	u8 pad[6];
};

struct tls_close_event {
	struct event_header header;
	u64 stream;
	u64 socket;
	u64 position[2];
};

struct fork_event {
	struct event_header header;
	u64 child_start_ns;
	u32 child_pid;
	u32 pad;
};

struct exec_event {
	struct event_header header;
	u64 device;
	u64 inode;
	u64 cgroup;
	u32 uid;
	u32 gid;
	u32 filename_bytes;
	u32 argv_bytes;
	u32 argv_bytes_total;
	u32 pad;
	char comm[COMM_BYTES];
};

struct exit_event {
	struct event_header header;
	u32 status;
	u32 pad;
};

struct file_mapped_event {
	struct event_header header;
	u64 device;
	u64 inode;
};
