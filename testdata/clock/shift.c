// shift SECONDS PROGRAM [ARGUMENT...]: runs a program whose wall clock is off by so much.
//
// For tests of what happens a week later. The program reads its clock through the vDSO, whether it is
// linked to libc or not; a process beside it writes three functions of its own over those of the vDSO
// (copy on write: nobody else's clock moves) when the program has been executed and before its first
// instruction, and is gone. The program has this process's id. Monotonic clocks are left alone.
// SHIFT_PRELOAD, if set, is waits.c built as a library: needed by programs that wait until a moment of the wall clock.
// Only clock_gettime, gettimeofday and time through the vDSO: not the system calls themselves. x86-64.

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "shift: %s: %s\n", what, strerror(errno));
    _exit(127);
}

// The offset of a function in the vDSO, which is the same image in every process; 0 if it has none.
static uint64_t offset_of(const char *name) {
    const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
    if (!base) return 0;
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(base + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_DYNSYM) continue;
        const Elf64_Sym *symbols = (const Elf64_Sym *)(base + sections[i].sh_offset);
        const char *names = base + sections[sections[i].sh_link].sh_offset;
        for (uint64_t n = 0; n < sections[i].sh_size / sizeof(Elf64_Sym); n++) {
            if (strcmp(names + symbols[n].st_name, name) == 0) return symbols[n].st_value;
        }
    }
    return 0;
}

// Where the vDSO lies in a process: AT_SYSINFO_EHDR of its own auxiliary vector.
static uint64_t vdso_of(pid_t pid) {
    char path[64];
    Elf64_auxv_t entry;
    snprintf(path, sizeof path, "/proc/%d/auxv", pid);
    int fd = open(path, O_RDONLY);
    while (fd >= 0 && read(fd, &entry, sizeof entry) == sizeof entry) {
        if (entry.a_type == AT_SYSINFO_EHDR) {
            close(fd);
            return entry.a_un.a_val;
        }
    }
    fail(path);
    return 0;
}

static void write_over(int memory, uint64_t vdso, const char *name, uint8_t *code, size_t size, size_t at,
                       int32_t seconds) {
    uint64_t offset = offset_of(name);
    if (offset == 0) {
        errno = ENOSYS;
        fail(name);
    }
    memcpy(code + at, &seconds, sizeof seconds);
    if (pwrite(memory, code, size, (off_t)(vdso + offset)) != (ssize_t)size) fail(name);
}

static void patch(pid_t pid, int32_t seconds) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int memory = open(path, O_RDWR);
    if (memory < 0) fail(path);
    uint64_t vdso = vdso_of(pid);
    // clock_gettime(edi, rsi): the system call; the seconds moved where it is CLOCK_REALTIME.
    uint8_t clock_gettime[] = {0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0x85, 0xff, 0x75, 0x07,
                               0x48, 0x81, 0x06, 0, 0, 0, 0, 0xc3};
    // gettimeofday(rdi, rsi)
    uint8_t gettimeofday[] = {0xb8, 0x60, 0, 0, 0, 0x0f, 0x05, 0x48, 0x85, 0xff, 0x74, 0x07,
                              0x48, 0x81, 0x07, 0, 0, 0, 0, 0xc3};
    // time(rdi)
    uint8_t time[] = {0xb8, 0xc9, 0, 0, 0, 0x0f, 0x05, 0x48, 0x05, 0, 0, 0, 0,
                      0x48, 0x85, 0xff, 0x74, 0x03, 0x48, 0x89, 0x07, 0xc3};
    write_over(memory, vdso, "__vdso_clock_gettime", clock_gettime, sizeof clock_gettime, 14, seconds);
    write_over(memory, vdso, "__vdso_gettimeofday", gettimeofday, sizeof gettimeofday, 15, seconds);
    write_over(memory, vdso, "__vdso_time", time, sizeof time, 9, seconds);
    close(memory);
}

// Waits for the program to be executed, moves its clock, and lets go of it.
static void move_clock(pid_t program, int32_t seconds, int ready) {
    if (ptrace(PTRACE_SEIZE, program, 0, PTRACE_O_TRACEEXEC) != 0) fail("ptrace");
    if (write(ready, "", 1) != 1) fail("write");
    int status;
    for (;;) {
        if (waitpid(program, &status, __WALL) != program) fail("waitpid");
        if (!WIFSTOPPED(status)) _exit(127);
        if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8))) break;
        int signal = WSTOPSIG(status);
        if (ptrace(PTRACE_CONT, program, 0, signal == SIGTRAP ? 0 : signal) != 0) fail("ptrace");
    }
    patch(program, seconds);
    if (ptrace(PTRACE_DETACH, program, 0, 0) != 0) fail("ptrace");
    _exit(0);
}

int main(int count, char **words) {
    char *end = NULL;
    long seconds = count > 2 ? strtol(words[1], &end, 10) : 0;
    if (count < 3 || *end != 0 || seconds < INT_MIN || seconds > INT_MAX) {
        fprintf(stderr, "usage: shift SECONDS PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) != 0) fail("pipe");
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); // Not there on every kernel.
    pid_t self = getpid(), child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        // The grandchild is nobody's child that the program could find.
        pid_t beside = fork();
        if (beside == 0) move_clock(self, (int32_t)seconds, ready[1]);
        _exit(beside < 0 ? 127 : 0);
    }
    int status;
    char byte;
    close(ready[1]);
    if (waitpid(child, &status, 0) != child || status != 0) fail("fork");
    if (read(ready[0], &byte, 1) != 1) return 127; // It has said why.
    setenv("SHIFT_SECONDS", words[1], 1);
    if (getenv("SHIFT_PRELOAD")) setenv("LD_PRELOAD", getenv("SHIFT_PRELOAD"), 1);
    execv(words[2], words + 2);
    fail(words[2]);
}
