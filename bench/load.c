/*
 * load: puts a load on an iSCSI LUN through libiscsi and says in one line of JSON what it saw.
 *
 *   gcc -O2 -o load load.c -liscsi
 *   load --url iscsi://HOST:PORT/TARGET/LUN --operation read|write|fill|check [options]
 *
 *   --order random|sequential   random: every block of the region once before any comes again
 *   --bytes N                   of one command; 4096 unless told
 *   --depth N                   commands under way on each connection; 1 unless told
 *   --connections N             sessions, each with a name of its own; 1 unless told
 *   --region N                  bytes of the LUN that are used, from its beginning; all unless told
 *   --seconds S, --ops N        the end, whichever comes first
 *   --seed N                    of the random order, and of what `fill` writes and `check` wants to find
 *   --fua                       Force Unit Access on writes
 *   --header-digest             CRC32C over headers
 *   --idle S                    says "connected" on stderr and waits so long before the load
 *   --pid N                     the process whose processor time is counted (the target)
 *
 * Exit code 1: it could not be done; 2: a command failed, or `check` found other bytes.
 */
#define _GNU_SOURCE
#define PROGRAM "load"
#include "common.h"
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define CONNECTIONS_MAX 1024

static const char *url;
static enum operation operation = OP_READ;
static int is_random, fua, header_digest;
static uint32_t bytes = 4096;
static int depth = 1, connections = 1, idle_s, target_pid;
static uint64_t region = UINT64_MAX, ops_max = UINT64_MAX;
static double seconds = 1e9;

struct session {
    struct iscsi_context *iscsi;
    int lun;
    uint64_t next;      /* sequential: index of the next piece */
    int under_way;
};

/* One command under way, used again and again. */
struct slot {
    struct session *session;
    unsigned char *data;
    uint64_t piece;
    uint64_t begun_ns;
};

static struct session sessions[CONNECTIONS_MAX];
static uint64_t pieces;         /* the region in units of one command */
static int piece_bits;
static uint64_t issued, completed, failures;
static int running = 1;

/* ---- Latencies: counts in buckets of 1/64 of a power of two, so that memory and cost don't grow with the run. */

#define SUB_BITS 6
static uint64_t buckets[64 << SUB_BITS];

static void record(uint64_t ns)
{
    int shift = ns >> SUB_BITS ? 63 - SUB_BITS - __builtin_clzll(ns) : 0;

    buckets[((uint64_t)shift << SUB_BITS) + (ns >> shift)]++;
}

static double quantile_us(double share)
{
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)completed);
    unsigned i;

    for (i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        seen += buckets[i];
        if (seen > wanted) {
            unsigned shift = i >> SUB_BITS;
            if (shift > 0) shift--;
            return (double)((uint64_t)(i - (shift << SUB_BITS)) << shift) / 1000.0;
        }
    }
    return 0;
}

/* ---- Which piece comes next. */

/* A permutation of 0 … pieces - 1: mixes within the next power of two, and again if that leads outside. */
static uint64_t shuffled(uint64_t index)
{
    uint64_t mask = ((uint64_t)1 << piece_bits) - 1, x = index;
    int half = piece_bits / 2 + 1;

    do {
        x = (x ^ (seed * 0x9e3779b97f4a7c15u)) & mask;
        x ^= x >> half;
        x = x * 0xd6e8feb86659fd93u & mask;
        x ^= x >> half;
        x = x * 0xa0761d6478bd642fu & mask;
        x ^= x >> half;
    } while (x >= pieces);
    return x;
}

static uint64_t next_piece(struct session *session)
{
    uint64_t index;

    if (is_random) return shuffled(issued % pieces);
    index = session->next++;
    if (session->next == pieces) session->next = 0;
    return index;
}

/* ---- Contents that tell where they belong. */

static void stamp(struct slot *slot)
{
    uint64_t *words = (uint64_t *)slot->data, at = slot->piece * bytes;
    uint32_t i;

    for (i = 0; i < bytes / 8; i++) words[i] = word_at(at + i * 8);
}

static void check(struct slot *slot, const struct scsi_task *task)
{
    const uint64_t *words = (const uint64_t *)task->datain.data;
    uint64_t at = slot->piece * bytes;
    uint32_t i;

    if ((uint32_t)task->datain.size != bytes) {
        if (failures++ < 5) fprintf(stderr, "load: %d bytes at %llu\n", task->datain.size, (unsigned long long)at);
        return;
    }
    for (i = 0; i < bytes / 8; i++) {
        uint64_t word;
        memcpy(&word, words + i, 8);
        if (word == word_at(at + i * 8)) continue;
        if (failures++ < 5) fprintf(stderr, "load: other bytes than written at %llu\n", (unsigned long long)(at + i * 8));
        return;
    }
}

