/*
 * What moves through sockets.
 *
 * Modern tier: the tracepoints sock_send_length and sock_recv_length (Linux 6.3) run inside every send and receive on a socket, whichever system
 * call it came by, with the socket itself in hand: file reads and writes pay nothing, a descriptor that another thread closes or
 * swaps cannot mislead, and calls whose buffers are not known (io_uring, sendfile) still count their bytes. Classic tier: the
 * per-syscall tracepoints, where the socket is found by its descriptor at entry and the bytes are read at exit.
 */

static __always_inline u64 inode_number(u64 sk)
{
	u64 socket = READ(u64, sk + OFFSET_SK_SOCKET);
	return socket ? READ(u64, socket + OFFSET_SOCKET_INODE + OFFSET_INODE_NUMBER) : 0;
}

#define TLS_HEADER_BYTES 5
/* Of one call, kept back until its end. */
#define WIRE_BYTES_MAX (1 << 30)

static __always_inline u64 socket_id(u64 sk, u64 trusted)
{
#if MODERN
	/*
	 * The cookie never is given twice until the host restarts. The helper makes one where there is none yet; on a unix socket that is accepted, or
	 * spliced from, before any send, nothing that we see could make it.
	 */
	if (sock_family(sk) != AF_UNIX)
		return trusted ? bpf_get_socket_cookie((void *)trusted) : READ(u64, sk + OFFSET_SK_COOKIE);
#endif
	u64 number = inode_number(sk);
	/* No cookie comes near bit 62, and the number still fits a signed one. */
	return number ? 1ULL << 62 | number : 0;
}

static __always_inline u32 tcp_written(u64 sk) { return READ(u32, sk + OFFSET_TCP_WRITE_SEQ); }
static __always_inline u32 tcp_read(u64 sk) { return READ(u32, sk + OFFSET_TCP_COPIED_SEQ); }

/*
 * A socket that a member made cannot have spoken before. TCP needs no such witness, it counts. A descriptor that came from elsewhere, inherited
 * or passed, never comes this way.
 */
static __always_inline void note_birth(int fd)
{
	u64 sk = sock_of(file_of(fd));
	if (!sk || sock_protocol(sk) == IPPROTO_TCP)
		return;
	u64 number = inode_number(sk);
	u8 yes = 1;
	if (number)
		born.update(&number, &yes);
}

static __always_inline u32 foreign(u64 sk)
{
	u64 number = inode_number(sk);
	return born.lookup(&number) ? MID_STREAM_NO : MID_STREAM_FOREIGN;
}

static __always_inline void read_unix_name(struct socket_open_event *event, u64 sk)
{
	u64 own = READ(u64, sk + OFFSET_UNIX_ADDR);
	u64 peer = READ(u64, sk + OFFSET_UNIX_PEER);
	u64 peer_name = peer ? READ(u64, peer + OFFSET_UNIX_ADDR) : 0;
	u64 name = peer_name ? peer_name : own;
	if (peer_name && !own)
		event->role = ROLE_CLIENT;
	else if (own && !peer_name)
		event->role = ROLE_SERVER;
	u64 bytes = name ? READ(u32, name + OFFSET_UNIX_NAME_BYTES) : 0;
	if (bytes <= 2)
		return;
	bytes -= 2;
	if (bytes > PATH_BYTES)
		bytes = PATH_BYTES;
	asm volatile("" : "+r"(bytes));
	if (bytes <= PATH_BYTES && !bpf_probe_read_kernel(event->path, bytes, (void *)(name + OFFSET_UNIX_NAME + 2)))
		event->path_bytes = bytes;
}

/* Gives 1 when the ring had no room. */
static __always_inline int announce(u64 sk, u64 id, struct member *member, u32 pid, u32 role, u32 mid_stream)
{
	struct socket_open_event *event = bpf_ringbuf_reserve(CONTROL_RING, sizeof(*event), 0);
	if (!event)
		return 1;
	__builtin_memset(event, 0, sizeof(*event));
	fill_header(&event->header, member, SOCKET_OPEN, sizeof(*event));
	/* A connection may be made in another process's time slice. */
	event->header.pid = pid;
	event->socket = id;
	event->family = sock_family(sk);
	event->type = sock_type(sk);
	event->protocol = event->family == AF_UNIX ? 0 : sock_protocol(sk);
	event->role = role;
	event->mid_stream = mid_stream;
	event->netns = READ(u32, READ(u64, sk + OFFSET_SK_NET) + OFFSET_NET_INUM);
	if (event->family == AF_UNIX) {
		read_unix_name(event, sk);
	} else {
		event->local_port = READ(u16, sk + OFFSET_SK_NUM);
		event->peer_port = swap16(READ(u16, sk + OFFSET_SK_DPORT));
		if (event->family == AF_INET) {
			bpf_probe_read_kernel(event->local_address, 4, (void *)(sk + OFFSET_SK_RCV_SADDR));
			bpf_probe_read_kernel(event->peer_address, 4, (void *)(sk + OFFSET_SK_DADDR));
		} else {
			bpf_probe_read_kernel(event->local_address, 16, (void *)(sk + OFFSET_SK_V6_RCV_SADDR));
			bpf_probe_read_kernel(event->peer_address, 16, (void *)(sk + OFFSET_SK_V6_DADDR));
		}
	}
	bpf_ringbuf_submit(event, 0);
	count(COUNT_CONTROL_RECORDS, 1);
	return 0;
}

