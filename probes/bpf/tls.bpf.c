/*
 * What is said inside TLS: the plaintext at the library's read and write functions.
 *
 * OpenSSL: ssl_read_internal and ssl_write_internal where they can be found (all exported variants end there), else the exports. GnuTLS: its
 * record functions. Bytes are read when the call returns, with the length that it returns: what a retry or a short write did not move is
 * not recorded, and the pages are resident because the library has just used them.
 *
 * Uprobe programs may be preempted, and since Linux 6.13 such programs may get a per-CPU private stack: two threads would share it.
 * A tail call in the program keeps the JIT from using one; ours never happens.
 */

BPF_PROG_ARRAY(never, 1);
/* The kernel wants all programs that use such an array to be of one attach type. */
BPF_PROG_ARRAY(never_in_session, 1);

static __always_inline void keep_own_stack(struct pt_regs *ctx)
{
	if (!ctx->sp)
		never.call(ctx, 0);
}

/* How a function tells the bytes it moved. `probes/sites.py` has the same list. */
enum result {
	/* by its return value, when positive */
	RESULT_RETURNED = 0,
	/* through a pointer in its fourth argument, when it returns a positive value */
	RESULT_FOURTH = 1,
	/* through a pointer in its fifth argument, when it returns a positive value */
	RESULT_FIFTH = 2,
	/* by its return value, when positive, but not where the bytes are */
	RESULT_ELSEWHERE = 3,
};

/* Up to where the response was taken, or looked at. */
static __always_inline u64 heard(struct tls_stream *stream)
{
	return stream->peeked > stream->position[RESPONSE] ? stream->peeked : stream->position[RESPONSE];
}

static __always_inline struct tls_stream *stream_of(struct tls_key *key, struct tls_call *call, struct member *member)
{
	struct tls_stream *stream = tls_streams.lookup(key);
	u64 socket = call->socket;
	if (stream && (!socket || !stream->socket || stream->socket == socket)) {
		if (socket && !stream->socket) {
			stream->socket = socket;
			stream->tie = call->tie;
			tell_tie(key, stream, member);
		}
		return stream;
	}
	struct tls_stream fresh = {};
	if (stream) {
		/* The library's object was taken for another connection. */
		struct tls_close_event event = {};
		fill_header(&event.header, member, TLS_CLOSE, sizeof(event));
		event.stream = stream->id;
		event.socket = stream->socket;
		event.position[REQUEST] = stream->position[REQUEST];
		event.position[RESPONSE] = heard(stream);
		emit_control(&event, sizeof(event));
	}
	fresh.id = (bpf_ktime_get_boot_ns() << 8 | (bpf_get_smp_processor_id() & 0xff)) & ~(1ULL << 63);
	fresh.socket = socket;
	fresh.library = call->library;
	fresh.tie = socket ? call->tie : TIE_NONE;
	if (tls_streams.update(key, &fresh)) {
		count(COUNT_MAP_FULL, 1);
		return 0;
	}
	if (socket)
		tell_tie(key, &fresh, member);
	return tls_streams.lookup(key);
}

/*
 * Whether a call that its thread left may still return: the return probe's trampoline stands where its return address was, until what the thread
 * does after a jump writes over it.
 */
static __always_inline int may_return(struct tls_call *call)
{
#if defined(OFFSET_MM_XOL) && defined(OFFSET_XOL_ADDRESS)
	u64 area = READ(u64, READ(u64, bpf_get_current_task() + OFFSET_TASK_MM) + OFFSET_MM_XOL);
	return READ_USER(u64, call->stack) == READ(u64, area + OFFSET_XOL_ADDRESS);
#else
	return 1;
#endif
}

static __always_inline void tell_unseen(struct tls_call *call)
{
	struct tls_key key = {.ssl = call->ssl, .pid = bpf_get_current_pid_tgid() >> 32};
	struct tls_stream *stream = call->bytes ? stream_of(&key, call, &call->member) : 0;
	if (!stream)
		return;
	struct data_event event = {};
	fill_header(&event.header, &call->member, TLS_DATA, sizeof(event));
	event.stream = stream->id;
	event.socket = stream->socket;
	event.direction = call->direction;
	event.tie = stream->tie;
	event.library = call->library;
	event.absence = ABSENCE_OTHER_STACK;
	event.length = call->bytes;
	event.position = __sync_fetch_and_add(&stream->position[call->direction & 1], call->bytes);
	emit_absent(&event, LAYER_TLS);
}

/*
 * The thread has another call open. Gives 1 when the new one must not be followed.
 *
 * Return probes and stacks: the kernel keeps what it has to put back of a thread in one list, and drops from it all that stands below the stack
 * pointer at the next probed function's entry. A call that waits on a lower stack would then return to nowhere, and the kernel ends the agent with
 * SIGILL. So the higher one is let go; only the modern tier can.
 */
