/* A stand-in for the NVIDIA driver's library, for hosts without a GPU.
 *
 * It is built by temporal_fabric.testing.nvml under the library's own name, so that NVIDIA's own
 * binding loads it and nothing of ours is replaced. What there is stands in the file that
 * FABRIC_STAND_IN_GPUS names, read anew with every nvmlInit. A line is one device:
 *
 *     UUID;name;bytes of memory;minor number;MIG mode;uncorrected errors;pid of a process or 0
 *
 * Without that file the library answers as one whose driver is not loaded.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, NOT_LOADED = 9 };
enum { MOST = 16 };

struct device {
    char uuid[96], name[96];
    unsigned long long memory, errors;
    unsigned int minor, mig, pid;
};

struct memory {
    unsigned long long total, free, used;
};

struct process {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
};

static struct device devices[MOST];
static unsigned int known;

int nvmlInitWithFlags(unsigned int flags) {
    const char *path = getenv("FABRIC_STAND_IN_GPUS");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    struct device one;
    unsigned int count = 0;
    (void)flags;
    if (file == NULL) return NOT_LOADED;
    while (count < MOST && fscanf(file, " %95[^;];%95[^;];%llu;%u;%u;%llu;%u", one.uuid, one.name,
                                  &one.memory, &one.minor, &one.mig, &one.errors, &one.pid) == 7)
        devices[count++] = one;
    fclose(file);
    known = count;
    return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    return code == NOT_LOADED ? "Driver Not Loaded" : code == INVALID ? "Invalid Argument" : "Error";
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = known;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct device **handle) {
    if (index >= known) return INVALID;
    *handle = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(struct device *one, char *text, unsigned int size) {
    snprintf(text, size, "%s", one->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(struct device *one, char *text, unsigned int size) {
    snprintf(text, size, "%s", one->name);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct device *one, struct memory *memory) {
    memset(memory, 0, sizeof *memory);
    memory->total = memory->free = one->memory;
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(struct device *one, unsigned int *minor) {
    *minor = one->minor;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(struct device *one, unsigned int *current, unsigned int *pending) {
    *current = *pending = one->mig;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(struct device *one, int kind, int counter,
                                unsigned long long *count) {
    (void)kind, (void)counter;
    *count = one->errors;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(struct device *one, unsigned int *corrected,
                              unsigned int *uncorrected, unsigned int *pending,
                              unsigned int *failed) {
    (void)one, (void)corrected, (void)uncorrected, (void)pending, (void)failed;
    return NOT_SUPPORTED;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *one, unsigned int *count,
                                            struct process *processes) {
    unsigned int needed = one->pid ? 1 : 0, room = *count;
    *count = needed;
    if (room < needed) return TOO_SMALL;
    if (needed) {
        memset(processes, 0, sizeof *processes);
        processes[0].pid = one->pid;
    }
    return SUCCESS;
}