/* Apart from `meet`: every way through there is followed through the whole loop over a call's bytes, and the verifier's patience has an end. */
static __always_inline void note_untold(struct socket_state *state)
{
	if (!(state->flags & SOCKET_UNTOLD))
		return;
	state->flags &= ~SOCKET_UNTOLD;
	note_control_lost(state->member.run);
}

/* First sight of a socket. `written` and `read` are bytes of the very call that showed it. */
static __always_inline struct socket_state *meet(u64 sk, u64 id, struct member *member, u32 pid, u32 role, u32 written, u32 read)
{
	struct socket_state state = {};
	u32 mid_stream = 0;
	state.member = *member;
	state.pid = pid;
	state.family = sock_family(sk);
	state.role = role;
	if (sock_type(sk) != SOCK_DGRAM)
		state.flags |= SOCKET_STREAM;
	if (state.family != AF_UNIX && sock_protocol(sk) == IPPROTO_TCP) {
		state.flags |= SOCKET_TCP | SOCKET_COUNTED;
		state.baseline[REQUEST] = tcp_written(sk) - written;
		state.baseline[RESPONSE] = tcp_read(sk) - read;
		/* bytes_acked counts the SYN of the side that opened, so one byte of it means nothing. */
		u64 sent = READ(u64, sk + OFFSET_TCP_BYTES_ACKED) + (u32)(tcp_written(sk) - READ(u32, sk + OFFSET_TCP_SND_UNA));
		u64 heard = READ(u64, sk + OFFSET_TCP_BYTES_RECEIVED) - (u32)(READ(u32, sk + OFFSET_TCP_RCV_NXT) - tcp_read(sk));
		mid_stream = role == ROLE_UNKNOWN && (sent > written + 1ULL || (s64)heard > (s64)read + 1);
	} else {
		mid_stream = foreign(sk);
	}
	if (sockets.update(&id, &state)) {
		count(COUNT_MAP_FULL, 1);
		return 0;
	}
	int untold = announce(sk, id, member, pid, role, mid_stream);
	struct socket_state *kept = sockets.lookup(&id);
	if (kept && untold)
		kept->flags |= SOCKET_UNTOLD;
	return kept;
}

static __always_inline void tell_close(u64 sk, u64 id, struct socket_state *state)
{
	if (state->flags & SOCKET_CLOSED)
		return;
	state->flags |= SOCKET_CLOSED;
	struct socket_close_event event = {};
	fill_header(&event.header, &state->member, SOCKET_CLOSE, sizeof(event));
	event.header.pid = state->pid;
	event.socket = id;
	event.position[REQUEST] = state->position[REQUEST];
	/* What was heard: of TLS, the header of a record says nothing. */
	u32 header = state->flags & SOCKET_TLS ? TLS_HEADER_BYTES : 0;
	event.position[RESPONSE] = state->position[RESPONSE] + header < state->peeked ? state->peeked : state->position[RESPONSE];
	if (state->flags & SOCKET_COUNTED) {
		/* TCP counts modulo 2^32; the probes' own count tells the rest. */
		u32 fin = state->flags & SOCKET_FIN ? 1 : 0;
		u32 written = tcp_written(sk) - fin - state->baseline[REQUEST];
		u32 read = tcp_read(sk) - state->baseline[RESPONSE];
		event.kernel_bytes[REQUEST] = state->position[REQUEST] + (s64)(s32)(written - (u32)state->position[REQUEST]);
		event.kernel_bytes[RESPONSE] = state->position[RESPONSE] + (s64)(s32)(read - (u32)state->position[RESPONSE]);
		event.kernel_known = 1;
	}
	emit_control(&event, sizeof(event));
	sockets.delete(&id);
}

/* By how much TCP counted more than the probes. */
static __always_inline u32 beyond(u32 counted, u64 position)
{
	s32 more = counted - (u32)position;
	return more > 0 ? more : 0;
}

/* A connection is over, and its socket is not gone: connect() may begin another on it, for which TCP counts anew. */
static __always_inline void note_over(u64 sk, struct socket_state *state)
{
	if (!(state->flags & SOCKET_COUNTED))
		return;
	u32 fin = state->flags & SOCKET_FIN ? 1 : 0;
	state->unseen[REQUEST] = beyond(tcp_written(sk) - fin - state->baseline[REQUEST], state->position[REQUEST]);
	state->unseen[RESPONSE] = beyond(tcp_read(sk) - state->baseline[RESPONSE], state->position[RESPONSE]);
}

