/* State shared by the programs: who is recorded, which sockets and TLS streams exist, what was lost. */

/* A process of a run. */
struct member {
	u64 run;
	u64 start_ns;
};

enum socket_flag {
	SOCKET_CLOSED = 1,
	SOCKET_TCP = 2,
	SOCKET_ENDED = 4,
	/* The kernel's byte counters are known from the connection's first byte on. */
	SOCKET_COUNTED = 8,
	SOCKET_STREAM = 16,
	/* A FIN was sent, which TCP counts like a byte. */
	SOCKET_FIN = 32,
	/* Carried a TLS record within a TLS call. */
	SOCKET_TLS = 64,
	/* The control ring had no room to tell of it, which is not noted yet. */
	SOCKET_UNTOLD = 128,
};

struct socket_state {
	struct member member;
	u32 pid;
	u32 flags;
	u64 position[2];
	/* Up to where the response was looked at, taken or not. */
	u64 peeked;
	/* write_seq and copied_seq when no byte had moved. */
	u32 baseline[2];
	/* What TCP had counted and no probe seen when the connection was over; the socket may be taken for another one. */
	u32 unseen[2];
	u16 family;
	u16 role;
	u32 pad;
};

/* A TLS call in progress on a thread. `wire` is what it has sent on its socket and no event has told yet. */
struct tls_call {
	struct member member;
	u64 ssl;
	u64 buffer;
	u64 bytes;
	u64 moved_pointer;
	u64 stack;
	u64 socket;
	struct wire wire;
	u8 direction;
	u8 result;
	u8 library;
	u8 tie;
	/* The bytes stay where they are. */
	u8 peeks;
	u8 pad[3];
};

/*
 * How far below the frame of a TLS call what belongs to it stands. Further down is another stack: OpenSSL and GnuTLS need 2 to 6 KiB down to the
 * system call, stacks of coroutines are not often smaller than 64 KiB.
 */
#define TLS_DEPTH_BYTES (32 << 10)

/* A call that its thread left without a return, by longjmp or for another stack. In the second case it will return. */
struct parked_key {
	u64 thread;
	u64 stack;
};

struct tls_key {
	u64 ssl;
	u32 pid;
	u32 pad;
};

struct tls_stream {
	u64 id;
	u64 socket;
	u64 position[2];
	u64 peeked;
	u8 library;
	u8 tie;
	u8 pad[6];
};

/* The first bytes of TLS records on their way between a socket and a memory BIO. Sixteen bytes hold eleven of ciphertext. */
#define PREFIX_BYTES 16

struct prefix_key {
	u8 bytes[PREFIX_BYTES];
	u32 pid;
	u32 pad;
};

/* Of a control event `stream` is its run, and the amount counts events. */
struct loss_key {
	u64 stream;
	u64 run;
	u8 layer;
	u8 direction;
	u8 cause;
	u8 pad[5];
};

/* `probes/counters.py` has the same list. */
enum counter {
	COUNT_DATA_RECORDS = 0,
	COUNT_DATA_BYTES,
	COUNT_CONTROL_RECORDS,
	COUNT_CONTROL_LOST,
	COUNT_RING_FULL_RECORDS,
	COUNT_RING_FULL_BYTES,
	COUNT_FAULT_BYTES,
	COUNT_TOO_LARGE_BYTES,
	COUNT_UNKNOWN_CALL_BYTES,
	COUNT_MAP_FULL,
	COUNT_TIE_CONFLICTS,
	COUNT_STALE_CALLS,
	COUNT_LOSSES_UNTOLD,
	COUNTERS,
};

/* Processes of all runs; a host with more than 65,536 of them at once is not one that an agent should be on. */
BPF_HASH(lineage, u32, struct member, 65536);
BPF_HASH(selected_cgroups, u64, u64, 4096);
BPF_HASH(sockets, u64, struct socket_state, 65536);
/*
 * Sockets that members of runs made, by inode number: a cookie may not be there yet. An entry that was pushed out makes a session partial, never
 * complete, so LRU.
 */
BPF_TABLE("lru_hash", u64, u8, born, 65536);
#if !MODERN
/* Connections that are over while a descriptor still holds them: where the kernel destroys such a socket, its inode is gone. */
BPF_TABLE("lru_hash", u64, u64, over, 16384);
/* Processes that were told to use io_uring: pid to start time. */
BPF_TABLE("lru_hash", u32, u64, uring_users, 4096);
#endif
BPF_HASH(tls_streams, struct tls_key, struct tls_stream, 65536);
#if !MODERN
/* One entry per thread inside a TLS call. */
BPF_HASH(tls_calls, u64, struct tls_call, 16384);
#endif
BPF_TABLE("lru_hash", struct parked_key, struct tls_call, parked_calls, 4096);
/* Short-lived hints: old ones may be forgotten, so LRU. */
BPF_TABLE("lru_hash", struct prefix_key, u64, received_prefixes, 16384);
BPF_TABLE("lru_hash", struct prefix_key, struct tls_key, written_prefixes, 16384);
BPF_TABLE("lru_hash", struct tls_key, u64, bio_sockets, 16384);
/* Messages already passed in a thread's recvmmsg or sendmmsg. */
BPF_TABLE("lru_hash", u64, u32, message_index, 16384);
/* Where the datagram came from that a thread is receiving. */
BPF_TABLE("lru_hash", u64, struct peer_address, datagram_peers, 16384);
BPF_HASH(losses, struct loss_key, u64, 65536);
/* Mappable (1 << 10, Linux 5.5): the daemon looks at it before every block that it writes, and pays no system call. */
BPF_F_TABLE("array", u32, u64, counters, COUNTERS, 1 << 10);
/* Executable files already told to the daemon: (device, inode). */
struct file_key {
	u64 device;
	u64 inode;
};
BPF_HASH(known_files, struct file_key, u8, 16384);

static __always_inline void count(u32 which, u64 amount)
{
	u64 *value = counters.lookup(&which);
	if (value)
		__sync_fetch_and_add(value, amount);
}

static __always_inline struct member *current_member(void)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	return lineage.lookup(&pid);
}

/* The TLS call that the current thread is in, or none. */
#if MODERN

/* In the thread's own storage (Linux 5.11), which costs a third of a hash and ends with the thread. A stack pointer of 0 is no call. */
_Static_assert(sizeof(struct tls_call) == TLS_CALL_BYTES, "the loader makes the storage");
#define THREAD_STORAGE ((void *)bpf_pseudo_fd(1, THREAD_STORAGE_FD))

static __always_inline struct tls_call *current_call(void)
{
	struct tls_call *call = bpf_task_storage_get(THREAD_STORAGE, (void *)bpf_get_current_task_btf(), 0, 0);
	return call && call->stack ? call : 0;
}

/* Gives the call that the thread is in, or a place for one, whose stack pointer is 0. */
static __always_inline struct tls_call *begin_call(void)
{
	return bpf_task_storage_get(THREAD_STORAGE, (void *)bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline void end_call(struct tls_call *call)
{
	call->stack = 0;
}

#else

static __always_inline struct tls_call *current_call(void)
{
	u64 thread = bpf_get_current_pid_tgid();
	return tls_calls.lookup(&thread);
}

static __always_inline struct tls_call *begin_call(void)
{
	struct tls_call none = {};
	u64 thread = bpf_get_current_pid_tgid();
	return tls_calls.lookup_or_try_init(&thread, &none);
}

static __always_inline void end_call(struct tls_call *call)
{
	u64 thread = bpf_get_current_pid_tgid();
	tls_calls.delete(&thread);
}

#endif
