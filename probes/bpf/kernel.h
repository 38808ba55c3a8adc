/*
 * What the programs know of the kernel and of the x86-64 system call interface.
 *
 * Offsets (OFFSET_*) and the ids of our rings come in as -D flags, read from the running kernel's BTF by `probes/kernel.py`: BCC has no
 * CO-RE. Every read is a checked copy; a failed one gives 0, which no caller takes for an object.
 */

#define READ(type, address)                                                            \
	({                                                                             \
		type value_ = 0;                                                       \
		bpf_probe_read_kernel(&value_, sizeof(value_), (void *)(u64)(address)); \
		value_;                                                                \
	})
#define READ_USER(type, address)                                                     \
	({                                                                           \
		type value_ = 0;                                                     \
		bpf_probe_read_user(&value_, sizeof(value_), (void *)(u64)(address)); \
		value_;                                                              \
	})

#define CONTROL_RING ((void *)bpf_pseudo_fd(1, CONTROL_RING_FD))
#define DATA_RING ((void *)bpf_pseudo_fd(1, DATA_RING_FD))

#define offsetof(type, member) __builtin_offsetof(type, member)

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define RCV_SHUTDOWN 1
#define PROT_EXEC 4
#define ENOSYS 38
/* Code segment of 32-bit tasks: their system calls have other numbers. */
#define USER32_CS 0x23

enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_FIN_WAIT1 = 4,
	TCP_CLOSE = 7,
	TCP_LAST_ACK = 9,
};

enum call_number {
	CALL_READ = 0,
	CALL_WRITE = 1,
	CALL_READV = 19,
	CALL_WRITEV = 20,
	CALL_SENDFILE = 40,
	CALL_SENDTO = 44,
	CALL_RECVFROM = 45,
	CALL_SENDMSG = 46,
	CALL_RECVMSG = 47,
	CALL_SPLICE = 275,
	CALL_RECVMMSG = 299,
	CALL_SENDMMSG = 307,
	CALL_PREADV2 = 327,
	CALL_PWRITEV2 = 328,
	CALL_URING_ENTER = 426,
};

struct iovec {
	u64 base;
	u64 bytes;
};

/* struct msghdr of the system call interface. */
struct message_header {
	u64 name;
	u32 name_bytes;
	u32 pad;
	u64 iov;
	u64 iovs;
	u64 control;
	u64 control_bytes;
	u64 flags;
};

/* struct mmsghdr: a message header, the bytes that moved, padding. */
#define MMSG_BYTES 64
#define MMSG_MOVED 56

static __always_inline u64 file_of(int fd)
{
	u64 files = READ(u64, bpf_get_current_task() + OFFSET_TASK_FILES);
	u64 table = READ(u64, files + OFFSET_FILES_FDT);
	if (fd < 0 || (u32)fd >= READ(u32, table + OFFSET_FDT_MAX))
		return 0;
	return READ(u64, READ(u64, table + OFFSET_FDT_FD) + 8ULL * (u32)fd);
}

static __always_inline u64 sock_of(u64 file)
{
	if (!file || (READ(u16, READ(u64, file + OFFSET_FILE_INODE) + OFFSET_INODE_MODE) & S_IFMT) != S_IFSOCK)
		return 0;
	return READ(u64, READ(u64, file + OFFSET_FILE_PRIVATE) + OFFSET_SOCKET_SK);
}

/* Whether a socket's last descriptor is gone. A shutdown() in both directions looks the same in the socket itself, and is no end. */
static __always_inline int released(u64 sk)
{
	u64 socket = READ(u64, sk + OFFSET_SK_SOCKET);
	u64 file = socket ? READ(u64, socket + OFFSET_SOCKET_FILE) : 0;
	if (!file)
		return 1;
#ifdef OFFSET_FILE_REF
	return READ(s64, file + OFFSET_FILE_REF) < 0;
#else
	return READ(u64, file + OFFSET_FILE_COUNT) == 0;
#endif
}

static __always_inline u16 sock_type(u64 sk) { return READ(u16, sk + OFFSET_SK_TYPE); }
static __always_inline u16 sock_protocol(u64 sk) { return READ(u16, sk + OFFSET_SK_PROTOCOL); }
static __always_inline u16 sock_family(u64 sk) { return READ(u16, sk + OFFSET_SK_FAMILY); }

static __always_inline u16 swap16(u16 value) { return value << 8 | value >> 8; }

/* The registers with which the current task came into the kernel: at a system call its number and arguments. */
static __always_inline u64 user_registers(void)
{
#if HAVE_TASK_PT_REGS
	return (u64)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
#else
	/* Before Linux 5.15: they stand at the top of the kernel stack, which has 16 KiB on x86-64 (THREAD_SIZE). */
	return READ(u64, bpf_get_current_task() + OFFSET_TASK_STACK) + (16 << 10) - sizeof(struct pt_regs);
#endif
}