/* Before it is: what no probe saw of the one before. */
static __always_inline void note_unseen(u64 id, struct socket_state *state)
{
	for (u32 direction = 0; direction < 2; direction++) {
		struct loss_key key = {};
		key.stream = id;
		key.run = state->member.run;
		key.layer = LAYER_SOCKET;
		key.direction = direction;
		key.cause = ABSENCE_UNKNOWN_CALL;
		if (state->unseen[direction])
			note_loss(&key, state->unseen[direction]);
	}
}

/*
 * TCP connections begin here, not in connect(): the tracepoint (Linux 4.16) has the socket in hand. They end here too when the last
 * descriptor goes without close(): with the process, by dup2 or close_range. A connection that was shut down in both directions, or reset
 * by the peer, is not over for us: what had come before can still be read, until the last descriptor is gone (on_close).
 */
int on_tcp_state(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	u32 new = ctx->args[2];
	if (sock_protocol(sk) != IPPROTO_TCP)
		return 0;
	u64 id = socket_id(sk, sk);
	if (!id)
		return 0;
	if (new == TCP_SYN_SENT) {
		struct member *member = current_member();
		if (!member)
			return 0;
		struct socket_state *before = sockets.lookup(&id);
		if (before)
			note_unseen(id, before);
		struct socket_state *state = meet(sk, id, member, bpf_get_current_pid_tgid() >> 32, ROLE_CLIENT, 0, 0);
		if (state) {
			state->flags &= ~SOCKET_COUNTED;
			note_untold(state);
		}
		return 0;
	}
	struct socket_state *state = sockets.lookup(&id);
	if (!state)
		return 0;
	if (new == TCP_ESTABLISHED) {
		/* Fast Open: bytes may have been written before. The peer has acknowledged the SYN, which counts as one. */
		state->baseline[REQUEST] = READ(u32, sk + OFFSET_TCP_SND_UNA) - (u32)READ(u64, sk + OFFSET_TCP_BYTES_ACKED) + 1;
		state->baseline[RESPONSE] = tcp_read(sk);
		state->flags |= SOCKET_COUNTED;
		if (announce(sk, id, &state->member, state->pid, state->role, 0))
			note_control_lost(state->member.run);
		return 0;
	}
	if (released(sk))
		tell_close(sk, id, state); /* a FIN that goes out now is not counted yet */
	else if (new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK)
		state->flags |= SOCKET_FIN;
	else if (new == TCP_CLOSE) {
		note_over(sk, state);
#if !MODERN
		over.update(&sk, &id);
#endif
	}
	return 0;
}

/* A connection that was over before its last descriptor went, with the process: no state changes any more, and nobody calls close(). */
int on_tcp_destroy(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
#if MODERN
	u64 id = socket_id(sk, 0);
#else
	u64 *known = over.lookup(&sk);
	if (!known)
		return 0;
	u64 id = *known;
	over.delete(&sk);
#endif
	struct socket_state *state = sockets.lookup(&id);
	if (state)
		tell_close(sk, id, state);
	return 0;
}

struct descriptor_args {
	u64 common;
	long number;
	u64 fd;
};

/* A socket ends with its last descriptor. */
int on_close(struct descriptor_args *ctx)
{
	if (!current_member())
		return 0;
	u64 file = file_of(ctx->fd);
	u64 sk = sock_of(file);
	if (!sk)
		return 0;
#ifdef OFFSET_FILE_REF
	u32 last = READ(u64, file + OFFSET_FILE_REF) == 0;
#else
	u32 last = READ(u64, file + OFFSET_FILE_COUNT) == 1;
#endif
	u64 id = socket_id(sk, 0);
	struct socket_state *state = id && last ? sockets.lookup(&id) : 0;
	if (state)
		tell_close(sk, id, state);
	return 0;
}

struct exit_args {
	u64 common;
	long number;
	long result;
};

int on_socket(struct exit_args *ctx)
{
	if (ctx->result >= 0 && current_member())
		note_birth(ctx->result);
	return 0;
}

int on_socketpair(struct exit_args *ctx)
{
	if (ctx->result < 0 || !current_member())
		return 0;
	u64 pair = READ(u64, user_registers() + offsetof(struct pt_regs, r10));
	note_birth(READ_USER(int, pair));
	note_birth(READ_USER(int, pair + sizeof(int)));
	return 0;
}

/* An accepted connection: the agent is the server. Its bytes count from here on. */
int on_accept(struct exit_args *ctx)
{
	if (ctx->result < 0)
		return 0;
	struct member *member = current_member();
	if (!member)
		return 0;
	note_birth(ctx->result);
	u64 sk = sock_of(file_of(ctx->result));
	u64 id = sk ? socket_id(sk, 0) : 0;
	if (!id || sockets.lookup(&id))
		return 0;
	u16 family = sock_family(sk);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	struct socket_state *state = meet(sk, id, member, bpf_get_current_pid_tgid() >> 32, ROLE_SERVER, 0, 0);
	if (state)
		note_untold(state);
	return 0;
}

