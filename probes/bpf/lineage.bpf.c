/*
 * Who is recorded: processes of selected cgroups, and all their descendants wherever they go.
 *
 * Raw tracepoints, not kprobes: sched_process_fork, _exec and _exit have carried these arguments since Linux 3.4, and cgroup_attach_task since
 * 4.20; kprobes are compiled out of some kernels. Membership is decided when a process is made, moved or replaced, so that the data
 * path needs one lookup.
 */

/* Deeper cgroups than this below a selected one are still found by lineage. */
#define CGROUP_DEPTH_MAX 10
#define FILENAME_BYTES_MAX 256

static __always_inline u64 run_of_cgroup(u64 cgroup)
{
	u32 level = READ(u32, cgroup + OFFSET_CGROUP_LEVEL);
	for (u32 up = 0; up < CGROUP_DEPTH_MAX; up++) {
		if (up > level)
			break;
#ifdef OFFSET_CGROUP_ANCESTORS
		u64 ancestor = READ(u64, cgroup + OFFSET_CGROUP_ANCESTORS + 8ULL * (level - up));
		u64 id = READ(u64, READ(u64, ancestor + OFFSET_CGROUP_KN) + OFFSET_KERNFS_ID);
#else
		u64 id = READ(u64, cgroup + OFFSET_CGROUP_ANCESTOR_IDS + 8ULL * (level - up));
#endif
		u64 *run = selected_cgroups.lookup(&id);
		if (run)
			return *run;
	}
	return 0;
}

static __always_inline u64 unified_cgroup(u64 task)
{
	return READ(u64, READ(u64, task + OFFSET_TASK_CGROUPS) + OFFSET_CSS_SET_CGROUP);
}

static __always_inline u64 start_of(u64 task)
{
	return READ(u64, READ(u64, task + OFFSET_TASK_LEADER) + OFFSET_TASK_START);
}

static __always_inline int enrol(u64 task, u32 pid, u64 run)
{
	struct member member = {};
	member.run = run;
	member.start_ns = start_of(task);
	if (lineage.update(&pid, &member)) {
		count(COUNT_MAP_FULL, 1);
		return -1;
	}
	return 0;
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 parent = ctx->args[0], child = ctx->args[1];
	u32 parent_pid = READ(u32, parent + OFFSET_TASK_TGID);
	u32 child_pid = READ(u32, child + OFFSET_TASK_TGID);
	if (parent_pid == child_pid)
		return 0;
	struct member *member = lineage.lookup(&parent_pid);
	u64 run = member ? member->run : run_of_cgroup(unified_cgroup(child));
	if (!run || enrol(child, child_pid, run) || !member)
		return 0;
	struct fork_event event = {};
	fill_header(&event.header, member, PROCESS_FORK, sizeof(event));
	event.child_start_ns = start_of(child);
	event.child_pid = child_pid;
	emit_control(&event, sizeof(event));
	return 0;
}

#if MODERN
#define ARGV_BYTES_MAX (128 << 10)

static __always_inline void emit_exec(struct exec_event *event, u64 filename, u64 argv, u32 argv_bytes)
{
	struct bpf_dynptr slot = {};
	char name[FILENAME_BYTES_MAX] = {};
	long name_bytes = bpf_probe_read_kernel_str(name, sizeof(name), (void *)filename);
	if (name_bytes < 0 || name_bytes > FILENAME_BYTES_MAX)
		name_bytes = 0;
	event->filename_bytes = FILENAME_BYTES_MAX;
	event->argv_bytes = argv_bytes;
	u32 fixed = sizeof(*event) + FILENAME_BYTES_MAX;
	event->header.size = fixed + argv_bytes - sizeof(event->header);
	if (bpf_ringbuf_reserve_dynptr(CONTROL_RING, fixed + argv_bytes, 0, &slot)) {
		bpf_ringbuf_discard_dynptr(&slot, 0);
		note_control_lost(event->header.run);
		return;
	}
	if (argv_bytes && read_user_dynptr(&slot, fixed, argv_bytes, (void *)argv))
		event->argv_bytes = 0;
	bpf_dynptr_write(&slot, 0, event, sizeof(*event), 0);
	bpf_dynptr_write(&slot, sizeof(*event), name, FILENAME_BYTES_MAX, 0);
	bpf_ringbuf_submit_dynptr(&slot, 0);
	count(COUNT_CONTROL_RECORDS, 1);
}
#else
#define ARGV_BYTES_MAX (16 << 10)

#define EXEC_CLASS(room)                                                                      \
	do {                                                                                  \
		struct {                                                                      \
			struct exec_event event;                                              \
			char filename[FILENAME_BYTES_MAX];                                    \
			char argv[room];                                                      \
		} *slot = bpf_ringbuf_reserve(CONTROL_RING, sizeof(*slot), 0);                \
		if (!slot) {                                                                  \
			note_control_lost(event->header.run);                                 \
			return;                                                               \
		}                                                                             \
		__builtin_memset(slot->filename, 0, sizeof(slot->filename));                  \
		bpf_probe_read_kernel_str(slot->filename, sizeof(slot->filename), (void *)filename); \
		u64 size = argv_bytes;                                                        \
		asm volatile("" : "+r"(size));                                                \
		if (size > room || bpf_probe_read_user(slot->argv, size, (void *)argv))       \
			event->argv_bytes = 0;                                                \
		slot->event = *event;                                                         \
		bpf_ringbuf_submit(slot, 0);                                                  \
	} while (0)

