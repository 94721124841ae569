"""The system calls that a program may make, as a filter of the kernel.

Every other call fails with EPERM: no process, thread, socket, signal to
another, mount, trace, key or shared memory. The numbers are those of the
kernel's headers.
"""

import struct

# Numbers on x86_64 and on aarch64; None where there is no such call.
_ALLOWED: dict[str, tuple[int, int | None]] = {
  'access': (21, None),
  'alarm': (37, None),
  'arch_prctl': (158, None),
  'brk': (12, 214),
  'chdir': (80, 49),
  'chmod': (90, None),
  'clock_getres': (229, 114),
  'clock_gettime': (228, 113),
  'clock_nanosleep': (230, 115),
  'close': (3, 57),
  'close_range': (436, 436),
  'copy_file_range': (326, 285),
  'creat': (85, None),
  'dup': (32, 23),
  'dup2': (33, None),
  'dup3': (292, 24),
  'epoll_create1': (291, 20),
  'epoll_ctl': (233, 21),
  'epoll_pwait': (281, 22),
  'epoll_wait': (232, None),
  'eventfd2': (290, 19),
  'exit': (60, 93),
  'exit_group': (231, 94),
  'faccessat': (269, 48),
  'faccessat2': (439, 439),
  'fallocate': (285, 47),
  'fchdir': (81, 50),
  'fchmod': (91, 52),
  'fchmodat': (268, 53),
  'fdatasync': (75, 83),
  'fstat': (5, 80),
  'fstatfs': (138, 44),
  'fsync': (74, 82),
  'ftruncate': (77, 46),
  'futex': (202, 98),
  'getcpu': (309, 168),
  'getcwd': (79, 17),
  'getdents': (78, None),
  'getdents64': (217, 61),
  'getegid': (108, 177),
  'geteuid': (107, 175),
  'getgid': (104, 176),
  'getgroups': (115, 158),
  'getitimer': (36, 102),
  'getpgrp': (111, None),
  'getpid': (39, 172),
  'getppid': (110, 173),
  'getrandom': (318, 278),
  'getresgid': (120, 150),
  'getresuid': (118, 148),
  'getrlimit': (97, 163),
  'getrusage': (98, 165),
  'gettid': (186, 178),
  'gettimeofday': (96, 169),
  'getuid': (102, 174),
  'link': (86, None),
  'linkat': (265, 37),
  'lseek': (8, 62),
  'lstat': (6, None),
  'madvise': (28, 233),
  'mincore': (27, 232),
  'mkdir': (83, None),
  'mkdirat': (258, 34),
  'mmap': (9, 222),
  'mprotect': (10, 226),
  'mremap': (25, 216),
  'msync': (26, 227),
  'munmap': (11, 215),
  'nanosleep': (35, 101),
  'newfstatat': (262, 79),
  'open': (2, None),
  'openat': (257, 56),
  'pause': (34, None),
  'pipe': (22, None),
  'pipe2': (293, 59),
  'poll': (7, None),
  'ppoll': (271, 73),
  'pread64': (17, 67),
  'pselect6': (270, 72),
  'pwrite64': (18, 68),
  'read': (0, 63),
  'readlink': (89, None),
  'readlinkat': (267, 78),
  'readv': (19, 65),
  'rename': (82, None),
  'renameat': (264, 38),
  'renameat2': (316, 276),
  'restart_syscall': (219, 128),
  'rmdir': (84, None),
  'rseq': (334, 293),
  'rt_sigaction': (13, 134),
  'rt_sigpending': (127, 136),
  'rt_sigprocmask': (14, 135),
  'rt_sigreturn': (15, 139),
  'rt_sigsuspend': (130, 133),
  'rt_sigtimedwait': (128, 137),
  'sched_getaffinity': (204, 123),
  'sched_yield': (24, 124),
  'select': (23, None),
  'sendfile': (40, 71),
  'set_robust_list': (273, 99),
  'setitimer': (38, 103),
  'sigaltstack': (131, 132),
  'stat': (4, None),
  'statfs': (137, 43),
  'statx': (332, 291),
  'symlink': (88, None),
  'symlinkat': (266, 36),
  'sysinfo': (99, 179),
  'time': (201, None),
  'times': (100, 153),
  'truncate': (76, 45),
  'umask': (95, 166),
  'uname': (63, 160),
  'unlink': (87, None),
  'unlinkat': (263, 35),
  'utime': (132, None),
  'utimensat': (280, 88),
  'utimes': (235, None),
  'write': (1, 64),
  'writev': (20, 66),
}
# Numbers, the place of the argument that is looked at, and what it may be.
_SOME: dict[str, tuple[tuple[int, int], int, tuple[int, ...]]] = {
  # Copies, flags and locks; no leases, owners of signals or sizes of pipes.
  'fcntl': ((72, 25), 1, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)),
  # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
  'ioctl': ((16, 29), 1, (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)),
  # Asking for a limit, that is, without an address of a new one.
  'prlimit64': ((302, 261), 2, (0,)),
}
# The machine as the kernel names it: the column above, and its AUDIT_ARCH.
_MACHINES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # Refuse: EPERM.


def instructions(machine: str) -> bytes:
  """The filter, as an array of the kernel's `struct sock_filter`.

  Args:
    machine: such as `os.uname().machine`.

  Raises:
    ValueError: there are no numbers for the machine.
  """
  if machine not in _MACHINES:
    raise ValueError(
      'The sandbox knows the system calls of '
      f'{" and ".join(sorted(_MACHINES))}, and not those of {machine!r}.'
    )
  column, architecture = _MACHINES[machine]
  one = lambda code, k, yes=0, no=0: struct.pack('=HBBI', code, yes, no, k)
  program = [
    one(_LOAD, 4),
    one(_EQUAL, architecture, 1),
    one(_RETURN, _KILL),
    one(_LOAD, 0),
  ]
  for numbers, place, values in _SOME.values():
    # Both halves of the argument: an address may have a low half of 0.
    low = 16 + 8 * place
    body = [one(_LOAD, low + 4), one(_EQUAL, 0, 1), one(_RETURN, _REFUSE)]
    body += [one(_LOAD, low)]
    for value in values:
      body += [one(_EQUAL, value, 0, 1), one(_RETURN, _ALLOW)]
    body += [one(_RETURN, _REFUSE)]
    program += [one(_EQUAL, numbers[column], 0, len(body)), *body]
  for pair in _ALLOWED.values():
    if (number := pair[column]) is not None:
      program += [one(_EQUAL, number, 0, 1), one(_RETURN, _ALLOW)]
  return b''.join([*program, one(_RETURN, _REFUSE)])