static __always_inline void read_message(struct cursor *at, u64 message)
{
	struct message_header header = {};
	if (bpf_probe_read_user(&header, sizeof(header), (void *)message)) {
		at->unknown = ABSENCE_FAULT;
		return;
	}
	at->iov = header.iov;
	at->iovs = header.iovs;
}

static __always_inline void read_name(struct peer_address *peer, u64 name, u32 bytes)
{
	/* struct sockaddr_in and sockaddr_in6 both begin with family and port; the addresses are at 4 and 8. */
	if (!name || bytes < 16)
		return;
	peer->family = READ_USER(u16, name);
	peer->port = swap16(READ_USER(u16, name + 2));
	if (peer->family == AF_INET6 && bytes >= 24)
		bpf_probe_read_user(peer->address, 16, (void *)(name + 8));
	else if (peer->family == AF_INET)
		bpf_probe_read_user(peer->address, 4, (void *)(name + 4));
	else
		peer->family = 0;
}

/* A connected datagram socket knows its only peer; another one leaves it unknown. */
static __always_inline void read_only_peer(struct peer_address *peer, u64 sk, u16 family)
{
	u16 port = READ(u16, sk + OFFSET_SK_DPORT);
	if (!port)
		return;
	peer->family = family;
	peer->port = swap16(port);
	if (family == AF_INET)
		bpf_probe_read_kernel(peer->address, 4, (void *)(sk + OFFSET_SK_DADDR));
	else
		bpf_probe_read_kernel(peer->address, 16, (void *)(sk + OFFSET_SK_V6_DADDR));
}

static __always_inline int looks_like_tls(u8 *bytes)
{
	return bytes[0] >= 20 && bytes[0] <= 23 && bytes[1] == 3 && bytes[2] <= 4;
}

/* Gives the first bytes of what the cursor points to, where they look like a TLS record. */
static __always_inline int tls_prefix(struct prefix_key *key, struct cursor *at)
{
	u64 base = at->base;
	if (!base && at->iovs) {
		if (READ_USER(u64, at->iov + offsetof(struct iovec, bytes)) < PREFIX_BYTES)
			return 0;
		base = READ_USER(u64, at->iov);
	}
	if (!base || bpf_probe_read_user(key->bytes, PREFIX_BYTES, (void *)base))
		return 0;
	key->pid = bpf_get_current_pid_tgid() >> 32;
	return looks_like_tls(key->bytes);
}

static __always_inline void tell_tie(struct tls_key *key, struct tls_stream *stream, struct member *member)
{
	struct tls_open_event event = {};
	fill_header(&event.header, member, TLS_OPEN, sizeof(event));
	event.stream = stream->id;
	event.pointer = key->ssl;
	event.socket = stream->socket;
	event.library = stream->library;
	event.tie = stream->tie;
	emit_control(&event, sizeof(event));
}

/* Memory BIOs: the same bytes at the library and at the socket tie the two. */
static __always_inline void compare_prefix(u64 id, struct member *member, u32 direction, struct cursor *at)
{
	struct prefix_key prefix = {};
	if (!tls_prefix(&prefix, at))
		return;
	if (direction == RESPONSE) {
		received_prefixes.update(&prefix, &id);
		return;
	}
	struct tls_key *key = written_prefixes.lookup(&prefix);
	if (!key)
		return;
	struct tls_key copy = *key;
	struct tls_stream *stream = tls_streams.lookup(&copy);
	if (!stream || stream->socket)
		return;
	stream->socket = id;
	stream->tie = TIE_CIPHERTEXT;
	tell_tie(&copy, stream, member);
}

static __always_inline int begins_tls(struct cursor *at, u32 bytes)
{
	u8 head[3] = {};
	u64 base = !at->base && at->iovs ? READ_USER(u64, at->iov) : at->base;
	return bytes >= sizeof(head) && base && !bpf_probe_read_user(head, sizeof(head), (void *)base) && looks_like_tls(head);
}

/* Whether the system call was made from within the TLS call, and not after a jump out of it, or on another stack while it waits. */
static __always_inline int made_within(struct tls_call *call)
{
	u64 stack = READ(u64, user_registers() + offsetof(struct pt_regs, sp));
	return call->stack - stack <= TLS_DEPTH_BYTES; /* unsigned: above the frame is far away, too */
}

/*
 * A socket operation inside a TLS call moves that call's ciphertext, if it is a stream and nothing contradicts. A socket that never carried a
 * TLS record is not believed to: clear text must not be left out.
 */
static __always_inline int nested_in_tls(u64 id, struct socket_state *state, struct cursor *at, u32 bytes)
{
	struct tls_call *call = current_call();
	if (!call || !(state->flags & SOCKET_STREAM) || !made_within(call))
		return 0;
	if (call->socket && call->socket != id) {
		count(COUNT_TIE_CONFLICTS, 1);
		return 0;
	}
	if (!(state->flags & SOCKET_TLS)) {
		if (!begins_tls(at, bytes))
			return 0;
		state->flags |= SOCKET_TLS;
	}
	call->socket = id;
	call->tie = TIE_NESTED;
	return 1;
}

