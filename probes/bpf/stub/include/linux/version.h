#pragma once
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
/* Only tracing programs of kernels before 5.0 are checked against it. */
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