static __always_inline int set_aside(struct tls_call *outer, struct tls_call *call, u64 thread)
{
	struct parked_key place = {.thread = thread, .stack = call->stack};
	if (outer->stack - call->stack <= TLS_DEPTH_BYTES) {
		parked_calls.delete(&place); /* of a call that was here, and never returned */
		return 1; /* an inner function of a call that is already followed */
	}
	count(COUNT_STALE_CALLS, 1);
	if (call->stack - outer->stack <= TLS_DEPTH_BYTES || !may_return(outer))
		return 0;
#if MODERN
	if (outer->stack < call->stack) {
		tell_unseen(call);
		return 1;
	}
#endif
	place.stack = outer->stack;
	parked_calls.update(&place, outer);
	return 0;
}

/* Gives 0 when the call is to be looked at again at its return. */
static __always_inline int enter_call(struct pt_regs *ctx, struct member *member, u32 direction, u32 result, u32 library, u32 peeks)
{
	struct tls_call *current = begin_call();
	if (!current) {
		count(COUNT_MAP_FULL, 1);
		return 1;
	}
	struct tls_call call = {};
	call.member = *member;
	call.ssl = ctx->di;
	call.buffer = ctx->si;
	call.bytes = ctx->dx;
	/* Both are read: the verifier wants no choice between two places in the context. */
	u64 fourth = ctx->cx, fifth = ctx->r8;
	asm volatile("" : "+r"(fourth), "+r"(fifth));
	call.moved_pointer = result == RESULT_FIFTH ? fifth : fourth;
	call.stack = ctx->sp;
	call.direction = direction;
	call.result = result;
	call.library = library;
	call.peeks = peeks;
	if (current->stack) {
		emit_wire(current);
		/* The same frame: gnutls_record_send jumps into gnutls_record_send2. */
		if (current->stack != call.stack && set_aside(current, &call, bpf_get_current_pid_tgid()))
			return 1;
	}
	*current = call;
	return 0;
}

static __always_inline u64 bytes_moved(struct tls_call *call, s64 returned)
{
	if (call->result == RESULT_RETURNED || call->result == RESULT_ELSEWHERE)
		return call->library == LIBRARY_OPENSSL ? ((s32)returned > 0 ? (u32)returned : 0) : (returned > 0 ? returned : 0);
	return (s32)returned > 0 ? READ_USER(u64, call->moved_pointer) : 0;
}

static __always_inline void tell_call(struct tls_call *call, u64 bytes)
{
	struct tls_key key = {};
	key.ssl = call->ssl;
	key.pid = bpf_get_current_pid_tgid() >> 32;
	struct tls_stream *stream = stream_of(&key, call, &call->member);
	if (!stream)
		return;
	struct data_event event = {};
	fill_header(&event.header, &call->member, TLS_DATA, sizeof(event));
	event.stream = stream->id;
	event.socket = stream->socket;
	event.direction = call->direction;
	event.tie = stream->tie;
	event.library = call->library;
	if (call->peeks) {
		/* As in `peeked`. */
		event.position = stream->position[RESPONSE];
		event.length = bytes;
		event.absence = ABSENCE_PEEKED;
		if (event.position + bytes <= stream->peeked)
			return;
		stream->peeked = event.position + bytes;
		emit_absent(&event, LAYER_TLS);
		return;
	}
	event.position = __sync_fetch_and_add(&stream->position[call->direction & 1], bytes);
	struct cursor at = {};
	at.base = call->buffer;
	at.left = bytes;
	if (call->result == RESULT_ELSEWHERE) {
		at.unknown = ABSENCE_UNKNOWN_CALL;
	} else if (bytes > call->bytes || !call->buffer) {
		/* GnuTLS finishing an earlier call's bytes: the buffer that held them is not known any more. */
		at.unknown = ABSENCE_FAULT;
	}
#if MODERN
	/* Nearly all calls: without the loop. */
	if (!at.unknown && bytes <= CHUNK_BYTES_MAX) {
		if (!emit_chunk(&event, &call->wire, LAYER_TLS, at.base, bytes))
			call->wire.bytes = 0;
		return;
	}
#endif
	emit_bytes(&event, &call->wire, LAYER_TLS, &at, bytes);
}

static __always_inline int leave_call(struct pt_regs *ctx)
{
	struct parked_key place = {.thread = bpf_get_current_pid_tgid(), .stack = ctx->sp - 8};
	struct tls_call *entered = current_call();
	u32 parked = !entered || entered->stack != place.stack;
	if (parked)
		entered = parked_calls.lookup(&place);
	if (!entered)
		return 0;
	struct tls_call call = *entered;
	if (parked)
		parked_calls.delete(&place);
	else
		end_call(entered);
	u64 bytes = bytes_moved(&call, ctx->ax);
	if (bytes)
		tell_call(&call, bytes);
	emit_wire(&call);
	return 0;
}

#if MODERN