/* ---- Commands. */

static void issue(struct slot *slot);

static void ended(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct scsi_task *task = data;
    struct slot *slot = private_data;

    record(now_ns() - slot->begun_ns);
    completed++;
    slot->session->under_way--;
    if (status != SCSI_STATUS_GOOD) {
        if (failures++ < 5) fprintf(stderr, "load: status %d: %s\n", status, iscsi_get_error(iscsi));
    } else if (operation == OP_CHECK) {
        check(slot, task);
    }
    scsi_free_scsi_task(task);
    if (running) issue(slot);
}

static void issue(struct slot *slot)
{
    struct session *session = slot->session;
    struct scsi_task *task;
    uint64_t lba;

    if (issued >= ops_max) return;
    slot->piece = next_piece(session);
    issued++;
    lba = slot->piece * (bytes / SECTOR);
    if (operation == OP_FILL) stamp(slot);
    slot->begun_ns = now_ns();
    session->under_way++;
    if (operation == OP_WRITE || operation == OP_FILL)
        task = iscsi_write10_task(session->iscsi, session->lun, (uint32_t)lba, slot->data, bytes, SECTOR,
                                  0, 0, fua, 0, 0, ended, slot);
    else
        task = iscsi_read10_task(session->iscsi, session->lun, (uint32_t)lba, bytes, SECTOR,
                                 0, 0, 0, 0, 0, ended, slot);
    if (task == NULL) fail("a command can't be sent: %s", iscsi_get_error(session->iscsi));
}

