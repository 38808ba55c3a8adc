/*
 * How events get into the rings.
 *
 * The modern tier reserves exactly what it needs (ring-buffer dynptrs, Linux 5.19; bpf_probe_read_user_dynptr, Linux 6.16). The classic tier
 * can only reserve constants, so it takes the smallest class that fits; the event's header says how much of it counts. Neither has a
 * scratch buffer: uprobes are preemptible, so a per-CPU one could be overwritten by another thread.
 */

#define LAYER_SOCKET 0
#define LAYER_TLS 1
#define LAYER_CONTROL 2

/* Where a call's bytes are: what is left of the current buffer, then the vector's next ones. */
struct cursor {
	u64 base;
	u64 left;
	u64 iov;
	u32 iovs;
	u32 unknown;
};

static __always_inline void fill_header(struct event_header *header, struct member *member, u16 kind, u32 size)
{
	u64 id = bpf_get_current_pid_tgid();
	header->time_ns = bpf_ktime_get_boot_ns();
	header->run = member->run;
	header->process_start_ns = member->start_ns;
	header->pid = id >> 32;
	header->tid = id;
	header->kind = kind;
	header->flags = 0;
	header->size = size - sizeof(*header);
}

/* Always before the counters: who sees a counter grown finds here what it grew by. */
static __always_inline void note_loss(struct loss_key *key, u64 amount)
{
	u64 *total = losses.lookup(key);
	if (total) {
		__sync_fetch_and_add(total, amount);
		return;
	}
	if (losses.update(key, &amount))
		count(COUNT_LOSSES_UNTOLD, 1);
}

static __always_inline void note_control_lost(u64 run)
{
	struct loss_key key = {};
	key.stream = run;
	key.run = run;
	key.layer = LAYER_CONTROL;
	key.cause = ABSENCE_RING_FULL;
	note_loss(&key, 1);
	count(COUNT_CONTROL_LOST, 1);
}

static __always_inline void emit_control(void *event, u32 size)
{
	if (bpf_ringbuf_output(CONTROL_RING, event, size, 0))
		note_control_lost(((struct event_header *)event)->run);
	else
		count(COUNT_CONTROL_RECORDS, 1);
}

static __always_inline void note_ring_full(struct data_event *event, u32 layer, u64 bytes)
{
	struct loss_key key = {};
	key.stream = event->stream;
	key.run = event->header.run;
	key.layer = layer;
	key.direction = event->direction;
	key.cause = ABSENCE_RING_FULL;
	note_loss(&key, bytes);
	count(COUNT_RING_FULL_RECORDS, 1);
	count(COUNT_RING_FULL_BYTES, bytes);
}

/* Puts an event without payload: its `length` bytes are absent for the reason in `absence`. */
static __always_inline void emit_absent(struct data_event *event, u32 layer)
{
	event->captured = 0;
	event->header.size = sizeof(*event) - sizeof(event->header);
	event->peer_bytes = 0;
	if (bpf_ringbuf_output(DATA_RING, event, sizeof(*event), 0)) {
		note_ring_full(event, layer, event->length);
		return;
	}
	count(COUNT_DATA_RECORDS, 1);
}

/* Tells what a TLS call has sent and no event has told, where no plaintext will tell it. */
static __always_inline void emit_wire(struct tls_call *call)
{
	struct data_event event = {};
	if (!call->wire.bytes)
		return;
	fill_header(&event.header, &call->member, SOCKET_DATA, sizeof(event));
	event.stream = call->socket;
	event.socket = call->socket;
	event.direction = REQUEST;
	event.position = call->wire.position;
	event.length = call->wire.bytes;
	event.absence = ABSENCE_CIPHERTEXT;
	event.tie = TIE_NESTED;
	call->wire.bytes = 0;
	emit_absent(&event, LAYER_SOCKET);
}

#if MODERN

/* Open-coded iterator (Linux 6.4): the verifier looks at a loop's body until it learns nothing new, not once for every turn. */
struct bpf_iter_num {
	u64 opaque;
} __attribute__((aligned(8)));

static int (*iter_new)(struct bpf_iter_num *it, int start, int end) = (void *)KFUNC_ITER_NEW;
static int *(*iter_next)(struct bpf_iter_num *it) = (void *)KFUNC_ITER_NEXT;
static void (*iter_destroy)(struct bpf_iter_num *it) = (void *)KFUNC_ITER_DESTROY;

#define FOR_STEPS(steps)                \
	struct bpf_iter_num step_ = {}; \
	iter_new(&step_, 0, steps);     \
	while (iter_next(&step_))
#define END_STEPS iter_destroy(&step_);

static int (*read_user_dynptr)(struct bpf_dynptr *to, u32 offset, u32 bytes, const void *from) = (void *)KFUNC_READ_USER_DYNPTR;

/* What stands between an event and its payload: a datagram's peer, or a TLS call's ciphertext. */
_Static_assert(sizeof(struct wire) == sizeof(struct peer_address), "one place for either");