static bool (*session_is_return)(void *ctx) = (void *)KFUNC_SESSION_IS_RETURN;

/* One program for every function of every library: what it is stands in the attach cookie. Returning 1 at entry spares the return. */
int on_tls_call(struct pt_regs *ctx)
{
	if (!ctx->sp)
		never_in_session.call(ctx, 0);
	if (session_is_return(ctx))
		return leave_call(ctx);
	struct member *member = current_member();
	if (!member)
		return 1;
	u64 what = bpf_get_attach_cookie(ctx);
	return enter_call(ctx, member, what & 1, what >> 1 & 3, what >> 8 & 0xff, what >> 3 & 1);
}

#else

#define TLS_ENTRY(name, direction, result, library, peeks)                     \
	int name(struct pt_regs *ctx)                                          \
	{                                                                      \
		keep_own_stack(ctx);                                           \
		struct member *member = current_member();                      \
		if (member)                                                    \
			enter_call(ctx, member, direction, result, library, peeks); \
		return 0;                                                      \
	}

TLS_ENTRY(on_openssl_read, RESPONSE, RESULT_RETURNED, LIBRARY_OPENSSL, 0)
TLS_ENTRY(on_openssl_write, REQUEST, RESULT_RETURNED, LIBRARY_OPENSSL, 0)
TLS_ENTRY(on_openssl_read_fourth, RESPONSE, RESULT_FOURTH, LIBRARY_OPENSSL, 0)
TLS_ENTRY(on_openssl_write_fourth, REQUEST, RESULT_FOURTH, LIBRARY_OPENSSL, 0)
TLS_ENTRY(on_openssl_write_fifth, REQUEST, RESULT_FIFTH, LIBRARY_OPENSSL, 0)
TLS_ENTRY(on_gnutls_read, RESPONSE, RESULT_RETURNED, LIBRARY_GNUTLS, 0)
TLS_ENTRY(on_openssl_peek, RESPONSE, RESULT_RETURNED, LIBRARY_OPENSSL, 1)
TLS_ENTRY(on_openssl_peek_fourth, RESPONSE, RESULT_FOURTH, LIBRARY_OPENSSL, 1)
TLS_ENTRY(on_gnutls_write, REQUEST, RESULT_RETURNED, LIBRARY_GNUTLS, 0)
TLS_ENTRY(on_gnutls_packet, RESPONSE, RESULT_ELSEWHERE, LIBRARY_GNUTLS, 0)

/* Return probes of inner functions come here too; only the one whose frame the entry saw counts. */
int on_tls_return(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
	return leave_call(ctx);
}

#endif

/* SSL_free, gnutls_deinit: the pointer may be given to another connection next. */
int on_tls_free(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
	struct member *member = current_member();
	if (!member)
		return 0;
	struct tls_key key = {};
	key.ssl = ctx->di;
	key.pid = bpf_get_current_pid_tgid() >> 32;
	struct tls_stream *stream = tls_streams.lookup(&key);
	if (!stream)
		return 0;
	struct tls_close_event event = {};
	fill_header(&event.header, member, TLS_CLOSE, sizeof(event));
	event.stream = stream->id;
	event.socket = stream->socket;
	event.position[REQUEST] = stream->position[REQUEST];
	event.position[RESPONSE] = heard(stream);
	emit_control(&event, sizeof(event));
	tls_streams.delete(&key);
	return 0;
}

/*
 * mem_write and mem_read of libcrypto: ciphertext on its way between the library and a program that does its own socket calls.
 * Found through BIO_s_mem(), so that BIOs on sockets never come here.
 */
int on_bio_write(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
	if (!current_member() || (s32)ctx->dx < PREFIX_BYTES)
		return 0;
	struct prefix_key prefix = {};
	if (bpf_probe_read_user(prefix.bytes, PREFIX_BYTES, (void *)ctx->si) || !looks_like_tls(prefix.bytes))
		return 0;
	u64 thread = bpf_get_current_pid_tgid();
	prefix.pid = thread >> 32;
	struct tls_call *call = current_call();
	struct tls_key key = {};
	key.pid = prefix.pid;
	if (call) {
		key.ssl = call->ssl;
		written_prefixes.update(&prefix, &key);
		return 0;
	}
	u64 *socket = received_prefixes.lookup(&prefix);
	if (!socket)
		return 0;
	u64 id = *socket;
	key.ssl = ctx->di;
	bio_sockets.update(&key, &id);
	return 0;
}

int on_bio_read(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
	if (!current_member())
		return 0;
	u64 thread = bpf_get_current_pid_tgid();
	struct tls_call *call = current_call();
	if (!call || call->socket)
		return 0;
	struct tls_key key = {};
	key.ssl = ctx->di;
	key.pid = thread >> 32;
	u64 *socket = bio_sockets.lookup(&key);
	if (!socket)
		return 0;
	call->socket = *socket;
	call->tie = TIE_CIPHERTEXT;
	return 0;
}