/* Keeps what a TLS call sent until the call's plaintext can tell it: one record instead of two. */
static __always_inline void keep_wire(struct tls_call *call, u64 position, u64 bytes)
{
	if (call->wire.bytes && (call->wire.position + call->wire.bytes != position || call->wire.bytes > WIRE_BYTES_MAX))
		emit_wire(call);
	if (!call->wire.bytes)
		call->wire.position = position;
	call->wire.bytes += bytes;
}

/*
 * The short way for what a TLS call sends on a socket that is known to carry TLS: `moved` would find the same, but after it had looked for the
 * buffers. Gives 0 when it is not that.
 */
static __always_inline int sent_in_tls(u64 id, struct tls_call *call, u32 bytes)
{
	struct socket_state *state = sockets.lookup(&id);
	if (!state || ~state->flags & (SOCKET_STREAM | SOCKET_TLS) || call->direction != REQUEST || !bytes)
		return 0;
	if ((call->socket && call->socket != id) || !made_within(call))
		return 0;
	call->socket = id;
	call->tie = TIE_NESTED;
	keep_wire(call, __sync_fetch_and_add(&state->position[REQUEST], bytes), bytes);
	return 1;
}

/*
 * TCP counts the peer's FIN as a byte as soon as it is read: by the call that tells the end, or together with the last bytes when it had
 * come by then.
 */
static __always_inline void discount_fin(u64 sk, struct socket_state *state)
{
	if (state->flags & SOCKET_COUNTED && READ(u8, sk + OFFSET_SK_SHUTDOWN) & RCV_SHUTDOWN &&
	    tcp_read(sk) - state->baseline[RESPONSE] == (u32)state->position[RESPONSE] + 1)
		state->baseline[RESPONSE]++;
}

/* The end of what the peer says. */
static __always_inline void tell_end(u64 sk, u64 id, struct socket_state *state, struct data_event *event)
{
	/* Reading into no room gives 0 bytes too. */
	if (!(state->flags & SOCKET_STREAM) || state->flags & SOCKET_ENDED || !(READ(u8, sk + OFFSET_SK_SHUTDOWN) & RCV_SHUTDOWN))
		return;
	state->flags |= SOCKET_ENDED;
	discount_fin(sk, state);
	emit_absent(event, LAYER_SOCKET);
}

/*
 * What is looked at and left where it is has been heard, and nobody counts it: the recorder finds at the end whether it was taken as well. Every look
 * tells how far it went, if that is further than any before; the kernel moves the offset of SO_PEEK_OFF on before the call is over.
 */
static __always_inline void peeked(u64 sk, struct socket_state *state, struct data_event *event, u32 bytes)
{
	s32 offset = READ(s32, sk + OFFSET_SK_PEEK);
	event->length = offset > 0 && (u32)offset > bytes ? (u32)offset : bytes;
	event->absence = ABSENCE_PEEKED;
	if (event->position + event->length <= state->peeked)
		return;
	state->peeked = event->position + event->length;
	emit_absent(event, LAYER_SOCKET);
}

/* Of a message that was looked at, what is not taken with it is gone: what comes later is another one. */
static __always_inline void note_left(u64 sk, u64 id, struct socket_state *state, struct member *member)
{
	u64 taken = state->position[RESPONSE], seen = state->peeked;
	if (!seen || sock_type(sk) == SOCK_STREAM)
		return;
	state->peeked = 0;
	if (seen <= taken)
		return;
	struct loss_key key = {};
	key.stream = id;
	key.run = member->run;
	key.layer = LAYER_SOCKET;
	key.direction = RESPONSE;
	key.cause = ABSENCE_PEEKED;
	note_loss(&key, seen - taken);
}

/* One finished send or receive of `bytes` bytes whose buffers `at` points to. */
static __always_inline void moved(u64 sk, u64 id, struct member *member, u32 direction, u32 bytes, struct cursor *at, struct peer_address *peer)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	u32 looks = at->unknown == ABSENCE_PEEKED;
	struct socket_state *state = sockets.lookup(&id);
	if (!state)
		state = meet(sk, id, member, pid, ROLE_UNKNOWN, direction == REQUEST ? bytes : 0, direction == RESPONSE && !looks ? bytes : 0);
	if (!state)
		return;
	struct data_event event = {};
	fill_header(&event.header, member, SOCKET_DATA, sizeof(event));
	event.stream = id;
	event.socket = id;
	event.direction = direction;
	event.position = state->position[direction & 1];
	if (looks) {
		peeked(sk, state, &event, bytes);
		note_untold(state);
		return;
	}
	if (!bytes) {
		if (direction == RESPONSE)
			tell_end(sk, id, state, &event);
		note_untold(state);
		return;
	}
	event.position = __sync_fetch_and_add(&state->position[direction & 1], bytes);
	if (direction == RESPONSE) {
		discount_fin(sk, state);
		note_left(sk, id, state, member);
	}
	if (nested_in_tls(id, state, at, bytes)) {
		event.length = bytes;
		event.absence = ABSENCE_CIPHERTEXT;
		event.tie = TIE_NESTED;
		emit_absent(&event, LAYER_SOCKET);
		note_untold(state);
		return;
	}
	if (state->flags & SOCKET_STREAM && bytes >= PREFIX_BYTES && !at->unknown)
		compare_prefix(id, member, direction, at);
	emit_bytes(&event, peer, LAYER_SOCKET, at, bytes);
	note_untold(state);
}