static __always_inline int emit_chunk(struct data_event *event, void *beside, u32 layer, u64 base, u32 bytes)
{
	struct bpf_dynptr slot = {};
	u32 fixed = sizeof(*event) + (beside ? sizeof(struct peer_address) : 0);
	event->peer_bytes = beside ? sizeof(struct peer_address) : 0;
	event->length = bytes;
	event->captured = bytes;
	event->header.size = fixed + bytes - sizeof(event->header);
	if (bpf_ringbuf_reserve_dynptr(DATA_RING, fixed + bytes, 0, &slot)) {
		bpf_ringbuf_discard_dynptr(&slot, 0);
		note_ring_full(event, layer, bytes);
		return -1;
	}
	if (read_user_dynptr(&slot, fixed, bytes, (void *)base)) {
		event->captured = 0;
		event->absence = ABSENCE_FAULT;
		count(COUNT_FAULT_BYTES, bytes);
	}
	bpf_dynptr_write(&slot, 0, event, sizeof(*event), 0);
	if (beside)
		bpf_dynptr_write(&slot, sizeof(*event), beside, sizeof(struct peer_address), 0);
	bpf_ringbuf_submit_dynptr(&slot, 0);
	count(COUNT_DATA_RECORDS, 1);
	count(COUNT_DATA_BYTES, bytes);
	event->absence = ABSENCE_NONE;
	return 0;
}

#else

#define FOR_STEPS(steps) for (int step = 0; step < steps; step++)
#define END_STEPS

#define EMIT_CLASS(room)                                                                                  \
	do {                                                                                              \
		struct {                                                                                  \
			struct data_event event;                                                          \
			struct peer_address beside;                                                       \
			u8 payload[room];                                                                 \
		} *slot = bpf_ringbuf_reserve(DATA_RING, sizeof(*slot), 0);                               \
		if (!slot) {                                                                              \
			note_ring_full(event, layer, bytes);                                              \
			return -1;                                                                        \
		}                                                                                         \
		u64 size = bytes;                                                                         \
		asm volatile("" : "+r"(size));                                                            \
		if (size > room || bpf_probe_read_user(slot->payload, size, (void *)base)) {              \
			event->captured = 0;                                                              \
			event->absence = ABSENCE_FAULT;                                                   \
			count(COUNT_FAULT_BYTES, bytes);                                                  \
		}                                                                                         \
		slot->event = *event;                                                                     \
		if (beside)                                                                               \
			slot->beside = *(struct peer_address *)beside;                                    \
		else                                                                                      \
			__builtin_memset(&slot->beside, 0, sizeof(slot->beside));                         \
		bpf_ringbuf_submit(slot, 0);                                                              \
	} while (0)

static __always_inline int emit_chunk(struct data_event *event, void *beside, u32 layer, u64 base, u32 bytes)
{
	/* The place is always there; family 0 means no peer, 0 bytes no ciphertext. */
	event->peer_bytes = sizeof(struct peer_address);
	event->length = bytes;
	event->captured = bytes;
	event->header.size = sizeof(*event) + sizeof(struct peer_address) + bytes - sizeof(event->header);
	if (bytes <= 128)
		EMIT_CLASS(128);
	else if (bytes <= 1024)
		EMIT_CLASS(1024);
	else if (bytes <= 4096)
		EMIT_CLASS(4096);
	else if (bytes <= 16384)
		EMIT_CLASS(16384); /* a whole TLS record, what most reads and writes of a library move */
	else
		EMIT_CLASS(CHUNK_BYTES_MAX);
	count(COUNT_DATA_RECORDS, 1);
	count(COUNT_DATA_BYTES, bytes);
	event->absence = ABSENCE_NONE;
	return 0;
}

#endif

/*
 * Gives back the value, but the verifier knows nothing of it any more. Without this it would follow what is left of a call from turn to turn,
 * and never find two turns alike.
 */
static __always_inline u64 forget(u64 value)
{
	return READ(u64, &value);
}

/* Puts `bytes` from where the cursor stands, in chunks of at most CHUNK_BYTES_MAX; what cannot be put becomes an absence. */
static __always_inline void emit_bytes(struct data_event *event, void *beside, u32 layer, struct cursor *at, u64 bytes)
{
	FOR_STEPS(EMIT_STEPS_MAX) {
		bytes = forget(bytes);
		at->left = forget(at->left);
		if (!bytes || at->unknown)
			break;
		if (!at->left) {
			struct iovec next = {};
			if (!at->iovs)
				break;
			if (bpf_probe_read_user(&next, sizeof(next), (void *)at->iov)) {
				event->absence = ABSENCE_FAULT;
				break;
			}
			at->base = next.base;
			at->left = next.bytes;
			at->iov += sizeof(next);
			at->iovs--;
			continue;
		}
		u64 chunk = at->left < bytes ? at->left : bytes;
		if (chunk > CHUNK_BYTES_MAX)
			chunk = CHUNK_BYTES_MAX;
		if (!emit_chunk(event, beside, layer, at->base, chunk) && layer == LAYER_TLS)
			((struct wire *)beside)->bytes = forget(0); /* told with the first chunk */
		event->position += chunk;
		at->base += chunk;
		at->left -= chunk;
		bytes -= chunk;
	}
	END_STEPS
	if (!bytes)
		return;
	if (at->unknown) {
		event->absence = at->unknown;
		count(COUNT_UNKNOWN_CALL_BYTES, bytes);
	} else if (event->absence == ABSENCE_NONE) {
		event->absence = ABSENCE_TOO_LARGE;
		count(COUNT_TOO_LARGE_BYTES, bytes);
	}
	event->length = bytes;
	emit_absent(event, layer);
}