static void connect_session(struct session *session, int index)
{
    char name[80];
    struct iscsi_url *place;
    struct scsi_task *task;
    struct scsi_readcapacity16 *capacity;

    snprintf(name, sizeof name, "iqn.2026-01.org.example:load:%d:%d", (int)getpid(), index);
    session->iscsi = iscsi_create_context(name);
    if (session->iscsi == NULL) fail("no memory for a session");
    place = iscsi_parse_full_url(session->iscsi, url);
    if (place == NULL) fail("%s: %s", url, iscsi_get_error(session->iscsi));
    iscsi_set_targetname(session->iscsi, place->target);
    iscsi_set_session_type(session->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(session->iscsi, header_digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    if (iscsi_full_connect_sync(session->iscsi, place->portal, place->lun) != 0)
        fail("%s: %s", url, iscsi_get_error(session->iscsi));
    session->lun = place->lun;
    iscsi_destroy_url(place);
    task = iscsi_readcapacity16_sync(session->iscsi, session->lun);
    if (task == NULL || task->status != SCSI_STATUS_GOOD) fail("READ CAPACITY: %s", iscsi_get_error(session->iscsi));
    capacity = scsi_datain_unmarshall(task);
    if (capacity == NULL || capacity->block_length != SECTOR) fail("the LUN's blocks are not of %d bytes", SECTOR);
    if (region > (capacity->returned_lba + 1) * SECTOR) region = (capacity->returned_lba + 1) * SECTOR;
    scsi_free_scsi_task(task);
}

/* ---- The run. */

static void parse(int count, char **arguments)
{
    static const struct option options[] = {
        {"url", 1, 0, 'u'}, {"operation", 1, 0, 'o'}, {"order", 1, 0, 'r'}, {"bytes", 1, 0, 'b'},
        {"depth", 1, 0, 'd'}, {"connections", 1, 0, 'c'}, {"region", 1, 0, 'g'}, {"seconds", 1, 0, 's'},
        {"ops", 1, 0, 'n'}, {"seed", 1, 0, 'e'}, {"fua", 0, 0, 'f'}, {"header-digest", 0, 0, 'h'},
        {"idle", 1, 0, 'I'}, {"pid", 1, 0, 'p'}, {0, 0, 0, 0}};
    static const char *const operations[] = {"read", "write", "fill", "check"};
    int option, i;

    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'u': url = optarg; break;
        case 'o':
            for (i = 0; i < 4 && strcmp(optarg, operations[i]) != 0; i++) {}
            if (i == 4) fail("--operation: %s?", optarg);
            operation = (enum operation)i;
            break;
        case 'r': is_random = strcmp(optarg, "random") == 0; break;
        case 'b': bytes = (uint32_t)number(optarg); break;
        case 'd': depth = (int)number(optarg); break;
        case 'c': connections = (int)number(optarg); break;
        case 'g': region = number(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'n': ops_max = number(optarg); break;
        case 'e': seed = number(optarg); break;
        case 'f': fua = 1; break;
        case 'h': header_digest = 1; break;
        case 'I': idle_s = (int)number(optarg); break;
        case 'p': target_pid = (int)number(optarg); break;
        default: exit(1);
        }
    }
    if (url == NULL) fail("--url is missing");
    if (bytes == 0 || bytes % SECTOR != 0) fail("--bytes is a multiple of %d", SECTOR);
    if (depth < 1 || connections < 1 || connections > CONNECTIONS_MAX) fail("--depth or --connections out of range");
}

int main(int count, char **arguments)
{
    struct slot *slots;
    struct pollfd polled[CONNECTIONS_MAX];
    uint64_t begun, end_ns = 0, completed_in_time = 0;
    struct rlimit files;
    double target_before, target_cpu = 0, own_before, own_cpu = 0, elapsed;
    int i, j;

    parse(count, arguments);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0) fail("setrlimit: %s", strerror(errno));
    }
    for (i = 0; i < connections; i++) connect_session(&sessions[i], i);
    pieces = region / bytes;
    if (pieces == 0) fail("the region is smaller than a command");
    if ((pieces * bytes) / SECTOR > UINT32_MAX) fail("the region is larger than READ (10) reaches");
    while (((uint64_t)1 << piece_bits) < pieces) piece_bits++;
    if (idle_s > 0) {
        fprintf(stderr, "connected\n");
        sleep((unsigned)idle_s);
    }
    slots = calloc((size_t)connections * (size_t)depth, sizeof *slots);
    if (slots == NULL) fail("no memory");

    target_before = processor_seconds(target_pid);
    own_before = own_seconds();
    begun = now_ns();
    for (i = 0; i < connections; i++) {
        sessions[i].next = pieces / (uint64_t)connections * (uint64_t)i;
        for (j = 0; j < depth; j++) {
            struct slot *slot = &slots[i * depth + j];
            slot->session = &sessions[i];
            if (posix_memalign((void **)&slot->data, 4096, bytes) != 0) fail("no memory");
            memset(slot->data, 0x5a + j, bytes);
            issue(slot);
        }
    }
    for (;;) {
        int under_way = 0;
        for (i = 0; i < connections; i++) {
            polled[i].fd = iscsi_get_fd(sessions[i].iscsi);
            polled[i].events = (short)iscsi_which_events(sessions[i].iscsi);
            polled[i].revents = 0;
            under_way |= sessions[i].under_way;
        }
        /* Never before something has completed: on a busy machine a short run would have no rate. */
        if (running && (!under_way || (completed > 0 && (double)(now_ns() - begun) / 1e9 >= seconds))) {
            running = 0;
            end_ns = now_ns();
            completed_in_time = completed;
            target_cpu = processor_seconds(target_pid) - target_before;
            own_cpu = own_seconds() - own_before;
        }
        if (!under_way) break;
        if (poll(polled, (nfds_t)connections, 1000) < 0 && errno != EINTR) fail("poll: %s", strerror(errno));
        for (i = 0; i < connections; i++)
            if (iscsi_service(sessions[i].iscsi, polled[i].revents) < 0)
                fail("the connection broke: %s", iscsi_get_error(sessions[i].iscsi));
    }
    for (i = 0; i < connections; i++) iscsi_logout_sync(sessions[i].iscsi);

    elapsed = (double)(end_ns - begun) / 1e9;
    printf("{\"ops\":%llu,\"seconds\":%.4f,\"opsPerSecond\":%.1f,\"bytesPerSecond\":%.0f,\"p50Us\":%.1f,\"p99Us\":%.1f,"
           "\"maxUs\":%.1f,\"targetCpuUs\":%.3f,\"targetCpuShare\":%.3f,\"clientCpuShare\":%.3f,\"failures\":%llu}\n",
           (unsigned long long)completed_in_time, elapsed, (double)completed_in_time / elapsed,
           (double)completed_in_time * bytes / elapsed, quantile_us(0.5), quantile_us(0.99), quantile_us(1 - 1e-12),
           completed_in_time ? target_cpu * 1e6 / (double)completed_in_time : 0, target_cpu / elapsed,
           own_cpu / elapsed, (unsigned long long)failures);
    return failures ? 2 : 0;
}