#if MODERN

static __always_inline u64 next_message(u64 messages)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 one = 1;
	u32 *index = message_index.lookup(&thread);
	if (!index) {
		message_index.update(&thread, &one);
		return messages;
	}
	u64 message = messages + (u64)*index * MMSG_BYTES;
	*index += 1;
	return message;
}

/* Finds the buffers of the system call that is going on, and the peer that a datagram goes to. */
static __always_inline void locate(struct cursor *at, struct peer_address *peer, u32 direction)
{
	u64 registers = user_registers();
	u64 second = READ(u64, registers + offsetof(struct pt_regs, si));
	u64 third = READ(u64, registers + offsetof(struct pt_regs, dx));
	u64 message = 0;
	if (READ(u64, registers + offsetof(struct pt_regs, cs)) == USER32_CS) {
		at->unknown = ABSENCE_UNKNOWN_CALL;
		return;
	}
	/*
	 * Within a system call this stands where its result will be (arch/x86/entry). On the way back from any call io_uring goes on with what had to
	 * wait, on whatever socket: its buffers are not that call's, nor those of the one in which a thread of its own was made.
	 */
	if (READ(s64, registers + offsetof(struct pt_regs, ax)) != -ENOSYS) {
		at->unknown = ABSENCE_URING;
		return;
	}
	switch (READ(u64, registers + offsetof(struct pt_regs, orig_ax))) {
	case CALL_SENDTO:
		read_name(peer, READ(u64, registers + offsetof(struct pt_regs, r8)), READ(u32, registers + offsetof(struct pt_regs, r9)));
	case CALL_READ:
	case CALL_WRITE:
	case CALL_RECVFROM:
		at->base = second;
		at->left = third;
		return;
	case CALL_READV:
	case CALL_WRITEV:
	case CALL_PREADV2:
	case CALL_PWRITEV2:
		at->iov = second;
		at->iovs = third;
		return;
	case CALL_SENDMSG:
	case CALL_RECVMSG:
		message = second;
		break;
	case CALL_SENDMMSG:
	case CALL_RECVMMSG:
		message = next_message(second);
		break;
	case CALL_SENDFILE:
	case CALL_SPLICE:
		at->unknown = ABSENCE_KERNEL_COPY;
		return;
	case CALL_URING_ENTER:
		at->unknown = ABSENCE_URING;
		return;
	default:
		at->unknown = ABSENCE_UNKNOWN_CALL;
		return;
	}
	read_message(at, message);
	if (direction == REQUEST)
		read_name(peer, READ_USER(u64, message), READ_USER(u32, message + 8));
}