static __always_inline void emit_exec(struct exec_event *event, u64 filename, u64 argv, u32 argv_bytes)
{
	event->filename_bytes = FILENAME_BYTES_MAX;
	event->argv_bytes = argv_bytes;
	event->header.size = sizeof(*event) + FILENAME_BYTES_MAX + argv_bytes - sizeof(event->header);
	if (argv_bytes <= 1024)
		EXEC_CLASS(1024);
	else
		EXEC_CLASS(ARGV_BYTES_MAX);
	count(COUNT_CONTROL_RECORDS, 1);
}
#endif

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], program = ctx->args[2];
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct member *member = lineage.lookup(&pid);
	if (!member) {
		u64 run = run_of_cgroup(unified_cgroup(task));
		if (!run || enrol(task, pid, run))
			return 0;
		member = lineage.lookup(&pid);
		if (!member)
			return 0;
	}
	/* Whoever replaces his program in the middle of a call does not come back to it. */
	struct tls_call *call = current_call();
	if (call) {
		emit_wire(call);
		end_call(call);
	}
	struct exec_event event = {};
	fill_header(&event.header, member, PROCESS_EXEC, sizeof(event));
	u64 mm = READ(u64, task + OFFSET_TASK_MM);
	u64 inode = READ(u64, READ(u64, mm + OFFSET_MM_EXE) + OFFSET_FILE_INODE);
	u64 credentials = READ(u64, task + OFFSET_TASK_CRED);
	event.inode = READ(u64, inode + OFFSET_INODE_NUMBER);
	event.device = READ(u32, READ(u64, inode + OFFSET_INODE_SB) + OFFSET_SB_DEVICE);
	event.cgroup = bpf_get_current_cgroup_id();
	event.uid = READ(u32, credentials + OFFSET_CRED_UID);
	event.gid = READ(u32, credentials + OFFSET_CRED_GID);
	bpf_get_current_comm(event.comm, sizeof(event.comm));
	u64 argv = READ(u64, mm + OFFSET_MM_ARG_START);
	u64 total = READ(u64, mm + OFFSET_MM_ARG_END) - argv;
	event.argv_bytes_total = total;
	emit_exec(&event, READ(u64, program + OFFSET_BINPRM_FILENAME), argv, total > ARGV_BYTES_MAX ? ARGV_BYTES_MAX : total);
	return 0;
}

/* Runs for each thread; the process is over when none is left. do_exit() has counted this thread out before the tracepoint. */
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u64 thread = bpf_get_current_pid_tgid();
	u32 pid = thread >> 32;
	struct member *member = lineage.lookup(&pid);
	if (!member)
		return 0;
	struct tls_call *call = current_call();
	if (call) {
		emit_wire(call);
		end_call(call);
	}
	if (READ(u32, READ(u64, task + OFFSET_TASK_SIGNAL) + OFFSET_SIGNAL_LIVE))
		return 0;
	struct exit_event event = {};
	fill_header(&event.header, member, PROCESS_EXIT, sizeof(event));
	event.status = READ(u32, task + OFFSET_TASK_EXIT_CODE);
	emit_control(&event, sizeof(event));
	lineage.delete(&pid);
	return 0;
}

/* A process that is moved into a selected cgroup joins; one that is moved out stays what it was. */
int on_cgroup_attach(struct bpf_raw_tracepoint_args *ctx)
{
	u64 cgroup = ctx->args[0], task = ctx->args[2];
	/* Cgroups of version 1 have ids of their own; the unified hierarchy is number 0. */
	if (READ(u32, READ(u64, cgroup + OFFSET_CGROUP_ROOT) + OFFSET_CGROUP_ROOT_HIERARCHY))
		return 0;
	u64 run = run_of_cgroup(cgroup);
	if (!run)
		return 0;
	enrol(task, READ(u32, task + OFFSET_TASK_TGID), run);
	return 0;
}

/* Tells the daemon once of each file that a recorded process maps for execution: it may be a TLS library that came after the start. */
struct mmap_args {
	u64 common;
	long number;
	u64 address;
	u64 bytes;
	u64 protection;
	u64 flags;
	u64 fd;
	u64 offset;
};

int on_mmap(struct mmap_args *ctx)
{
	if (!(ctx->protection & PROT_EXEC))
		return 0;
	struct member *member = current_member();
	if (!member)
		return 0;
	u64 file = file_of(ctx->fd);
	if (!file)
		return 0;
	u64 inode = READ(u64, file + OFFSET_FILE_INODE);
	struct file_key key = {};
	key.inode = READ(u64, inode + OFFSET_INODE_NUMBER);
	key.device = READ(u32, READ(u64, inode + OFFSET_INODE_SB) + OFFSET_SB_DEVICE);
	if (known_files.lookup(&key))
		return 0;
	u8 yes = 1;
	known_files.update(&key, &yes);
	struct file_mapped_event event = {};
	fill_header(&event.header, member, FILE_MAPPED, sizeof(event));
	event.device = key.device;
	event.inode = key.inode;
	emit_control(&event, sizeof(event));
	return 0;
}