static __always_inline int moved_on(struct bpf_raw_tracepoint_args *ctx, u32 direction, u32 flags)
{
	struct member *member = current_member();
	if (!member)
		return 0;
	u64 sk = ctx->args[0];
	int result = ctx->args[1];
	u16 family = sock_family(sk);
	if (result < 0 || flags & MSG_ERRQUEUE || (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
		return 0;
	u64 id = socket_id(sk, sk);
	struct tls_call *call = direction == REQUEST ? current_call() : 0;
	if (call && sent_in_tls(id, call, result))
		return 0;
	struct cursor at = {};
	struct peer_address peer = {};
	locate(&at, &peer, direction);
	if (direction == RESPONSE && flags & MSG_TRUNC)
		at.unknown = ABSENCE_KERNEL_COPY;
	if (direction == RESPONSE && flags & MSG_PEEK)
		at.unknown = ABSENCE_PEEKED;
	struct member copy = *member;
	u32 datagram = family != AF_UNIX && sock_type(sk) == SOCK_DGRAM;
	if (datagram && direction == RESPONSE) {
		u64 thread = bpf_get_current_pid_tgid();
		struct peer_address *from = datagram_peers.lookup(&thread);
		if (from) {
			peer = *from;
			datagram_peers.delete(&thread);
		}
	}
	if (datagram && !peer.family)
		read_only_peer(&peer, sk, family);
	moved(sk, id, &copy, direction, result, &at, datagram ? &peer : 0);
	return 0;
}

int on_sock_send(struct bpf_raw_tracepoint_args *ctx) { return moved_on(ctx, REQUEST, 0); }
int on_sock_recv(struct bpf_raw_tracepoint_args *ctx) { return moved_on(ctx, RESPONSE, ctx->args[2]); }

/* sendmmsg and recvmmsg move many messages in one call; each shows up by itself. */
int on_many_messages(void *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 none = 0;
	if (current_member())
		message_index.update(&thread, &none);
	return 0;
}

/* splice from a socket does not pass sock_recv_length; splice to one passes sock_send_length. */
int on_splice(struct exit_args *ctx)
{
	if (ctx->result <= 0)
		return 0;
	struct member *member = current_member();
	if (!member)
		return 0;
	u64 registers = user_registers();
	u64 sk = sock_of(file_of(READ(u32, registers + offsetof(struct pt_regs, di))));
	u64 id = sk ? socket_id(sk, 0) : 0;
	if (!id)
		return 0;
	/* Of messages the kernel reads one as any receive does. */
	if (sock_type(sk) != SOCK_STREAM)
		return 0;
	struct member copy = *member;
	struct cursor at = {};
	at.unknown = ABSENCE_KERNEL_COPY;
	moved(sk, id, &copy, RESPONSE, ctx->result, &at, 0);
	return 0;
}

/* cgroup/recvmsg4 and 6: the only place inside the call where the sender of a datagram is known (Linux 5.2). */
static __always_inline int note_sender(struct bpf_sock_addr *ctx, u32 family)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct peer_address peer = {};
	peer.family = family;
	peer.port = swap16(ctx->user_port);
	if (family == AF_INET) {
		u32 address = ctx->user_ip4;
		__builtin_memcpy(peer.address, &address, 4);
	} else {
		u32 address[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
		__builtin_memcpy(peer.address, address, 16);
	}
	datagram_peers.update(&thread, &peer);
	return 1;
}

int on_recvmsg4(struct bpf_sock_addr *ctx) { return note_sender(ctx, AF_INET); }
int on_recvmsg6(struct bpf_sock_addr *ctx) { return note_sender(ctx, AF_INET6); }

#else

/* A system call on a socket, from its entry to its exit. */
struct socket_call {
	u64 sk;
	u64 id;
	u64 second;
	u64 third;
	u64 name;
	u64 name_bytes;
	u32 number;
	u32 flags;
	u32 direction;
	/* Messages of recvmmsg and sendmmsg that were told already, and how many there are. */
	u32 index;
	u32 messages;
	u32 pad;
};

BPF_HASH(socket_calls, u64, struct socket_call, 16384);
/* Holds on_message, which calls itself for the next message: the kernel allows 33 such calls. */
BPF_PROG_ARRAY(next_message, 1);
#define MESSAGES_TOLD_MAX 30
/* UIO_MAXIOV, the most that one call takes. */
#define MESSAGES_MAX 1024
/* Stands for what is left of a call with more messages than can be told one by one. */
#define CALL_TOO_MANY 0xffff

/* Only what every system call's entry has: the kernel refuses a program that could read beyond a shorter one. */
struct call_args {
	u64 common;
	long number;
};

static __always_inline int is_receive(u32 number)
{
	return number == CALL_READ || number == CALL_READV || number == CALL_PREADV2 || number == CALL_RECVFROM ||
	       number == CALL_RECVMSG || number == CALL_RECVMMSG;
}

static __always_inline u32 receive_flags(u32 number, u64 third, u64 fourth)
{
	if (number == CALL_RECVMSG)
		return third;
	return number == CALL_RECVFROM || number == CALL_RECVMMSG ? fourth : 0;
}

int on_call_enter(struct call_args *ctx)
{
	if (!current_member())
		return 0;
	struct socket_call call = {};
	u64 registers = user_registers();
	call.number = ctx->number;
	call.second = READ(u64, registers + offsetof(struct pt_regs, si));
	call.third = READ(u64, registers + offsetof(struct pt_regs, dx));
	call.name = READ(u64, registers + offsetof(struct pt_regs, r8));
	call.name_bytes = READ(u64, registers + offsetof(struct pt_regs, r9));
	call.direction = is_receive(call.number) ? RESPONSE : REQUEST;
	u64 fourth = READ(u64, registers + offsetof(struct pt_regs, r10));
	call.flags = call.direction == RESPONSE ? receive_flags(call.number, call.third, fourth) : 0;
	call.sk = sock_of(file_of(READ(u32, registers + offsetof(struct pt_regs, di))));
	if (call.number == CALL_SPLICE) {
		if (call.sk)
			call.direction = RESPONSE;
		else
			call.sk = sock_of(file_of(call.third));
	}
	if (!call.sk || call.flags & MSG_ERRQUEUE)
		return 0;
	u16 family = sock_family(call.sk);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	call.id = socket_id(call.sk, 0);
	u64 thread = bpf_get_current_pid_tgid();
	if (call.id && socket_calls.update(&thread, &call))
		count(COUNT_MAP_FULL, 1);
	return 0;
}

/* Finds the buffers of a finished call, and the peer of a datagram: the kernel has written the sender's name by now. */
static __always_inline void locate(struct socket_call *call, struct cursor *at, struct peer_address *peer)
{
	u32 number = call->number;
	u64 message = call->second + (u64)call->index * MMSG_BYTES;
	if (number == CALL_SENDFILE || number == CALL_SPLICE || (call->direction == RESPONSE && call->flags & MSG_TRUNC)) {
		at->unknown = ABSENCE_KERNEL_COPY;
	} else if (number == CALL_TOO_MANY) {
		at->unknown = ABSENCE_TOO_LARGE;
	} else if (number == CALL_READV || number == CALL_WRITEV || number == CALL_PREADV2 || number == CALL_PWRITEV2) {
		at->iov = call->second;
		at->iovs = call->third;
	} else if (number == CALL_SENDMSG || number == CALL_RECVMSG || number == CALL_SENDMMSG || number == CALL_RECVMMSG) {
		read_message(at, message);
		read_name(peer, READ_USER(u64, message), READ_USER(u32, message + 8));
	} else {
		at->base = call->second;
		at->left = call->third;
		if (number == CALL_SENDTO)
			read_name(peer, call->name, call->name_bytes);
		else if (number == CALL_RECVFROM && call->name)
			read_name(peer, call->name, READ_USER(u32, call->name_bytes));
	}
}

static __always_inline void tell_moved(struct socket_call *call, struct member *member, u32 bytes)
{
	struct tls_call *tls = call->direction == REQUEST ? current_call() : 0;
	if (tls && sent_in_tls(call->id, tls, bytes))
		return;
	struct cursor at = {};
	struct peer_address peer = {};
	locate(call, &at, &peer);
	if (call->direction == RESPONSE && call->flags & MSG_PEEK)
		at.unknown = ABSENCE_PEEKED;
	u16 family = sock_family(call->sk);
	u32 datagram = family != AF_UNIX && sock_type(call->sk) == SOCK_DGRAM;
	if (datagram && !peer.family)
		read_only_peer(&peer, call->sk, family);
	if (!datagram)
		peer.family = 0;
	moved(call->sk, call->id, member, call->direction, bytes, &at, &peer);
}

int on_call_exit(struct exit_args *ctx)
{
	struct member *member = current_member();
	if (!member)
		return 0;
	u64 thread = bpf_get_current_pid_tgid();
	struct socket_call *entered = socket_calls.lookup(&thread);
	if (!entered)
		return 0;
	if (ctx->result > 0 && (entered->number == CALL_SENDMMSG || entered->number == CALL_RECVMMSG)) {
		entered->messages = ctx->result;
		next_message.call(ctx, 0);
	}
	struct socket_call call = *entered;
	struct member copy = *member;
	socket_calls.delete(&thread);
	if (ctx->result >= 0)
		tell_moved(&call, &copy, ctx->result);
	return 0;
}

/*
 * io_uring moves bytes without a system call for each, and which socket they are for stands in memory that both sides write. So only who uses it is
 * told, once for each process: on a socket where nobody counts, its record cannot be called complete.
 */
static __always_inline int tell_uring(void)
{
	struct member *member = current_member();
	if (!member)
		return 0;
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	u64 start = member->start_ns;
	u64 *known = uring_users.lookup(&pid);
	if (known && *known == start)
		return 0;
	uring_users.update(&pid, &start);
	struct event_header event = {};
	fill_header(&event, member, URING_USED, sizeof(event));
	emit_control(&event, sizeof(event));
	return 0;
}

int on_uring_made(struct exit_args *ctx) { return ctx->result < 0 ? 0 : tell_uring(); }
/* A ring may be inherited or passed. */
int on_uring_entered(void *ctx) { return tell_uring(); }

/* One message of recvmmsg or sendmmsg, then the next. */
int on_message(struct exit_args *ctx)
{
	struct member *member = current_member();
	u64 thread = bpf_get_current_pid_tgid();
	struct socket_call *entered = socket_calls.lookup(&thread);
	if (!member || !entered)
		return 0;
	struct socket_call call = *entered;
	struct member copy = *member;
	if (call.index >= call.messages) {
		socket_calls.delete(&thread);
		return 0;
	}
	u32 bytes = READ_USER(u32, call.second + (u64)call.index * MMSG_BYTES + MMSG_MOVED);
	if (call.index >= MESSAGES_TOLD_MAX) {
		for (u32 more = 1; more < MESSAGES_MAX; more++) {
			if (call.index + more >= call.messages)
				break;
			bytes += READ_USER(u32, call.second + (u64)(call.index + more) * MMSG_BYTES + MMSG_MOVED);
		}
		call.number = CALL_TOO_MANY;
		call.index = call.messages;
	}
	entered->index = call.index + 1;
	tell_moved(&call, &copy, bytes);
	next_message.call(ctx, 0);
	return 0;
}

#endif
